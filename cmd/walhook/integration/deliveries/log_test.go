package deliveries

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walhook/cmd/walhook/internal/harness"
	"walhook/sql"
	"walhook/testenv"
)

// The log shows every delivery, its attempts, and the webhook-id that the receiver saw.
func TestDeliveryLog(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("MAX_ATTEMPTS", "2", "RETRY_CAP", "2h")
	s.Run()
	first := s.Hook("/ok", "created")
	s.Hook("/dead", "started")
	s.Hook("/flaky", "completed")
	s.Hook("/waits", "changed")
	s.Receiver.Respond("/dead", testenv.Always(testenv.Reply{Status: 500, Body: "oh\nno"}))
	s.Receiver.Respond("/flaky", harness.Once(502, ""))
	s.Receiver.Respond("/waits", testenv.Always(testenv.Reply{Status: 503, Header: map[string]string{"Retry-After": "3600"}}))
	s.Exec("insert into respondent (id, assessment_id, started_at, finished_at) values (7, 1, now(), now())")
	s.Exec("update respondent set finished_at = now()")

	s.WaitLog(`select webhook_id, response_id, event_type, status, attempts, http_status, error, test, recovered, delivered_at is not null
		from walhook.delivery_log order by delivery_id`, strings.Join([]string{
		fmt.Sprintf("%d|7|response.created|success|1|200||f|f|t", first),
		fmt.Sprintf("%d|7|response.started|failed|2|500|HTTP 500 Internal Server Error: oh no|f|f|t", first+1),
		fmt.Sprintf("%d|7|response.completed|success|2|200||f|f|t", first+2),
		fmt.Sprintf("%d|7|response.changed|pending|1|503|HTTP 503 Service Unavailable|f|f|t", first+3),
	}, "\n"))
	s.WaitLog(`select l.event_type, a.attempt, a.succeeded, a.http_status, a.error
		from walhook.delivery_attempt a join walhook.delivery_log l using (delivery_id) order by a.delivery_id, a.attempt`, strings.Join([]string{
		"response.started|1|f|500|HTTP 500 Internal Server Error: oh no",
		"response.started|2|f|500|HTTP 500 Internal Server Error: oh no",
		"response.completed|1|f|502|HTTP 502 Bad Gateway",
		"response.completed|2|t|200|",
		"response.changed|1|f|503|HTTP 503 Service Unavailable",
	}, "\n"))
	harness.CheckMessageIDs(s)

	// Times are local times of the site's time zone.
	const times = `select max(delivered_at), max(next_attempt_at), (select max(attempted_at) from walhook.delivery_attempt)%s from walhook.delivery_log`
	moved := testenv.Psql(t, s.Store, strings.NewReplacer("max(", "timezone('America/New_York', timezone('UTC', max(", "_at)", "_at)))").Replace(fmt.Sprintf(times, "")))
	testenv.Psql(t, s.Store, "update walhook.settings set time_zone = 'America/New_York'")
	if got := testenv.Psql(t, s.Store, fmt.Sprintf(times, "")); got != moved {
		t.Errorf("times in New York are %s, not %s", got, moved)
	}
	out, err := testenv.TryPsql(t, s.Store, "update walhook.settings set time_zone = 'New York'")
	if err == nil || !strings.Contains(out, `time zone "New York" is not known`) || !strings.Contains(out, "HINT:") {
		t.Errorf("a time zone that does not exist: %v %s", err, out)
	}
	if out, err := testenv.TryPsql(t, s.Store, "insert into walhook.settings default values"); err == nil {
		t.Errorf("a second row of settings was taken: %s", out)
	}
}

// A webhook may omit its successes from the log; failures are always logged.
func TestLogSuccesses(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("MAX_ATTEMPTS", "1")
	s.Run()
	s.Hook("/quiet", "created", "log_successes", "false")
	s.Hook("/loud", "created")
	s.Receiver.Respond("/quiet", func(r testenv.Request) testenv.Reply {
		if strings.Contains(r.Body, ":2}") {
			return testenv.Reply{Status: 400}
		}
		return testenv.Reply{}
	})
	s.Exec("insert into respondent (id, assessment_id) values (1, 1), (2, 1), (3, 1)")
	s.Expect("/quiet", "created 1", "created 2", "created 3")
	got := testenv.Psql(t, s.Store, "select response_id, status from walhook.delivery_log order by delivery_id")
	if want := "1|success\n2|failed\n2|success\n3|success"; got != want {
		t.Errorf("the log has\n%s\ninstead of\n%s", got, want)
	}
}

// sameMessage expects requests with one body and one webhook-id.
func sameMessage(t *testing.T, requests ...testenv.Request) {
	t.Helper()
	for _, r := range requests {
		if r.Body != requests[0].Body || r.Header.Get("Webhook-Id") != requests[0].Header.Get("Webhook-Id") {
			t.Errorf("%v was sent again as %v", requests[0], r)
		}
	}
}

func TestTestWebhook(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("ASSESSMENT_TABLE", "public.assessment", "RESPONDENT_ORGANIZATION", "organization_id")
	s.Run()
	one := s.Hook("/one", "changed")
	all := s.Hook("/all", "started", "assessment_id", "null")
	org := s.Hook("/org", "completed", "organization_id", "'A'", "enabled", "false")
	refused := func(call, message string) {
		t.Helper()
		out, err := testenv.TryPsql(t, s.Store, "select walhook."+call)
		if err == nil || !strings.Contains(out, message) || !strings.Contains(out, "HINT:") {
			t.Errorf("%s: %v %s", call, err, out)
		}
	}
	refused(fmt.Sprintf("test_webhook(%d)", one), "no respondent matches webhook")
	// The newest is the one that was inserted last, whatever its id.
	s.Exec("insert into respondent (id, assessment_id, organization_id) values (50, 1, 'A')")
	s.Exec("insert into respondent (id, assessment_id, organization_id) values (7, 1, 'B')")
	s.Exec("insert into respondent (id, assessment_id) values (60, 2)")
	s.WaitStored()
	refused(fmt.Sprintf("test_webhook(%d, 'abc')", one), `response id "abc" is not an integer`)
	refused(fmt.Sprintf("test_webhook(%d, '1.5')", one), "is not an integer")
	refused(fmt.Sprintf("test_webhook(%d, '')", one), "is not an integer")
	refused("test_webhook(987654)", "there is no webhook 987654")

	var ids []string
	for _, call := range []string{
		fmt.Sprintf("test_webhook(%d)", one),
		fmt.Sprintf("test_webhook(%d, '12345')", one),
		fmt.Sprintf("test_webhook(webhook_id => %d)", all),
		fmt.Sprintf("test_webhook(%d)", org),
	} {
		out := testenv.Psql(t, s.Store, "select walhook."+call)
		ids = append(ids, out[strings.LastIndex(out, "\n")+1:]) // after a notice
	}
	s.Receiver.Wait(t, 4, harness.Patience)
	for path, want := range map[string][]string{
		"/one": {"changed 12345", "changed 7"}, "/all": {"started 7"}, "/org": {"completed 50"},
	} {
		if diff := cmp.Diff(harness.ByResponse(want), harness.ByResponse(s.Events(path))); diff != "" {
			t.Errorf("tests at %s (-want +got):\n%s", path, diff)
		}
	}
	s.WaitLog("select delivery_id, response_id, event_type, status, attempts, test from walhook.delivery_log order by delivery_id",
		ids[0]+"|7|response.changed|success|1|t\n"+ids[1]+"|12345|response.changed|success|1|t\n"+
			ids[2]+"|7|response.started|success|1|t\n"+ids[3]+"|50|response.completed|success|1|t")
	harness.CheckMessageIDs(s)
}

// A redelivery is a new delivery of the same message: it has the body and the webhook-id of the first.
func TestRedeliver(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("MAX_ATTEMPTS", "1", "RETRY_CAP", "2h")
	s.Run()
	hook := s.Hook("/hook", "created")
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/hook", "created 1")
	first := testenv.Value[int64](t, s.Store, "select delivery_id from walhook.delivery_log")
	// Its webhook-timestamp differs; the body does not.
	again := testenv.Value[int64](t, s.Store, "select walhook.redeliver($1)", first)
	if again == first {
		t.Errorf("the redelivery of %d has the same id", first)
	}
	s.Receiver.Wait(t, 2, harness.Patience)
	s.Fence()
	sameMessage(t, s.Receiver.Requests()...)
	got := testenv.Psql(t, s.Store, "select delivery_id, status, test, recovered, redelivery_of from walhook.delivery_log order by 1")
	if want := fmt.Sprintf("%d|success|f|f|\n%d|success|f|f|%d", first, again, first); got != want {
		t.Errorf("the log has\n%s\ninstead of\n%s", got, want)
	}
	// So does a redelivery of a redelivery, though a new slot has given deliveries another origin meanwhile.
	testenv.Exec(t, s.Store, sql.RecordOrigin.SQL)
	testenv.Exec(t, s.Store, "select walhook.redeliver($1)", again)
	sameMessage(t, s.Receiver.Wait(t, 3, harness.Patience)...)

	// A test is a message of its own, and is marked as one at each of its deliveries.
	test := testenv.Value[int64](t, s.Store, "select walhook.test_webhook($1)", hook)
	s.WaitLog(fmt.Sprintf("select status from walhook.delivery_log where delivery_id = %d", test), "success")
	testenv.Exec(t, s.Store, sql.RecordOrigin.SQL)
	testenv.Exec(t, s.Store, "select walhook.redeliver($1)", test)
	requests := s.Receiver.Wait(t, 5, harness.Patience)
	sameMessage(t, requests[3:]...)
	if requests[0].Header.Get("Webhook-Id") == requests[3].Header.Get("Webhook-Id") {
		t.Errorf("a test has the webhook-id of an event: %v", requests[3].Header)
	}
	for i, r := range requests {
		if got := strings.Join(r.Header.Values("walhook-test"), ","); got != []string{"", "true"}[i/3] {
			t.Errorf("request %d has walhook-test: %q", i, got)
		}
	}
	s.WaitLog("select count(*) from walhook.delivery_log where status = 'success'", "5")
	harness.CheckMessageIDs(s)

	// All that failed, except those that a redelivery has delivered since.
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{Status: 500}))
	s.Exec("insert into respondent (id, assessment_id) values (2, 1), (3, 1), (4, 1)")
	s.WaitLog("select count(*) from walhook.delivery_log where status = 'failed'", "3")
	since := "now() - interval '1 hour'"
	redeliver := func(since string, want string) {
		t.Helper()
		if got := testenv.Psql(t, s.Store, fmt.Sprintf("select walhook.redeliver_failed(%d, %s)", hook, since)); got != want {
			t.Errorf("redeliver_failed since %s queued %s deliveries, not %s", since, got, want)
		}
	}
	redeliver("now() + interval '1 hour'", "0")
	s.Receiver.Respond("/hook", func(r testenv.Request) testenv.Reply {
		if strings.Contains(r.Body, ":4}") {
			return testenv.Reply{Status: 500}
		}
		return testenv.Reply{}
	})
	redeliver(since, "3")
	s.WaitLog("select status, count(*) from walhook.delivery_log where response_id in ('2', '3', '4') group by 1 order by 1", "failed|4\nsuccess|2")
	s.Receiver.Respond("/hook", nil)
	redeliver(since, "1") // 4 failed again
	s.WaitLog("select count(*) from walhook.delivery_log where status = 'success' and response_id = '4'", "1")
	redeliver(since, "0")

	// A notice says why deliveries are not sent yet.
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{Status: 500}))
	s.Exec("insert into respondent (id, assessment_id) values (5, 1)")
	s.WaitLog("select status from walhook.delivery_log where response_id = '5'", "failed")
	failed := testenv.Value[int64](t, s.Store, "select delivery_id from walhook.delivery_log where response_id = '5'")
	for _, c := range []struct{ state, call, says string }{
		{"update walhook.settings set enabled = false", fmt.Sprintf("redeliver(%d)", failed), "are switched off: this stays pending until UPDATE"},
		{"", fmt.Sprintf("test_webhook(%d)", hook), "are switched off: this stays pending until UPDATE"},
		{"", fmt.Sprintf("test_webhook(%d, 999999)", hook), "no response 999999 is recorded: the test is sent anyway"},
		{"update walhook.webhook set enabled = false; update walhook.settings set enabled = true", fmt.Sprintf("redeliver(%d)", failed), fmt.Sprintf("webhook %d is disabled: this stays pending until UPDATE", hook)},
		{"delete from walhook.queue", fmt.Sprintf("redeliver_failed(%d, %s)", hook, since), fmt.Sprintf("webhook %d is disabled", hook)},
		{"update walhook.queue set attempts = 1, next_attempt_at = now() + interval '1 hour'", fmt.Sprintf("retry_now(%d)", hook), fmt.Sprintf("webhook %d is disabled", hook)},
		{"", fmt.Sprintf("retry_now(%d)", hook), fmt.Sprintf("webhook %d is disabled", hook)}, // none of its deliveries awaits a retry any more
	} {
		if out := testenv.Psql(t, s.Store, c.state+"; select walhook."+c.call); !strings.Contains(out, "NOTICE:  ") || !strings.Contains(out, c.says) {
			t.Errorf("%s: %s", c.call, out)
		}
	}
	// A delivery whose webhook has just been deleted is pending until a daemon fails it.
	if got := testenv.Psql(t, s.Store, `begin; insert into walhook.queue (delivery_id, webhook_id, committed_at, event_type, response_id) values (987653, 987654, now(), 1, '1');
		select walhook.redeliver(987653); rollback`); !strings.Contains(got, "987653") {
		t.Errorf("a pending delivery without its webhook: %s", got)
	}
	for _, call := range []string{"redeliver(987654)", "redeliver_failed(987654, now())", "retry_now(987654)"} {
		if out, err := testenv.TryPsql(t, s.Store, "select walhook."+call); err == nil || !strings.Contains(out, "there is no ") || !strings.Contains(out, "HINT:") {
			t.Errorf("%s: %v %s", call, err, out)
		}
	}
}

// A pending delivery becomes due immediately and keeps its id.
func TestRedeliverPending(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("RETRY_BASE", "1h", "RETRY_CAP", "2h")
	s.Run()
	hook := s.Hook("/hook", "created")
	s.Receiver.Respond("/hook", harness.Once(500, ""))
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.PendingAfterFailure(hook)
	id := testenv.Value[int64](t, s.Store, "select delivery_id from walhook.delivery_log")
	if got := testenv.Value[int64](t, s.Store, "select walhook.redeliver($1)", id); got != id {
		t.Errorf("the pending delivery %d became %d", id, got)
	}
	s.Expect("/hook", "created 1", "created 1")
	s.WaitLog("select delivery_id, status, attempts from walhook.delivery_log", fmt.Sprintf("%d|success|2", id))
	harness.CheckMessageIDs(s)
}

// Once a receiver works again, deliveries that await a retry can be made due.
func TestRetryNow(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("RETRY_BASE", "1h", "RETRY_CAP", "2h")
	s.Run()
	hook, other := s.Hook("/hook", "created"), s.Hook("/other", "created")
	for _, path := range []string{"/hook", "/other"} {
		s.Receiver.Respond(path, testenv.Always(testenv.Reply{Status: 500}))
	}
	s.Exec("insert into respondent (id, assessment_id) values (1, 1), (2, 1)")
	s.WaitLog("select count(*) from walhook.delivery_log where status = 'pending' and attempts = 1", "4")
	s.Receiver.Respond("/hook", nil)
	s.Receiver.Respond("/other", nil)
	if got := testenv.Psql(t, s.As("walhook_admin"), fmt.Sprintf("select walhook.retry_now(%d), walhook.retry_now(%[1]d)", hook)); got != "2|0" {
		t.Errorf("made due: %s", got)
	}
	s.WaitLog("select webhook_id, status, attempts, count(*) from walhook.delivery_log group by 1, 2, 3 order by 1", fmt.Sprintf("%d|success|2|2\n%d|pending|1|2", hook, other))
}

// Invalid webhooks are refused with a helpful message that does not repeat the secret.
func TestWebhookConstraints(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Attach()
	secret := func(bytes int) string {
		return testenv.Value[string](t, s.Store, "select 'whsec_' || replace(encode(decode(repeat('ab', $1), 'hex'), 'base64'), chr(10), '')", bytes)
	}
	insert := func(url, event, secret string) (string, error) {
		return testenv.TryPsql(t, s.Store, fmt.Sprintf("insert into walhook.webhook (url, event_type, secret) values ('%s', '%s', %s)", url, event, secret))
	}
	const url, event = "https://example.com/hook?key=hunter2", "response.created"
	for _, c := range []struct{ url, event, secret, message string }{
		{"example.com/hunter2", event, "null", "webhook.url must be an absolute http or https URL"},
		{"/hunter2", event, "null", "webhook.url must be an absolute http or https URL"},
		{"//example.com/hunter2", event, "null", "webhook.url must be an absolute http or https URL"},
		{"ftp://example.com/hunter2", event, "null", "webhook.url must be an absolute http or https URL"},
		{"https://", event, "null", "webhook.url must be an absolute http or https URL"},
		{"https:///hunter2", event, "null", "webhook.url must be an absolute http or https URL"},
		{"https://exa mple.com/hunter2", event, "null", "webhook.url must be an absolute http or https URL"},
		{"https://example.com/hunter2 2", event, "null", "webhook.url must be an absolute http or https URL"},
		{"https://example.com:port/hunter2", event, "null", "webhook.url must be an absolute http or https URL"},
		{"https://example.com/hunter2" + strings.Repeat("x", 2048), event, "null", "webhook.url must be an absolute http or https URL"},
		{"", event, "null", "webhook.url must be an absolute http or https URL"},
		{url, "response.finished", "null", `event type "response.finished" is not known`},
		{url, "created", "null", `event type "created" is not known`},
		{url, "", "null", `event type "" is not known`},
		{url, event, "'hunter2'", "signing secret must be"},
		{url, event, "''", "signing secret must be"},
		{url, event, "'whsec_hunter2'", "signing secret must be"},
		{url, event, "'" + secret(23) + "'", "signing secret must be"},
		{url, event, "'" + secret(65) + "'", "signing secret must be"},
		{url, event, "'" + strings.TrimPrefix(secret(32), "whsec_") + "'", "signing secret must be"},
		{url, event, "'" + strings.TrimRight(secret(32), "=") + "'", "signing secret must be"},
	} {
		out, err := insert(c.url, c.event, c.secret)
		if err == nil || !strings.Contains(out, c.message) || !strings.Contains(out, "HINT:") {
			t.Errorf("url %.60q, event %q, secret %.60s: %v %s", c.url, c.event, c.secret, err, out)
		}
		if strings.Contains(out, "hunter2") {
			t.Errorf("the refusal repeats a secret: %s", out)
		}
	}
	for _, good := range []string{"http://localhost", "https://user:pass@example.com:8443/a?b=c#d", "HTTPS://[2001:db8::1]:80/x", "http://10.0.0.1"} {
		if out, err := insert(good, event, "'"+secret(24)+"'"); err != nil {
			t.Errorf("%s was refused: %s", good, out)
		}
	}
	if out, err := insert(url, event, "walhook.new_secret()"); err != nil {
		t.Errorf("a new secret was refused: %s", out)
	}
	if out, err := testenv.TryPsql(t, s.Store, "update walhook.webhook set url = 'nowhere'"); err == nil || !strings.Contains(out, "HINT:") {
		t.Errorf("an update to a bad URL: %v %s", err, out)
	}
}
