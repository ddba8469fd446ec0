package browser

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"walhook/testenv"
)

// lifeOfAWebhook does on the page all that administrators do, from signing in to signing out.
func lifeOfAWebhook(t *testing.T, s *installation, b *tab) {
	b.signIn(s.admin)
	b.sees("Streaming")
	if live := eval[bool](b, "!!document.querySelector('[data-live-control] button')"); live == b.noScripts {
		t.Errorf("the overview is live: %v; without JavaScript: %v", live, b.noScripts)
	}

	// Added, with a mistake first: what was typed stays, and the sentence is beside the field.
	hook := "/hook-of-" + strings.NewReplacer("/", "-").Replace(t.Name())
	b.follow("Webhooks")
	b.follow("Add Webhook")
	b.at("/webhooks/new")
	if got := b.chosen("Assessment"); got != "ALL ASSESSMENTS" {
		t.Errorf("the first assessment is %s", got)
	}
	b.choose("Assessment", "Fire safety (1)")
	b.fill("Webhook URL", "ftp://example.com/hook")
	b.choose("Event Type", "response.completed")
	b.fill("Organizations", "")
	b.fill("Description", "HR system")
	b.fill("Headers", "X-Team: blue")
	b.follow("Save")
	if got := b.refusal("Webhook URL"); !strings.Contains(got, "http") {
		t.Errorf("the URL is refused with %q", got)
	}
	for label, want := range map[string]string{"Webhook URL": "ftp://example.com/hook", "Description": "HR system", "Headers": "X-Team: blue", "Assessment": "1"} {
		if got := b.value(label); got != want {
			t.Errorf("%s has %q after the refusal, not %q", label, got, want)
		}
	}
	if got := b.chosen("Event Type"); got != "response.completed" {
		t.Errorf("the event type is %s after the refusal", got)
	}
	b.fill("Webhook URL", s.Receiver.URL(hook))
	b.follow("Save")
	b.sees("Webhook added.", "HR system")
	id := strings.TrimPrefix(b.at("/webhooks/"), "/webhooks/")
	webhook := "/webhooks/" + id

	// Tested: the page shows what came back, with and without JavaScript.
	b.follow("Test")
	b.sees("The test succeeded: HTTP 200")
	test := s.Receiver.Requests()[s.Receiver.Count()-1]
	if test.Path != hook || test.Header.Get("walhook-test") != "true" || test.Header.Get("X-Team") != "blue" || !strings.Contains(test.Body, `"EventType":"response.completed"`) {
		t.Errorf("the test was sent as %v %s", test.Header, test.Body)
	}
	s.Receiver.Respond(hook, testenv.Always(testenv.Reply{Status: 503, Body: "closed for lunch"}))
	b.follow("Test")
	b.sees("The test failed: HTTP 503", "closed for lunch")

	// An event that fails, in the log; redelivered once the receiver works.
	response := testenv.Value[int64](t, s.DB, "insert into respondent (id, assessment_id, finished_at) select max(id) + 1, 1, now() from respondent where id < 1000 returning id")
	s.WaitLog(fmt.Sprintf("select status from walhook.delivery_log where response_id = '%d' and webhook_id = %s", response, id), "failed")
	s.Receiver.Respond(hook, nil)
	b.open(webhook)
	b.follow("Show Delivery Log")
	b.choose("Status", "failed")
	b.fill("Response id", fmt.Sprint(response))
	b.follow("Filter")
	b.at("/deliveries?")
	b.sees("HTTP 503", "response.completed")
	failed := testenv.Value[int64](t, s.Store, "select delivery_id from walhook.delivery_log where response_id = $1 and not test", fmt.Sprint(response))
	b.follow(fmt.Sprint(failed))
	b.sees("closed for lunch", "webhook-id", "X-Team", `{"EventType":"response.completed","Timestamp":`, fmt.Sprintf(`"Data":{"ResponseId":%d}}`, response))
	b.lacks("blue")
	b.follow("Redeliver")
	b.sees("Redelivery of")
	if again := b.at("/deliveries/"); b.noScripts { // nothing keeps the page current
		s.WaitLog(fmt.Sprintf("select status from walhook.delivery_log where redelivery_of = %d", failed), "success")
		b.open(again)
	}
	b.sees("success")

	// The rest of what failed, all at once: the tests are left out.
	response++
	s.Receiver.Respond(hook, testenv.Always(testenv.Reply{Status: 500}))
	s.Exec("insert into respondent (id, assessment_id, finished_at) values ($1, 1, now())", response)
	s.WaitLog(fmt.Sprintf("select status from walhook.delivery_log where response_id = '%d' and webhook_id = %s", response, id), "failed")
	s.Receiver.Respond(hook, nil)
	b.open("/deliveries?webhook=" + id)
	b.follow("Redeliver all that failed")
	b.sees("1 failed delivery is sent again")
	b.follow("Redeliver all that failed")
	b.sees("1 delivery is queued again.")
	s.WaitLog(fmt.Sprintf("select count(*) from walhook.delivery_log where response_id = '%d' and status = 'success'", response), "1")

	// Why a response did or did not arrive.
	b.open(fmt.Sprintf("/responses/%d", response))
	b.sees("response.completed", "response.created")

	// Edited; what is secret is shown on demand alone.
	b.open(webhook)
	b.lacks(hook)
	b.follow("Show URL, secret and headers")
	if got := b.value("Webhook URL"); got != s.Receiver.URL(hook) {
		t.Errorf("the URL that is shown is %s", got)
	}
	b.fill("Description", "HR system, second try")
	b.toggle("Keep the order of events about one response")
	b.follow("Save")
	b.sees("Webhook saved.", "HR system, second try")
	if got := testenv.Psql(t, s.Store, "select ordered, headers, secret is not null from walhook.webhook where id = "+id); got != `f|{"X-Team": "blue"}|t` {
		t.Errorf("saved: %s", got)
	}

	// Disabled, then deleted: both ask first, and say what becomes of what is pending.
	b.follow("Disable …")
	b.sees("Events that happen while it is disabled are not sent")
	b.follow("Cancel")
	b.follow("Disable …")
	b.follow("Disable webhook")
	b.sees("is disabled.", "disabled")
	testenv.Exec(t, s.Store, "insert into walhook.queue (webhook_id, committed_at, event_type, response_id) select $1, now(), 3, g::text from generate_series(1, 3) g", number(t, id))
	b.open(webhook)
	b.follow("Delete …")
	b.sees("3 pending deliveries end as failed.")
	b.follow("Delete webhook")
	b.sees("is deleted.")
	b.at("/webhooks")

	// The settings.
	b.follow("Settings")
	b.toggle("Use Webhooks")
	b.choose("Time zone", "US/Samoa")
	b.follow("Save")
	b.sees("Settings saved.")
	if got := testenv.Psql(t, s.Store, "select enabled, time_zone from walhook.settings"); got != "f|US/Samoa" {
		t.Errorf("the settings are %s", got)
	}
	b.follow("Overview")
	b.sees("Webhooks are switched off")
	b.follow("Settings")
	b.toggle("Use Webhooks")
	b.choose("Time zone", "UTC")
	b.follow("Save")
	b.sees("Settings saved.")

	// A key, shown once.
	b.follow("API keys")
	b.fill("Name", "Key of "+t.Name())
	b.follow("Create key")
	b.sees("it is shown this once")
	if key := regexp.MustCompile(`whk_[0-9a-f]{64}`).FindString(b.text()); key == "" {
		t.Error("no key is shown")
	}
	b.follow("Revoke Key of " + t.Name())
	b.sees("cannot be restored")
	b.follow("Revoke key")
	b.sees("The key is revoked.")

	b.follow("Changes")
	b.sees("Deleted webhook "+id, "Changed the settings", "Added API key", s.admin)
	b.follow("Incidents")
	b.sees("switched off")
	b.follow("Sign out")
	b.at("/login")
	b.quiet()
}

func number(t *testing.T, text string) (n int64) {
	t.Helper()
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatalf("%q is no number: %v", text, err)
	}
	return n
}

func lives(t *testing.T, browser *chromium) {
	s := newInstallation(t)
	s.Exec("insert into respondent (id, assessment_id, finished_at) values (5, 1, now())")
	s.Start().Ready()
	for _, how := range []struct {
		name  string
		start func(*tab)
	}{
		{"with the mouse", func(*tab) {}},
		{"without JavaScript", (*tab).withoutScripts},
		{"with the keyboard alone", func(b *tab) { b.keyboard = true }},
	} {
		t.Run(how.name, func(t *testing.T) {
			s := *s
			site := *s.Site
			site.T, s.Site = t, &site
			b := browser.tab(t, s.url)
			how.start(b)
			lifeOfAWebhook(t, &s, b)
		})
	}
}
