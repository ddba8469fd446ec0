package api

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"

	"walhook/testenv"
)

// The document is valid OpenAPI 3.1, names the address of this console, and describes the requests that webhooks get.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if ok, faults := s.validator.ValidateDocument(); !ok {
		for _, fault := range faults {
			t.Errorf("%s %s %v", fault.Message, fault.Reason, fault.SchemaValidationErrors)
		}
	}
	got := s.want(200, "", "GET", "/openapi.json", "")
	document, err := libopenapi.NewDocument([]byte(got.body))
	if err != nil {
		t.Fatal(err)
	}
	model, err := document.BuildV3Model()
	if err != nil {
		t.Fatal(err)
	}
	if v := document.GetVersion(); !strings.HasPrefix(v, "3.1") {
		t.Errorf("it is of version %s", v)
	}
	if address := model.Model.Servers[0].URL; address != s.url {
		t.Errorf("it is at %s, not %s", address, s.url)
	}
	var events []string
	for pair := model.Model.Webhooks.First(); pair != nil; pair = pair.Next() {
		events = append(events, pair.Key())
	}
	if want := strings.Split(testenv.Psql(t, s.store, "select unnest(walhook.event_names())"), "\n"); !slices.Equal(events, want) {
		t.Errorf("its webhooks are %v, not %v", events, want)
	}
	if formatted, err := os.ReadFile("openapi.json"); err != nil || !json.Valid(formatted) {
		t.Error("openapi.json is not JSON")
	}
}

func TestKeyIsNeeded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key := s.key("'Zapier', '42'")
	for name, headers := range map[string][]string{
		"none":           nil,
		"another scheme": {"Authorization", "Basic " + key},
		"nothing":        {"Authorization", "Bearer "},
		"a short one":    {"Authorization", "Bearer " + key[:40]},
		"not known":      {"Authorization", "Bearer whk_" + strings.Repeat("0", 64)},
		"another end":    {"Authorization", "Bearer " + key[:67] + string(rune('a'+(key[67]-'a'+1)%6))},
		"SQL":            {"X-API-Key", "whk_' or true --"},
		"with more":      {"X-API-Key", key + "x"},
		"in capitals":    {"X-API-Key", strings.ToUpper(key)},
	} {
		got := s.refused(401, "Send an API key", "", "GET", "/me", "", headers...)
		if got.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no WWW-Authenticate", name)
		}
		if strings.Contains(got.body, key[12:40]) {
			t.Errorf("%s: the answer repeats the key", name)
		}
	}
	const want = `{"name":"Zapier","organization_id":"42","scope":"webhooks"}` + "\n"
	if got := s.want(200, key, "GET", "/me", ""); got.body != want || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("me is %s", got.body)
	}
	if got := s.want(200, "", "GET", "/me", "", "X-API-Key", key); got.body != want {
		t.Errorf("me is %s", got.body)
	}
	s.want(200, "", "GET", "/me", "", "Authorization", "bearer  "+key)
	s.want(200, "", "GET", "/me", "", "X-API-Key", key, "Authorization", "Basic cHJveHk6cHJveHk=")
	s.want(200, key, "HEAD", "/me", "")
	if got := s.want(200, s.key("'all', scope => 'read'"), "GET", "/me", ""); got.body != `{"name":"all","organization_id":null,"scope":"read"}`+"\n" {
		t.Errorf("me is %s", got.body)
	}
	testenv.Psql(t, s.store, "select walhook.revoke_api_key(1)")
	s.refused(401, "revoked or expired", key, "GET", "/me", "")
	s.refused(401, "Send an API key", s.key("'old', expires_at => now() + interval '1 microsecond'"), "GET", "/me", "")
}

// A webhook is created once, however often a client asks, and shows its secret once.
func TestWebhookLife(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key, other := s.key("'Zapier', '42'"), s.key("'Make'")
	const subscribe = `{"target_url": "https://hooks.example.com/1?k=<&>", "event": "response.completed", "assessment_id": 17, "organization_id": "43",
		"description": "Zap \"1\"", "headers": {"X-Key": "hunter2"}, "ordered": false}`
	made := s.want(201, key, "POST", "/webhooks", subscribe)
	webhook := made.object(t)
	secret, _ := webhook["secret"].(string)
	if location := made.header.Get("Location"); location != s.url+"/webhooks/1" || !strings.HasPrefix(secret, "whsec_") {
		t.Errorf("created at %s: %s", location, made.body)
	}
	delete(webhook, "secret")
	if webhook["organization_id"] != "42" || webhook["assessment_id"] != "17" || webhook["url"] != "https://hooks.example.com/1?k=<&>" ||
		webhook["description"] != `Zap "1"` || webhook["ordered"] != false || webhook["has_headers"] != true || webhook["signed"] != true {
		t.Errorf("created %s", made.body)
	}
	again := s.want(200, key, "POST", "/webhooks", strings.NewReplacer("target_url", "hookUrl", `"event"`, `"event_type"`, `17`, `"17"`).Replace(subscribe))
	read := s.want(200, key, "GET", "/webhooks/1", "")
	if again.body != read.body || again.header.Get("Location") != made.header.Get("Location") || strings.Contains(again.body+read.body, "whsec_") ||
		strings.Contains(made.body+read.body, "hunter2") {
		t.Errorf("created again: %s\nread: %s", again.body, read.body)
	}
	s.want(201, key, "POST", "/webhooks", `{"targetUrl": "https://hooks.example.com/1?k=<&>", "event": "response.completed"}`)
	s.want(201, other, "POST", "/webhooks", `{"url": "https://hooks.example.com/1?k=<&>", "event_type": "response.completed", "assessment_id": "17", "organization_id": 42}`)

	// Every key has its own.
	var wait sync.WaitGroup
	ids := make(chan any, 8)
	for range cap(ids) {
		wait.Go(func() {
			got := s.send(key, "POST", "/webhooks", `{"url": "https://hooks.example.com/2", "event": "response.started"}`)
			ids <- got.object(t)["id"]
		})
	}
	wait.Wait()
	first := <-ids
	for range cap(ids) - 1 {
		if id := <-ids; id != first || id == nil {
			t.Errorf("at the same time webhooks %v and %v were created", first, id)
		}
	}

	etag := read.header.Get("ETag")
	changed := s.want(200, key, "PATCH", "/webhooks/1", `{"ordered": true, "assessment_id": null, "organization_id": "43"}`, "If-Match", `"x", `+etag)
	if o := changed.object(t); o["ordered"] != true || o["assessment_id"] != nil || o["organization_id"] != "42" || o["description"] != `Zap "1"` || o["has_headers"] != true {
		t.Errorf("changed to %s", changed.body)
	}
	s.refused(412, "GET it again", key, "PATCH", "/webhooks/1", `{"enabled": false}`, "If-Match", etag)
	s.want(200, key, "PATCH", "/webhooks/1", `{"enabled": false, "headers": null}`, "If-Match", changed.header.Get("ETag"))
	s.want(200, key, "PATCH", "/webhooks/1", `{}`, "If-Match", "*")
	got := s.want(200, key, "GET", "/webhooks/1", "")
	if o := got.object(t); o["enabled"] != false || o["has_headers"] != false || !strings.Contains(fmt.Sprint(o["disabled_reason"]), "API key Zapier") {
		t.Errorf("disabled as %s", got.body)
	}
	if value := testenv.Psql(t, s.store, "select secret = '"+secret+"', api_key_id from walhook.webhook where id = 1"); value != "t|1" {
		t.Errorf("the webhook is %s", value)
	}
	s.refused(412, "GET it again", key, "DELETE", "/webhooks/1", "", "If-Match", etag)
	s.want(204, key, "DELETE", "/webhooks/1", "", "If-Match", got.header.Get("ETag"))
	s.want(204, key, "DELETE", "/webhooks/1", "", "If-Match", got.header.Get("ETag"))
	s.want(204, key, "DELETE", "/webhooks/1", "")
	s.refused(404, "no such webhook", key, "GET", "/webhooks/1", "")
	s.refused(404, "no such webhook", key, "PATCH", "/webhooks/1", `{"ordered": true}`)
	s.refused(404, "there is no webhook 1", key, "POST", "/webhooks/1/test", "")
}

// What belongs to another organization is not there.
func TestOtherOrganizations(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ours, theirs, reader, all := s.key("'ours', '42'"), s.key("'theirs', '43'"), s.key("'reader', scope => 'read'"), s.key("'all'")
	s.want(201, theirs, "POST", "/webhooks", `{"url": "https://user:hunter2@example.com/a", "event_type": "response.created"}`)
	s.want(201, all, "POST", "/webhooks", `{"url": "https://example.com/b", "event_type": "response.created"}`)
	queued := s.want(202, theirs, "POST", "/webhooks/1/test", "").object(t)["delivery_id"]
	delivery := fmt.Sprintf("/deliveries/%.0f", queued)
	for _, id := range []string{"1", "2"} {
		for _, c := range [][2]string{{"GET", ""}, {"PATCH", `{"ordered": true}`}, {"DELETE", ""}} {
			s.refused(404, "webhook", ours, c[0], "/webhooks/"+id, c[1])
		}
		s.refused(404, "webhook", ours, "PATCH", "/webhooks/"+id, `{"ordered": true}`, "If-Match", "*")
		s.refused(404, "webhook", ours, "POST", "/webhooks/"+id+"/test", `{"response_id": 2}`)
		s.refused(404, "webhook", ours, "POST", "/webhooks/"+id+"/redeliver-failed", "")
		if got := s.want(200, ours, "GET", "/deliveries?webhook_id="+id, ""); len(got.items(t)) != 0 {
			t.Errorf("deliveries of another organization: %s", got.body)
		}
	}
	s.refused(404, "delivery", ours, "GET", delivery, "")
	s.refused(404, "delivery", ours, "POST", delivery+"/redeliver", "")
	for _, path := range []string{"/webhooks", "/deliveries", "/deliveries?response_id=3", "/deliveries?status=pending", "/webhooks?url=https://example.com/b"} {
		if got := s.want(200, ours, "GET", path, ""); len(got.items(t)) != 0 {
			t.Errorf("%s of another organization: %s", path, got.body)
		}
		if got := s.want(200, all, "GET", path, ""); len(got.items(t)) == 0 {
			t.Errorf("%s is empty", path)
		}
	}
	if got := s.want(200, theirs, "GET", "/samples", ""); strings.Count(got.body, "EventType") != 1 || !strings.Contains(got.body, `"ResponseId":3`) {
		t.Errorf("samples of organization 43: %s", got.body)
	}
	// The answer is that for what never was.
	for _, path := range []string{"/webhooks/%s/test", "/webhooks/%s/redeliver-failed", "/deliveries/%s/redeliver"} {
		id := map[bool]string{true: fmt.Sprintf("%.0f", queued), false: "1"}[strings.HasPrefix(path, "/deliveries")]
		exists := s.want(404, ours, "POST", fmt.Sprintf(path, id), "").detail(t)
		never := s.want(404, ours, "POST", fmt.Sprintf(path, "987"), "").detail(t)
		if exists != strings.Replace(never, "987", id, 1) {
			t.Errorf("%s tells what exists from what does not: %q and %q", path, exists, never)
		}
	}
	// A deleted webhook of theirs is not gone for us: it never was.
	s.want(204, theirs, "DELETE", "/webhooks/1", "")
	s.refused(404, "there is no webhook 1", ours, "DELETE", "/webhooks/1", "")
	s.refused(404, "there is no webhook 99", all, "DELETE", "/webhooks/99", "")
	s.want(204, all, "DELETE", "/webhooks/1", "")

	// A key that reads sees no URL, and writes nothing.
	s.want(201, all, "POST", "/webhooks", `{"url": "https://user:hunter2@example.com/hunter2", "event_type": "response.created"}`)
	if got := s.want(200, reader, "GET", "/webhooks", ""); strings.Contains(got.body, "hunter2") || !strings.Contains(got.body, `"https://example.com"`) {
		t.Errorf("a key that reads sees %s", got.body)
	}
	for _, c := range [][3]string{
		{"POST", "/webhooks", `{"url": "https://example.com/", "event": "response.created"}`},
		{"PATCH", "/webhooks/3", `{"ordered": false}`},
		{"DELETE", "/webhooks/3", ""},
		{"POST", "/webhooks/3/test", ""},
		{"POST", "/webhooks/3/redeliver-failed", ""},
	} {
		s.refused(403, "It needs scope webhooks", reader, c[0], c[1], c[2])
	}
}

// What cannot be read is refused before the store is asked, and what the store refuses comes with its sentence.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key := s.key("'Zapier'")
	s.want(201, key, "POST", "/webhooks", `{"url": "https://example.com/hunter2", "event": "response.created"}`)
	const url = `"url": "https://example.com/"`
	for _, c := range []struct {
		status             int
		detail, path, body string
	}{
		{400, "not a JSON object", "/webhooks", `{"url": `},
		{400, "not a JSON object", "/webhooks", `{} {}`},
		{400, "not a JSON object", "/webhooks", `[]`},
		{400, "not a JSON object", "/webhooks", `null`},
		{400, "not a JSON object", "/webhooks", strings.Repeat("[", 20000)},
		{400, "not UTF-8", "/webhooks", "{\"url\": \"https://example.com/\xff\"}"},
		{400, `"assesment_id" is not known`, "/webhooks", `{` + url + `, "event": "response.created", "assesment_id": "1"}`},
		{400, `"URL" is not known`, "/webhooks", `{"URL": "https://example.com/", "event": "response.created"}`},
		{400, `"secret" is not known`, "/webhooks", `{` + url + `, "event": "response.created", "secret": "x"}`},
		{400, `"url" must be a string`, "/webhooks", `{"url": ["https://example.com/"], "event": "response.created"}`},
		{400, `"assessment_id" must be a string or an integer`, "/webhooks", `{` + url + `, "event": "response.created", "assessment_id": 1.5}`},
		{400, `"assessment_id" must be a string or an integer`, "/webhooks", `{` + url + `, "event": "response.created", "assessment_id": {}}`},
		{400, `"ordered" must be true or false`, "/webhooks", `{` + url + `, "event": "response.created", "ordered": "yes"}`},
		{400, `twice`, "/webhooks", `{` + url + `, "target_url": "https://example.com/2", "event": "response.created"}`},
		{422, "a webhook needs a url and an event_type", "/webhooks", ``},
		{422, "a webhook needs a url and an event_type", "/webhooks", `{"event": "response.created"}`},
		{422, "webhook.url must be an absolute http or https URL. For example https://", "/webhooks", `{"url": "ftp://hunter2", "event": "response.created"}`},
		{422, `event type "response.deleted" is not known. Use response.created,`, "/webhooks", `{` + url + `, "event": "response.deleted"}`},
		{422, "must not be empty", "/webhooks", `{` + url + `, "event": "response.created", "assessment_id": ""}`},
		{422, "either true or false", "/webhooks", `{` + url + `, "event": "response.created", "ordered": null}`},
		{422, "webhook.headers must not set host", "/webhooks", `{` + url + `, "event": "response.created", "headers": {"Host": "hunter2"}}`},
		{422, "webhook.headers must be a JSON object", "/webhooks", `{` + url + `, "event": "response.created", "headers": ["hunter2"]}`},
		{422, "webhook.headers must have a text as each value", "/webhooks", `{` + url + `, "event": "response.created", "headers": {"a": ` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}}`},
		{422, "a character that the store cannot keep", "/webhooks", `{` + url + `, "event": "response.created", "description": "\u0000"}`},
		{422, "a character that the store cannot keep", "/webhooks", `{` + url + `, "event": "response.created", "headers": {"a": "\u0000"}}`},
		{422, "is not an integer", "/webhooks/1/test", `{"response_id": "x"}`},
		{422, "cannot be a key", "/webhooks/1/test", `{"response_id": 123456789012345678901234567890}`},
		{400, "must be a time with its zone", "/webhooks/1/redeliver-failed", `{"since": "yesterday"}`},
		{400, "must be a string", "/webhooks/1/redeliver-failed", `{"since": 5}`},
		{404, "there is no webhook 99", "/webhooks/99/redeliver-failed", `{}`},
		{404, "no such webhook", "/webhooks/0x1/test", ``},
		{404, "no such webhook", "/webhooks/01/test", ``},
		{404, "no such webhook", "/webhooks/99999999999999999999/test", ``},
		{404, "there is no delivery 99", "/deliveries/99/redeliver", ``},
		{400, "is not known", "/deliveries/99/redeliver", `{"at": 1}`},
	} {
		if got := s.refused(c.status, c.detail, key, "POST", c.path, c.body); strings.Contains(got.body, "hunter2") {
			t.Errorf("%s: the answer repeats a secret: %s", c.body, got.body)
		}
	}
	for path, detail := range map[string]string{
		"/webhooks?limit=0":                            "limit must be a number",
		"/webhooks?limit=1001":                         "limit must be a number",
		"/webhooks?limit=1;drop":                       "cannot be read",
		"/webhooks?offset=1":                           `"offset" is not known`,
		"/webhooks?url=a&url=b":                        "twice",
		"/webhooks?url=%00":                            "characters that no value has",
		"/webhooks?url=%ff":                            "characters that no value has",
		"/webhooks?url=%zz":                            "cannot be read",
		"/webhooks?cursor=x":                           "not one that this list has returned",
		"/webhooks?cursor=" + writeCursor("' or true"): "not one that this list has returned",
		"/deliveries?cursor=" + writeCursor(1):         "not one that this list has returned",
		"/deliveries?cursor=" + writeCursor(1) + "==":  "not one that this list has returned",
		"/deliveries?status=done":                      "status must be",
		"/deliveries?webhook_id=1 or true":             "webhook_id must be",
		"/deliveries?since=2026-03-18":                 "since must be a time with its zone",
		"/deliveries?until=0000-01-01T00:00:00Z":       "until must be a time with its zone",
		"/deliveries?since=9999-12-31T23:59:59-12:00":  "since must be a time with its zone",
		"/samples?limit=many":                          "limit must be a number",
		"/me?key=1":                                    `"key" is not known`,
	} {
		s.refused(400, detail, key, "GET", strings.ReplaceAll(path, " ", "%20"), "")
	}
	for _, path := range []string{"/samples", "/webhooks", "/deliveries"} {
		s.refused(422, `event type "x'--" is not known`, key, "GET", path+"?event_type=x'--", "")
	}
	s.refused(413, "more than 65536 bytes", key, "POST", "/webhooks", `{`+url+`, "event": "response.created", "description": "`+strings.Repeat("x", 70000)+`"}`)
	s.refused(415, "Content-Type: application/json", key, "POST", "/webhooks", `{}`, "Content-Type", "text/plain")
	s.refused(415, "Content-Type: application/json", key, "POST", "/webhooks", `url=x`, "Content-Type", "application/x-www-form-urlencoded")
	s.refused(415, "Content-Type: application/json", key, "PATCH", "/webhooks/1", `{}`, "Content-Type", "")
	s.want(200, key, "PATCH", "/webhooks/1", `{}`, "Content-Type", "application/json; charset=utf-8")
	s.refused(422, "either true or false", key, "PATCH", "/webhooks/1", `{"enabled": null}`)
	s.refused(422, "needs a url", key, "PATCH", "/webhooks/1", `{"url": null}`)
	s.refused(400, `"id" is not known`, key, "PATCH", "/webhooks/1", `{"id": 7}`)
	if got := s.refused(405, "only GET, HEAD, POST", key, "PUT", "/webhooks", `{}`); got.header.Get("Allow") != "GET, HEAD, POST, OPTIONS" {
		t.Errorf("Allow is %q", got.header.Get("Allow"))
	}
	s.refused(405, "only GET", "", "POST", "/openapi.json", "")
	s.refused(404, "no such path", key, "GET", "/webhook", "")
	s.refused(404, "no such path", key, "GET", "/", "")
	if strings.Contains(s.log.String(), "hunter2") {
		t.Errorf("the log has a secret:\n%s", s.log)
	}
	if got := testenv.Psql(t, s.store, "select count(*), string_agg(url, '') from walhook.webhook"); got != "1|https://example.com/hunter2" {
		t.Errorf("the webhooks are %s", got)
	}
}

// An administrator's open transaction on a webhook ends in an answer, not in a wait without end.
func TestLockedWebhook(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key := s.key("'Zapier'")
	s.want(201, key, "POST", "/webhooks", `{"url": "https://example.com/", "event": "response.created"}`)
	conn := testenv.Connect(t, s.store)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), "update walhook.webhook set description = 'x'"); err != nil {
		t.Fatal(err)
	}
	if got := s.refused(503, "did not answer in time", key, "PATCH", "/webhooks/1", `{"ordered": false}`); got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	s.want(200, key, "GET", "/webhooks/1", "")
}

// Lists come in pages, of which each names the next one.
func TestPages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key, ours := s.key("'Make'"), s.key("'ours', '42'")
	testenv.Psql(t, s.store, `
		update walhook.settings set time_zone = 'Europe/Berlin';
		insert into walhook.webhook (url, event_type, organization_id) select 'https://example.com/' || g, 'response.created', 41 + g % 2 from generate_series(1, 7) g;
		insert into walhook.queue (webhook_id, committed_at, event_type, response_id, attempts, last_attempt_at)
		select 1 + g % 2, now(), 1, g::text, g % 2, case g % 2 when 1 then timestamptz '2026-10-25 00:30Z' + g * interval '10 min' end from generate_series(1, 6) g;`)
	testenv.Psql(t, s.store, `
		insert into walhook.log_overflow (delivery_id, webhook_id, lsn, ordinal, committed_at, finished_at, attempts, event_type, kind, succeeded, response_id)
		select nextval('walhook.delivery_id'), 1 + g % 2, '0/1', g, now(), timestamptz '2026-10-25 00:00Z' + g / 2 * interval '10 min', 1, 1 + g % 2, 0, g % 3 = 0, g::text from generate_series(1, 20) g;`)
	all := func(key, path string) (items []map[string]any, pages int) {
		t.Helper()
		for next := path; ; pages++ {
			got := s.want(200, key, "GET", next, "")
			items = append(items, got.items(t)...)
			link := got.header.Get("Link")
			if got.object(t)["next_cursor"] == nil {
				if link != "" {
					t.Errorf("the last page of %s has %s", path, link)
				}
				return items, pages + 1
			}
			address, ok := strings.CutSuffix(link, `>; rel="next"`)
			if !ok || !strings.HasPrefix(address, "<"+s.url+"/") {
				t.Fatalf("Link of %s is %q", next, link)
			}
			next = strings.TrimPrefix(address, "<"+s.url)
		}
	}
	for _, c := range []struct {
		key, path    string
		items, pages int
	}{
		{key, "/webhooks?limit=3", 7, 3},
		{key, "/webhooks?limit=7", 7, 1},
		{key, "/webhooks?event_type=response.created&limit=4&assessment_id=", 7, 2},
		{key, "/webhooks?url=https://example.com/3", 1, 1},
		{key, "/webhooks?assessment_id=17", 0, 1},
		{ours, "/webhooks?limit=2", 4, 2},
		{key, "/deliveries?limit=4", 26, 7},
		{key, "/deliveries?limit=1", 26, 26},
		{ours, "/deliveries?limit=3", 13, 5},
		{key, "/deliveries?webhook_id=1&limit=5", 13, 3},
		{key, "/deliveries?status=pending&limit=2", 6, 3},
		{key, "/deliveries?status=success&limit=5", 6, 2},
		{key, "/deliveries?status=failed&limit=5&event_type=response.started", 7, 2},
		{key, "/deliveries?response_id=3&limit=1", 2, 2},
		{key, "/deliveries?since=2026-10-25T00:50:00Z&until=2026-10-25T01:10:00Z&limit=1", 5, 5},
		{key, "/deliveries?since=2026-10-25T01:30:00Z", 3, 1},
		{key, "/deliveries?until=2026-10-25T01:00:00Z", 12, 1},
	} {
		items, pages := all(c.key, c.path)
		seen := map[any]bool{}
		for _, item := range items {
			seen[item["id"]], seen[item["delivery_id"]] = true, true
		}
		delete(seen, nil)
		if len(items) != c.items || len(seen) != c.items || pages != c.pages {
			t.Errorf("%s has %d items, %d of them different, on %d pages; not %d on %d", c.path, len(items), len(seen), pages, c.items, c.pages)
		}
	}
	items, _ := all(key, "/deliveries?limit=2")
	if items[0]["delivered_at"] != nil || items[2]["delivered_at"] != nil || items[3]["delivered_at"] == nil {
		t.Errorf("those without an attempt do not come first: %v", items[:4])
	}
	one := s.want(200, key, "GET", fmt.Sprintf("/deliveries/%.0f", items[4]["delivery_id"]), "").object(t)
	attempts, _ := one["delivery_attempts"].([]any)
	delete(one, "delivery_attempts")
	if len(attempts) != 0 || fmt.Sprint(one) != fmt.Sprint(items[4]) {
		t.Errorf("the delivery is %v, in the list %v", one, items[4])
	}
}

// Tests and redeliveries are queued, and a delivery shows its attempts.
func TestQueuing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key := s.key("'n8n', '42'")
	s.want(201, key, "POST", "/webhooks", `{"url": "https://example.com/", "event": "response.completed", "assessment_id": "19"}`)
	s.refused(409, `name one: {"response_id"`, key, "POST", "/webhooks/1/test", "")
	s.want(202, key, "POST", "/webhooks/1/test", `{"response_id": 2}`)
	s.want(200, key, "PATCH", "/webhooks/1", `{"assessment_id": 17}`)
	queued := s.want(202, key, "POST", "/webhooks/1/test", "")
	id := fmt.Sprintf("%.0f", queued.object(t)["delivery_id"])
	got := s.want(200, key, "GET", "/deliveries/"+id, "").object(t)
	if got["test"] != true || got["status"] != "pending" || got["response_id"] != "2" || got["event_type"] != "response.completed" {
		t.Errorf("the test is %v", got)
	}
	testenv.Psql(t, s.store, `
		insert into walhook.log_overflow (delivery_id, webhook_id, lsn, ordinal, committed_at, finished_at, attempts, event_type, kind, succeeded, response_id, http_status, error)
		values (900, 1, '0/1', 1, now(), now() - interval '1 hour', 2, 3, 0, false, '2', 500, 'HTTP 500'), (901, 1, '0/2', 1, now(), now() - interval '2 days', 2, 3, 0, false, '2', 500, 'HTTP 500');
		insert into walhook.attempt_overflow (delivery_id, attempt, attempted_at, duration_ms, http_status, succeeded, error)
		values (900, 2, now(), 5, 500, false, 'HTTP 500'), (900, 1, now() - interval '1 minute', 5, null, false, 'timeout');`)
	attempts, _ := s.want(200, key, "GET", "/deliveries/900", "").object(t)["delivery_attempts"].([]any)
	if len(attempts) != 2 || attempts[0].(map[string]any)["error"] != "timeout" {
		t.Errorf("the attempts are %v", attempts)
	}
	if got := s.want(202, key, "POST", "/webhooks/1/redeliver-failed", ""); got.body != `{"queued":1}`+"\n" {
		t.Errorf("queued again: %s", got.body)
	}
	since := time.Now().Add(-3 * 24 * time.Hour).Format(time.RFC3339)
	if got := s.want(202, key, "POST", "/webhooks/1/redeliver-failed", `{"since": "`+since+`"}`); got.body != `{"queued":1}`+"\n" {
		t.Errorf("queued again since %s: %s", since, got.body)
	}
	again := s.want(202, key, "POST", "/deliveries/900/redeliver", "")
	got = s.want(200, key, "GET", fmt.Sprintf("/deliveries/%.0f", again.object(t)["delivery_id"]), "").object(t)
	if got["redelivery_of"] != 900.0 || got["message_id"] == nil || got["status"] != "pending" {
		t.Errorf("the redelivery is %v", got)
	}
	s.want(204, key, "DELETE", "/webhooks/1", "")
	s.refused(409, "was deleted. Create a new webhook", s.key("'all'"), "POST", "/deliveries/900/redeliver", "")
}

// Samples are bodies as webhooks get them, byte for byte, newest first.
func TestSamples(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key := s.key("'Zapier'")
	const (
		completed3 = `{"EventType":"response.completed","Timestamp":1773945849,"Data":{"ResponseId":3}}`
		completed2 = `{"EventType":"response.completed","Timestamp":1773859449,"Data":{"ResponseId":2}}`
		created1   = `{"EventType":"response.created","Timestamp":1772323200,"Data":{"ResponseId":1}}`
	)
	for path, want := range map[string]string{
		"/samples?event_type=response.completed":                  "[" + completed3 + "," + completed2 + "]\n",
		"/samples?event_type=response.completed&limit=1":          "[" + completed3 + "]\n",
		"/samples?event_type=response.completed&assessment_id=17": "[" + completed2 + "]\n",
		"/samples?event_type=response.changed":                    "[]\n",
		"/samples?assessment_id=17":                               "[" + completed2 + "," + created1 + "]\n",
		"/samples?assessment_id=' or true":                        "[]\n",
	} {
		if got := s.want(200, key, "GET", strings.ReplaceAll(path, " ", "%20"), ""); got.body != want {
			t.Errorf("%s: %s, not %s", path, got.body, want)
		}
	}
	// The log knows when the event happened.
	testenv.Psql(t, s.store, `insert into walhook.queue (webhook_id, committed_at, event_type, response_id) values (1, '2026-03-19 00:00:00Z', 3, '3')`)
	if got := s.want(200, key, "GET", "/samples?event_type=response.completed&limit=1", ""); !strings.Contains(got.body, `"Timestamp":1773878400,`) {
		t.Errorf("a delivered one: %s", got.body)
	}
	testenv.Psql(t, s.store, "update walhook.attachment set numeric_id = false")
	if got := s.want(200, key, "GET", "/samples?event_type=response.completed&limit=1", ""); !strings.Contains(got.body, `{"ResponseId":"3"}`) {
		t.Errorf("with a key that is no number: %s", got.body)
	}
}

// A key that asks too much is told when to come again, and hinders no other.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key, other := s.key("'busy'"), s.key("'calm'")
	limited := 0
	testenv.Eventually(t, time.Minute, "the key is limited", func() (bool, string) {
		for range 4 * perSecond {
			request, _ := http.NewRequestWithContext(t.Context(), "GET", s.url+"/me", nil)
			request.Header.Set("X-API-Key", key)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(response.Body)
			response.Body.Close()
			if response.StatusCode == http.StatusTooManyRequests {
				limited++
				if response.Header.Get("Retry-After") != "1" || !strings.Contains(string(body), "30 requests a second") {
					t.Errorf("%v: %s", response.Header, body)
				}
			}
		}
		return limited > 0, "no request was refused"
	})
	s.want(200, other, "GET", "/me", "")
	s.want(200, key, "GET", "/me", "") // once it may again
}
