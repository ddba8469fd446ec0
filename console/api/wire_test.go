package api

import (
	"slices"
	"strings"
	"testing"

	"walhook/testenv"
)

// A body that two readers might read in two ways is refused, and so is a number that has no exact value.
func TestAmbiguousBodies(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key := s.key("'Zapier'")
	s.want(201, key, "POST", "/webhooks", `{"url": "https://example.com/", "event": "response.created"}`)
	const event = `"event": "response.created"`
	const subscribe = `{"url": "https://example.com/", ` + event
	for _, c := range []struct{ method, path, body, detail string }{
		{"POST", "/webhooks", subscribe + `, "url": "https://example.org/"}`, `"url" twice`},
		{"POST", "/webhooks", subscribe + `, "target_url": "https://example.org/"}`, `"url" twice`},
		{"POST", "/webhooks", subscribe + `, "\u0075rl": "https://example.org/"}`, `"url" twice`},
		{"POST", "/webhooks", subscribe + `, "assessment_id": 1e400}`, `"assessment_id" must be a string or an int`},
		{"POST", "/webhooks", subscribe + `, "headers": {"a": 1e400}}`, `"headers" must be an object of strings`},
		{"POST", "/webhooks", subscribe + `, "headers": {"a": 1e999999999}}`, `"headers" must be an object of strings`},
		{"POST", "/webhooks", subscribe + `} trailing`, "not a JSON object"},
		{"POST", "/webhooks", subscribe, "not a JSON object"},
		{"POST", "/webhooks", `"https://example.com/"`, "not a JSON object"},
		{"POST", "/webhooks", ` `, "not a JSON object"},
		{"PATCH", "/webhooks/1", `{"ordered": true, "ordered": false}`, `"ordered" twice`},
		{"PATCH", "/webhooks/1", `{"headers": {"a": "1"}, "headers": null}`, `"headers" twice`},
		{"POST", "/webhooks/1/test", `{"response_id": 1, "response_id": 2}`, `"response_id" twice`},
		{"POST", "/webhooks/1/test", `{"response_id": 1e2}`, `"response_id" must be a string or an integer`},
		{"POST", "/webhooks/1/redeliver-failed", `{"since": 1e400}`, `"since" must be a string`},
	} {
		s.refused(400, c.detail, key, c.method, c.path, c.body)
	}
	s.refused(415, "not compressed", key, "POST", "/webhooks", `{}`, "Content-Encoding", "gzip")
	s.want(200, key, "PATCH", "/webhooks/1", `{}`, "Content-Encoding", "identity")
	// Two names of one field with one value are no contradiction, and null empties what may be empty.
	s.want(200, key, "POST", "/webhooks",
		subscribe+`, "hookUrl": "https://example.com/", "assessment_id": null, "headers": null, "description": null}`)
	for _, field := range []string{"url", "event_type", "ordered", "enabled", "log_successes"} {
		s.want(422, key, "PATCH", "/webhooks/1", `{"`+field+`": null}`)
	}
	if got := testenv.Psql(t, s.store, "select count(*), bool_and(ordered) from walhook.webhook"); got != "1|t" {
		t.Errorf("the webhooks are %s", got)
	}
}

// Every path says which methods it accepts, and answers HEAD as it would answer GET.
func TestMethods(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key := s.key("'Zapier'")
	s.want(201, key, "POST", "/webhooks", `{"url": "https://example.com/", "event": "response.created"}`)
	for path, allowed := range map[string]string{
		"/me":                          "GET, HEAD, OPTIONS",
		"/openapi.json":                "GET, HEAD, OPTIONS",
		"/webhooks":                    "GET, HEAD, POST, OPTIONS",
		"/webhooks/1":                  "GET, HEAD, PATCH, DELETE, OPTIONS",
		"/webhooks/1/test":             "POST, OPTIONS",
		"/webhooks/1/redeliver-failed": "POST, OPTIONS",
		"/deliveries":                  "GET, HEAD, OPTIONS",
		"/deliveries/1/redeliver":      "POST, OPTIONS",
		"/samples":                     "GET, HEAD, OPTIONS",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} {
			known := slices.Contains(strings.Split(allowed, ", "), method)
			if known && method != "OPTIONS" && method != "HEAD" {
				continue
			}
			got := s.send(key, method, path, "")
			switch {
			case method == "OPTIONS" && (got.status != 204 || got.header.Get("Allow") != allowed || got.body != ""):
				t.Errorf("OPTIONS %s: %d, Allow %q: %s", path, got.status, got.header.Get("Allow"), got.body)
			case method == "HEAD" && known:
				get := s.send(key, "GET", path, "").header
				if got.status != 200 || got.body != "" || get.Get("Content-Type") != got.header.Get("Content-Type") ||
					get.Get("ETag") != got.header.Get("ETag") {
					t.Errorf("HEAD %s: %d %v, and GET %v", path, got.status, got.header, get)
				}
			case !known && method == "HEAD" && got.status != 405:
				t.Errorf("HEAD %s: %d", path, got.status)
			case !known && method != "HEAD":
				s.refused(405, "accepts only", key, method, path, "")
				if got.header.Get("Allow") != allowed {
					t.Errorf("%s %s: Allow is %q", method, path, got.header.Get("Allow"))
				}
			}
		}
	}
	// What does not exist has no methods.
	for _, path := range []string{"", "/", "/webhooks/1/", "/webhooks/1/tests", "/Webhooks", "/openapi", "/deliveries/1/redeliver/2"} {
		for _, method := range []string{"GET", "POST", "DELETE", "OPTIONS"} {
			s.refused(404, "no such path", "", method, path, "")
		}
	}
}

// A filter takes a URL as the body of a request does.
func TestFilterByURL(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key := s.key("'n8n'")
	s.want(201, key, "POST", "/webhooks", `{"url": " https://example.com/a?b=c&d ", "event": "response.created"}`)
	for _, query := range []string{"https%3A%2F%2Fexample.com%2Fa%3Fb%3Dc%26d", "%20https%3A%2F%2Fexample.com%2Fa%3Fb%3Dc%26d%0A", ""} {
		if got := s.want(200, key, "GET", "/webhooks?url="+query, ""); len(got.items(t)) != 1 {
			t.Errorf("%s finds %s", query, got.body)
		}
	}
}

// A subscription that is repeated under another spelling of the same ids is the same one.
func TestCreatedAgainUnderAnotherSpelling(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key := s.key("'Zapier'")
	testenv.Psql(t, s.store, `update walhook.attachment set column_types =
		'{"assessment": {"oid": 20, "modifier": -1}, "assessment_organization": {"oid": 20, "modifier": -1}}'`)
	const body = `{"url": "https://example.com/", "event": "response.created",
		"assessment_id": "017", "organization_id": "042"}`
	s.want(201, key, "POST", "/webhooks", body)
	for _, again := range []string{body, strings.NewReplacer(`"017"`, "17", `"042"`, "42").Replace(body)} {
		got := s.want(200, key, "POST", "/webhooks", again).object(t)
		if got["id"] != 1.0 || got["assessment_id"] != "17" || got["organization_id"] != "42" {
			t.Errorf("%s finds %v", again, got)
		}
	}
}
