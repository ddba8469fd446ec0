package console

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"walhook/testenv"
)

const injected = `"><script>alert(1)</script>'&<b>`

// filled is a site with webhooks, deliveries and incidents of every kind, whose texts try to be HTML.
func filled(t *testing.T) *site {
	t.Helper()
	s := newSite(t, nil)
	fill(t, s.store)
	return s
}

func fill(t *testing.T, store string) {
	t.Helper()
	testenv.Exec(t, store, `
		insert into walhook.attachment (phase, system_identifier, database, slot, publication, publish, mapping, respondent_oid, assessment_oid, numeric_id)
		values ('attached', '1', 'd', 's', 'p', 'all', '{}', 1, 2, false);
		insert into walhook.origin (from_delivery_id, events, manual) values (0, 'events', 'manual');
		insert into walhook.assessment (assessment_id, external_id, name) values ('17', 'EXT-17', 'Fire safety'), ('18', 'EXT-18', null);
		insert into walhook.response_state (response_id, assessment_id, flags, fate, fired_at) values ('1001', '17', 3, 7, now());
		insert into walhook.webhook (assessment_id, url, event_type, description, headers, secret) values
		  ('17', 'https://hunter2:pw@example.com/hook/hunter2', 'response.completed', 'HR system', '{"X-Api-Key": "hunter2"}', 'whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnRlcjI='),
		  (null, 'https://partner.example/all', 'response.created', null, null, null),
		  ('18', 'https://zapier.example/h', 'response.changed', null, null, null);
		update walhook.webhook set enabled = false where id = 3;
		insert into walhook.webhook_trouble (webhook_id, failing_since, activation) select id, now() - interval '3 hours', activation from walhook.webhook where id = 2;
		update walhook.endpoint set failures = 9, last_error = 'HTTP 500: oops' where url like '%partner%';
		insert into walhook.log_overflow (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, http_status, event_type, kind, succeeded, response_id, error)
		select g, case when g % 4 = 0 then 2 else 1 end, g, now() - g * interval '11 minutes', now() - g * interval '11 minutes', 1 + (g % 4 = 0)::int * 2,
		       case when g % 4 = 0 then 500 else 200 end, case when g % 4 = 0 then 1 else 3 end, 0, g % 4 <> 0, (1000 + g)::text, case when g % 4 = 0 then 'HTTP 500: oops' end
		  from generate_series(1, 120) g;
		insert into walhook.attempt_overflow (delivery_id, attempt, attempted_at, duration_ms, http_status, succeeded, error)
		select 4, a, now() - interval '1 hour' + a * interval '1 minute', 200 * a, 500, false, 'HTTP 500: oops' from generate_series(1, 3) a;
		insert into walhook.queue (delivery_id, webhook_id, committed_at, event_type, response_id) select 200 + g, 1, now(), 3, '1001' from generate_series(1, 3) g;
		insert into walhook.queue (delivery_id, webhook_id, committed_at, next_attempt_at, last_attempt_at, attempts, http_status, error, event_type, response_id)
		values (210, 2, now(), now() + interval '5 minutes', now() - interval '5 minutes', 2, 503, 'HTTP 503', 1, '1002');
		insert into walhook.incident_log (kind, detail, resolved_at) values ('slot_lost', 'the slot was lost and replaced', now()), ('reader_waits', 'the daemon waits for the slot', null);
		select setval('walhook.delivery_id', 1000)`)
}

// Every page answers, for administrators and for viewers, and shows viewers nothing secret.
func TestPages(t *testing.T) {
	t.Parallel()
	s := filled(t)
	admin, viewer := s.signIn(s.admin), s.signIn(s.viewer)
	for path, texts := range map[string][]string{
		"/webhooks":                           {"<h1>Webhooks</h1>", "HR system", "https://partner.example", "failing", "ALL ASSESSMENTS", "<svg", `<th scope="col">`},
		"/webhooks?q=HR":                      {"HR system"},
		"/webhooks/1":                         {"<h1>Webhook 1</h1>", "https://example.com", "Show Delivery Log"},
		"/webhooks/3":                         {"disabled by"},
		"/deliveries":                         {"<h1>Deliveries</h1>", `href="/deliveries/203"`, `href="/responses/1001"`, "retrying", "Older"},
		"/deliveries?status=failed&webhook=2": {"HTTP 500: oops"},
		"/deliveries?event=response.changed":  {"No delivery matches"},
		"/deliveries/4":                       {"<h1>Delivery 4</h1>", "webhook-id", "EventType", "response.created", "600 ms", "HTTP 500: oops"},
		"/deliveries/201":                     {"pending", "due; no daemon is running"},
		"/responses/1001":                     {"Response 1001", "response.completed", "waits:"},
		"/responses/nobody":                   {"Response nobody"},
		"/incidents":                          {"<h1>Incidents</h1>", "the slot was lost and replaced", "the daemon waits for the slot"},
		"/changes":                            {"<h1>Changes</h1>", "Added webhook 1", "https://example.com", "(changed)"},
		"/changes?object=webhook&id=2":        {"Added webhook 2"},
		"/keys":                               {"<h1>API keys</h1>", "There is no key yet"},
	} {
		admin.get(path).want(t, http.StatusOK, texts...).lacks(t, "hunter2", "whsec_aHV")
		viewer.get(path).want(t, http.StatusOK, texts...).lacks(t, "hunter2", "whsec_aHV", "Add Webhook", ">Save<", ">Test<", "Redeliver all", ">Redeliver<", "Create key")
	}
	for _, path := range []string{"/webhooks/99", "/webhooks/x", "/deliveries/999999", "/deliveries/-", "/keys/9/revoke", "/webhooks/9/delete", "/nothing"} {
		admin.get(path).want(t, http.StatusNotFound)
	}
	for _, path := range []string{"/webhooks", "/deliveries", "/incidents", "/changes", "/keys", "/webhooks/1", "/deliveries/4", "/responses/1", "/deliveries/csv"} {
		if a := s.browser().get(path); a.status != http.StatusSeeOther || !strings.HasPrefix(a.location, "/login") {
			t.Errorf("%s without signing in: %d %s", path, a.status, a.location)
		}
	}
}

// The life of a webhook: added, shown, changed, tested, disabled, enabled, copied, deleted.
func TestLifeOfAWebhook(t *testing.T) {
	t.Parallel()
	s := filled(t)
	b := s.signIn(s.admin)
	b.get("/webhooks").want(t, http.StatusOK, "Add Webhook")
	b.get("/webhooks/new").want(t, http.StatusOK, `<label for="assessment_id">Assessment</label>`, `<option value="">ALL ASSESSMENTS</option>`, `<option value="17">Fire safety (17)</option>`,
		`<label for="url">Webhook URL</label>`, `<label for="event_type">Event Type</label>`, `<label for="organization_id">Organizations</label>`, ">Save</button>")
	form := url.Values{
		"assessment_id": {"17"}, "url": {"http://127.0.0.1:9/secret-path"}, "event_type": {"response.completed"}, "organization_id": {"7"},
		"description": {"mine"}, "ordered": {"on"}, "new_secret": {"on"}, "headers": {"X-Team: blue\nX-Other: 1"},
	}
	added := b.post("/webhooks", form)
	if added.status != http.StatusSeeOther || added.location != "/webhooks/4" {
		t.Fatalf("adding a webhook: %d %s %s", added.status, added.location, added.body)
	}
	b.get("/webhooks/4").want(t, http.StatusOK, "Webhook added.", "http://127.0.0.1:9", "2 set", "Requests are signed").lacks(t, "secret-path", "blue")
	b.post("/webhooks/4/reveal", nil).want(t, http.StatusOK, "http://127.0.0.1:9/secret-path", "X-Team: blue", "whsec_")

	// What is hidden and left empty stays.
	secret := "select secret || url || headers::text from walhook.webhook where id = 4"
	before := testenv.Psql(t, s.store, secret)
	b.post("/webhooks/4", url.Values{"assessment_id": {""}, "url": {""}, "event_type": {"response.started"}, "description": {"ours"}}).want(t, http.StatusSeeOther)
	if after := testenv.Psql(t, s.store, secret); after != before {
		t.Errorf("saved without being shown: %s, before %s", after, before)
	}
	if got, want := testenv.Psql(t, s.store, "select assessment_id, event_type, description, ordered, organization_id from walhook.webhook where id = 4"), "|response.started|ours|f|"; got != want {
		t.Errorf("saved: %s, want %s", got, want)
	}
	// What is shown and emptied goes.
	b.post("/webhooks/4", url.Values{"revealed": {"1"}, "assessment_id": {"17"}, "url": {"https://example.org/x"}, "event_type": {"response.started"}}).want(t, http.StatusSeeOther)
	if got, want := testenv.Psql(t, s.store, "select url, secret, headers from walhook.webhook where id = 4"), "https://example.org/x||"; got != want {
		t.Errorf("saved: %s, want %s", got, want)
	}

	tested := b.post("/webhooks/4/test", nil)
	if tested.status != http.StatusSeeOther || !strings.HasPrefix(tested.location, "/webhooks/4?test=") || strings.Contains(tested.location, "#") {
		t.Fatalf("test: %d %s", tested.status, tested.location)
	}
	path := tested.location
	b.get(path).want(t, http.StatusOK, "Sending the test", `http-equiv="refresh"`, "data-live", "response id 1001", "not sent yet: due; no daemon is running")
	id := strings.TrimPrefix(path, "/webhooks/4?test=")
	testenv.Exec(t, s.store, `with q as (delete from walhook.queue where delivery_id = `+id+` returning *)
		insert into walhook.log_overflow (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, http_status, event_type, kind, succeeded, response_id)
		select delivery_id, webhook_id, 0, committed_at, now(), 1, 204, event_type, kind, true, response_id from q`)
	b.get(path).want(t, http.StatusOK, "The test succeeded: HTTP 204").lacks(t, "refresh", "data-live")

	b.post("/webhooks/4/rotate", nil).want(t, http.StatusOK, "The new secret", "whsec_")
	b.get("/webhooks/4/rotate").want(t, http.StatusOK, "24 hours")
	b.post("/webhooks/4/disable", nil).want(t, http.StatusSeeOther)
	b.get("/webhooks/4").want(t, http.StatusOK, "Webhook 4 is disabled.", ">Enable</button>")
	b.post("/webhooks/4/enable", nil).want(t, http.StatusSeeOther)
	b.post("/webhooks/4/copy", url.Values{"to": {"18"}}).want(t, http.StatusSeeOther)
	b.get("/webhooks/4").want(t, http.StatusOK, "Copied to assessment 18: 2 webhooks.")

	b.get("/webhooks/1/delete").want(t, http.StatusOK, "3 pending deliveries end as failed.", ">Delete webhook</button>")
	b.get("/webhooks/1/disable").want(t, http.StatusOK, "3 pending deliveries wait until it is enabled again.")
	b.get("/webhooks/2/delete").want(t, http.StatusOK, "1 pending delivery ends as failed.")
	if deleted := b.post("/webhooks/1/delete", nil); deleted.status != http.StatusSeeOther || deleted.location != "/webhooks" {
		t.Errorf("deleting: %d %s", deleted.status, deleted.location)
	}
	b.get("/webhooks").want(t, http.StatusOK, "Webhook 1 is deleted.", "ended as failed: 3")
	b.get("/changes").want(t, http.StatusOK, "Deleted webhook 1", s.admin)
	b.get("/deliveries/201").want(t, http.StatusOK, "deleted")
}

// A form that is refused keeps what was typed, with the sentence beside the field.
func TestRefusedForms(t *testing.T) {
	t.Parallel()
	s := filled(t)
	b := s.signIn(s.admin)
	for _, path := range []string{"/webhooks", "/webhooks/1"} {
		for field, c := range map[string][2]string{
			"url":        {"ftp://example.com", "Webhook.url must be an absolute http or https URL."},
			"event_type": {"response.lost", "is not known"},
			"secret":     {"whsec_short", "A signing secret must be whsec_"},
			"headers":    {"Host: example.org", "must not set host, which is reserved"},
		} {
			form := url.Values{"url": {"https://example.com/typed"}, "event_type": {"response.changed"}, "description": {"typed description"}, "organization_id": {"typed organization"}}
			form.Set(field, c[0])
			page := b.post(path, form).want(t, http.StatusUnprocessableEntity, c[1], "typed description", "typed organization", `id="`+field+`-refusal"`, `aria-invalid="true"`)
			if field != "url" {
				page.want(t, http.StatusUnprocessableEntity, "https://example.com/typed")
			}
			if field != "event_type" {
				page.want(t, http.StatusUnprocessableEntity, c[0], `<option value="response.changed" selected>`)
			}
		}
		b.post(path, url.Values{"url": {"https://example.com"}, "event_type": {"response.created"}, "headers": {"no colon"}}).want(t, http.StatusUnprocessableEntity, "as Name: value")
	}
	if got := testenv.Psql(t, s.store, "select count(*) from walhook.webhook"); got != "3" {
		t.Errorf("%s webhooks after refused forms", got)
	}
	b.post("/keys", url.Values{"name": {" "}, "scope": {"read"}}).want(t, http.StatusUnprocessableEntity, `id="name-refusal"`)
	b.post("/keys", url.Values{"name": {"typed name"}, "scope": {"read"}, "expires_at": {"soon"}}).want(t, http.StatusUnprocessableEntity, `id="expires_at-refusal"`, "typed name", `value="soon"`)
	for _, filter := range []string{"since=yesterday", "webhook=x", "http_status=many", "http_status=99999999999", "status=lost"} {
		b.get("/deliveries?"+filter).want(t, http.StatusUnprocessableEntity, `class="refusal"`)
	}
	b.post("/webhooks/1/test", url.Values{"response_id": {"\x00"}}).want(t, http.StatusUnprocessableEntity)
	// Nobody has answered assessment 18 yet.
	b.post("/webhooks/3/test", nil).want(t, http.StatusUnprocessableEntity, "No respondent matches webhook 3 yet.", `<label for="response_id">Response id</label>`)
	b.post("/webhooks/3/test", url.Values{"response_id": {"12345"}}).want(t, http.StatusSeeOther)
	b.post("/webhooks/99/test", nil).want(t, http.StatusNotFound)
}

// PostgreSQL refuses what a viewer's browser sends by hand.
func TestViewersRequestsByHand(t *testing.T) {
	t.Parallel()
	s := filled(t)
	b := s.signIn(s.viewer)
	for path, form := range map[string]url.Values{
		"/webhooks": {"url": {"https://example.com"}, "event_type": {"response.created"}}, "/webhooks/1": {"event_type": {"response.created"}}, "/webhooks/1/reveal": nil,
		"/webhooks/1/test": nil, "/webhooks/1/enable": nil, "/webhooks/1/disable": nil, "/webhooks/1/rotate": nil, "/webhooks/1/copy": {"to": {"18"}}, "/webhooks/1/delete": nil,
		"/deliveries/4/redeliver": nil, "/deliveries/4/reveal": nil, "/deliveries/redeliver": nil, "/keys": {"name": {"mine"}, "scope": {"admin"}}, "/keys/1/revoke": nil,
	} {
		b.post(path, form).want(t, http.StatusForbidden, "Your role may not do this").lacks(t, "hunter2", "whsec_")
	}
	b.get("/webhooks?urls=1").want(t, http.StatusForbidden).lacks(t, "hunter2")
	b.get("/deliveries/redeliver").want(t, http.StatusForbidden)
	got := testenv.Psql(t, s.store, "select count(*), count(*) filter (where enabled), (select count(*) from walhook.queue), (select count(*) from walhook.api_key) from walhook.webhook")
	if got != "3|2|4|0" {
		t.Errorf("after a viewer's requests: %s", got)
	}
}

// The request of a delivery names the webhook's own headers. Administrators see URL and values when they ask, and viewers see nothing of them.
func TestRequestOfADelivery(t *testing.T) {
	t.Parallel()
	s := filled(t)
	admin := s.signIn(s.admin)
	admin.get("/deliveries/5").want(t, http.StatusOK, "X-Api-Key", "https://example.com/…").lacks(t, "hunter2")
	admin.post("/deliveries/5/reveal", nil).want(t, http.StatusOK, "X-Api-Key", "<code>hunter2</code>", "https://hunter2:pw@example.com/hook/hunter2")
	s.signIn(s.viewer).get("/deliveries/5").want(t, http.StatusOK, "https://example.com/…").lacks(t, "hunter2", "X-Api-Key", "Show URL")
	testenv.Exec(t, s.store, "delete from walhook.webhook where id = 1")
	admin.post("/deliveries/5/reveal", nil).want(t, http.StatusOK, "the webhook was deleted").lacks(t, "X-Api-Key")
}

// Pages of the log follow one another by key, and the CSV file has them all.
func TestDeliveryLog(t *testing.T) {
	t.Parallel()
	s := filled(t)
	b := s.signIn(s.admin)
	ids := regexp.MustCompile(`<th scope="row"><a href="/deliveries/(\d+)"`)
	older := regexp.MustCompile(`href="([^"]*)" rel="next"`)
	seen := map[string]bool{}
	pages := 0
	for path := "/deliveries"; path != ""; pages++ {
		page := b.get(path).want(t, http.StatusOK)
		for _, match := range ids.FindAllStringSubmatch(page.body, -1) {
			if seen[match[1]] {
				t.Errorf("delivery %s is on two pages", match[1])
			}
			seen[match[1]] = true
		}
		path = ""
		if match := older.FindStringSubmatch(page.body); match != nil {
			path = html.UnescapeString(match[1])
		}
	}
	if len(seen) != 124 || pages != 3 {
		t.Errorf("%d deliveries on %d pages", len(seen), pages)
	}
	file := b.get("/deliveries/csv").want(t, http.StatusOK)
	if lines := strings.Count(file.body, "\n"); lines != 125 || !strings.HasPrefix(file.body, "delivery_id,webhook_id,") {
		t.Errorf("the CSV file has %d lines: %.300s", lines, file.body)
	}
	if got := strings.Count(b.get("/deliveries/csv?status=failed").body, "\n"); got != 31 {
		t.Errorf("the filtered CSV file has %d lines", got)
	}
	b.get("/deliveries/redeliver?webhook=2").want(t, http.StatusOK, "30 failed deliveries are sent again", `name="webhook" value="2"`)
	b.post("/deliveries/redeliver", url.Values{"webhook": {"2"}, "since": {"2000-01-01T00:00"}}).want(t, http.StatusSeeOther)
	b.get("/deliveries?webhook=2").want(t, http.StatusOK, "30 deliveries are queued again.")
	b.get("/deliveries/redeliver").want(t, http.StatusOK, "Nothing that matches the filters has failed").lacks(t, `class="primary"`)
	again := b.post("/deliveries/8/redeliver", nil)
	b.get(again.location).want(t, http.StatusOK, "Delivery 8 is queued again as this one.", "Redelivery of")
}

// The log's times are the site's, with UTC beside them, and so are those that filter.
func TestTimesOfTheLog(t *testing.T) {
	t.Parallel()
	s := filled(t)
	testenv.Exec(t, s.store, `update walhook.settings set time_zone = 'Asia/Tokyo'`)
	testenv.Exec(t, s.store, `insert into walhook.log_overflow (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, http_status, event_type, kind, succeeded, response_id)
		values (500, 1, 0, '2020-01-01 20:30 UTC', '2020-01-01 20:30 UTC', 1, 200, 3, 0, true, 'then')`)
	b := s.signIn(s.viewer)
	b.get("/deliveries?since=2020-01-02T05:30&until=2020-01-02T05:31").want(t, http.StatusOK, "/deliveries/500", "2020-01-02 05:30:00", "20:30:00 UTC")
	b.get("/deliveries?since=2020-01-02T05:31&until=2020-01-02T05:32").want(t, http.StatusOK, "No delivery matches")
}

// No field, wherever it comes from, becomes HTML, a formula of a spreadsheet or another path.
func TestInjection(t *testing.T) {
	t.Parallel()
	s := filled(t)
	b := s.signIn(s.admin)
	testenv.Exec(t, s.store, "update walhook.webhook set description = $1, headers = jsonb_build_object('X-A', $1::text), assessment_id = $1, organization_id = $1 where id = 1", injected)
	testenv.Exec(t, s.store, "insert into walhook.assessment (assessment_id, external_id) values ($1, $1)", injected)
	testenv.Exec(t, s.store, `update walhook.endpoint set last_error = $1`, injected)
	testenv.Exec(t, s.store, `insert into walhook.log_overflow (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, http_status, event_type, kind, succeeded, response_id, error)
		values (500, 1, 0, now(), now(), 2, 500, 3, 0, false, $1, $1)`, injected)
	testenv.Exec(t, s.store, `insert into walhook.attempt_overflow (delivery_id, attempt, attempted_at, duration_ms, http_status, succeeded, error) values (500, 1, now(), 1, 500, false, $1)`, injected)
	testenv.Exec(t, s.store, "insert into walhook.incident_log (kind, detail) values ('slot_lost', $1)", injected)
	testenv.Exec(t, s.store, "select walhook.create_api_key($1, $1, 'read')", injected)
	escaped := url.QueryEscape(injected)
	for _, path := range []string{
		"/webhooks", "/webhooks?q=" + escaped, "/webhooks?state=" + escaped, "/webhooks?sort=" + escaped, "/webhooks?after=" + escaped, "/webhooks?urls=1", "/webhooks/1", "/webhooks/new?assessment=" + escaped,
		"/deliveries", "/deliveries?response=" + escaped, "/deliveries?event=" + escaped, "/deliveries?before=" + escaped, "/deliveries/500", "/responses/" + url.PathEscape(injected),
		"/incidents", "/changes", "/changes?object=" + escaped, "/changes?id=" + escaped, "/keys", "/keys/1/revoke", "/webhooks/1?test=500", "/webhooks/1/delete",
	} {
		b.get(path).want(t, http.StatusOK).lacks(t, "<script>alert", "'&<b>", injected)
	}
	for _, path := range []string{"/deliveries?status=" + escaped, "/deliveries?since=" + escaped, "/deliveries?webhook=" + escaped, "/deliveries/" + url.PathEscape(injected), "/webhooks/" + url.PathEscape(injected)} {
		if a := b.get(path).lacks(t, "<script>alert", injected); a.status >= 500 || a.status < 400 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	refused := url.Values{"url": {injected}, "event_type": {injected}, "description": {injected}, "organization_id": {injected}, "assessment_id": {injected}, "secret": {injected}, "headers": {injected}}
	for _, path := range []string{"/webhooks", "/webhooks/1", "/keys"} {
		b.post(path, refused).want(t, http.StatusUnprocessableEntity).lacks(t, "<script>alert", injected)
	}

	// Response ids that are paths, dots, or formulas.
	for i, id := range []string{"a/b", "..", ".", "../../login", "%2e%2e", "a?b#c", "=1+1", "+1", "@sum", "-2+3", "\tx", "é 😀", `a"b`, "-5"} {
		testenv.Exec(t, s.store, `insert into walhook.log_overflow (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, http_status, event_type, kind, succeeded, response_id)
			values ($1, 1, 0, now(), now(), 1, 200, 3, 0, true, $2)`, 600+i, id)
		page := b.get("/deliveries?response="+url.QueryEscape(id)).want(t, http.StatusOK, fmt.Sprintf("/deliveries/%d", 600+i))
		link := regexp.MustCompile(`href="(/responses[^"]*)"`).FindStringSubmatch(page.body)
		if link == nil {
			t.Fatalf("no link for %q:\n%s", id, page.body)
		}
		b.get(html.UnescapeString(link[1])).want(t, http.StatusOK, fmt.Sprintf("/deliveries/%d", 600+i))
		line := b.get("/deliveries/csv?response="+url.QueryEscape(id)).want(t, http.StatusOK).body
		if formula := strings.ContainsAny(id[:1], "=+-@\t") && id != "-5" && id != "+1"; formula != strings.Contains(line, ",'"+id) && formula != strings.Contains(line, `'`+id) {
			t.Errorf("CSV of %q: %s", id, line)
		}
	}
	for _, path := range []string{"/responses?id=", "/responses?id=..", "/responses/%00", "/responses/%2f%2e%2e"} {
		if a := b.get(path); a.status >= 500 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
}

// A key is shown once, and can be revoked.
func TestKeysPage(t *testing.T) {
	t.Parallel()
	s := filled(t)
	b := s.signIn(s.admin)
	created := b.post("/keys", url.Values{"name": {"Zapier"}, "scope": {"webhooks"}, "organization_id": {"7"}, "expires_at": {"2099-12-31T00:00"}}).want(t, http.StatusOK, "shown this once")
	key := regexp.MustCompile(`whk_[0-9a-f]{64}`).FindString(created.body)
	if key == "" {
		t.Fatalf("no key: %s", created.body)
	}
	b.get("/keys").want(t, http.StatusOK, "Zapier", key[:12], "organization 7", "active", "2099-12-31").lacks(t, key)
	b.get("/keys/1/revoke").want(t, http.StatusOK, "Revoke Zapier?", ">Revoke key</button>")
	b.post("/keys/1/revoke", nil).want(t, http.StatusSeeOther)
	b.get("/keys").want(t, http.StatusOK, "The key is revoked.", "revoked")
	b.get("/changes?object=api_key").want(t, http.StatusOK, "Added API key 1", "Changed API key 1")
}
