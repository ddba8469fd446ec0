package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"walhook/session"
	"walhook/sql"
	"walhook/testenv"
)

// site is an API over a store that has some responses.
type site struct {
	*testing.T
	store string // its URL, as the owner
	url   string // of the API, with /api/v1
	log   *bytes.Buffer

	validator validator.Validator
	validated sync.Mutex // the validator is not known to be safe for concurrent use
}

// newSite starts an API whose console has the right of a member of walhook_admin and no other.
func newSite(t *testing.T) *site {
	t.Helper()
	database := testenv.Postgres(t)
	store := testenv.Clone(t, database, testenv.Template(t, database, "installed", sql.Install))
	testenv.Psql(t, store, `
		insert into walhook.attachment (phase, system_identifier, database, slot, publication, publish, mapping, respondent_oid, assessment_oid, numeric_id, attached_at)
		values ('attached', '1', 'd', 's', 'p', 'all', '{}', 1, 0, true, '2026-03-01 00:00:00Z');
		insert into walhook.position (turn, lsn) values (1, '0/1');
		insert into walhook.origin (from_delivery_id, events, manual) values (0, 'a', 'b');
		insert into walhook.response_state (response_id, assessment_id, organization_id, flags, fate, created_lsn, fired_at) values
		  ('1', '17', '42', 0, 1, null, null),
		  ('2', '17', '42', 3, 7, '0/20', '2026-03-18 18:44:09.9Z'),
		  ('3', '18', '43', 3, 7, '0/30', '2026-03-19 18:44:09Z');`)
	u, err := url.Parse(store)
	if err != nil {
		t.Fatal(err)
	}
	role := "console_of_" + strings.Trim(u.Path, "/")
	testenv.Exec(t, store, `create role "`+role+`" login in role walhook_admin`)
	t.Cleanup(func() { testenv.Exec(t, store, `drop owned by "`+role+`"; drop role "`+role+`"`) })
	u.User = url.User(role)
	pool, err := session.NewPool(t.Context(), u.String(), 4, func(context.Context, *pgx.Conn) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)

	s := &site{T: t, store: store, log: &bytes.Buffer{}}
	server := httptest.NewUnstartedServer(nil)
	address := "http://" + server.Listener.Addr().String()
	handler, err := New(Config{Pool: pool, URL: address + "/", Log: slog.New(slog.NewTextHandler(s.log, nil)), Client: loopback})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = handler
	server.Start()
	t.Cleanup(server.Close)
	s.url = address + "/api/v1"

	response, err := http.Get(s.url + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	served, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	document, err := libopenapi.NewDocument(served)
	if err != nil {
		t.Fatalf("the OpenAPI document: %v", err)
	}
	var faults []error
	if s.validator, faults = validator.NewValidator(document); len(faults) > 0 {
		t.Fatalf("the OpenAPI document: %v", faults)
	}
	return s
}

func loopback(*http.Request) netip.Prefix { return netip.MustParsePrefix("127.0.0.1/32") }

// key creates an API key.
func (s *site) key(arguments string) string {
	s.Helper()
	return testenv.Psql(s.T, s.store, "select walhook.create_api_key("+arguments+")")
}

// answer is what the API answered.
type answer struct {
	status int
	header http.Header
	body   string
}

// object is the body as a JSON object.
func (a answer) object(t *testing.T) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(a.body), &object); err != nil {
		t.Fatalf("%d is no object: %s", a.status, a.body)
	}
	return object
}

func (a answer) detail(t *testing.T) string {
	t.Helper()
	detail, _ := a.object(t)["detail"].(string)
	return detail
}

// items are the objects of a page.
func (a answer) items(t *testing.T) (items []map[string]any) {
	t.Helper()
	data, ok := a.object(t)["data"].([]any)
	if !ok {
		t.Fatalf("%d is no page: %s", a.status, a.body)
	}
	for _, one := range data {
		items = append(items, one.(map[string]any))
	}
	return items
}

// send sends a request, and validates the answer against the OpenAPI document; the request as well, if it was
// accepted. Headers are pairs of name and value. It waits where the key has made too many requests.
func (s *site) send(key, method, path, body string, headers ...string) (got answer) {
	s.Helper()
	testenv.Eventually(s.T, time.Minute, "the key may make a request", func() (bool, string) {
		request, err := http.NewRequestWithContext(s.Context(), method, s.url+path, strings.NewReader(body))
		if err != nil {
			s.Fatal(err)
		}
		if key != "" {
			request.Header.Set("Authorization", "Bearer "+key)
		}
		if body != "" {
			request.Header.Set("Content-Type", "application/json")
		}
		for i := 0; i < len(headers); i += 2 {
			request.Header.Set(headers[i], headers[i+1])
		}
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			s.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			s.Fatal(err)
		}
		got = answer{response.StatusCode, response.Header, string(text)}
		s.validate(request, response, body, text)
		return got.status != http.StatusTooManyRequests, got.body
	})
	if strings.Contains(got.body, "walhook.api_credential") || strings.Contains(got.body, "SQLSTATE") {
		s.Errorf("%s %s shows the inside: %s", method, path, got.body)
	}
	return got
}

func (s *site) validate(request *http.Request, response *http.Response, body string, got []byte) {
	s.Helper()
	if response.StatusCode == http.StatusMethodNotAllowed || request.Method == http.MethodHead || request.Method == http.MethodOptions {
		return
	}
	s.validated.Lock()
	defer s.validated.Unlock()
	request.Body = io.NopCloser(strings.NewReader(body))
	response.Body = io.NopCloser(bytes.NewReader(got))
	if ok, faults := s.validator.ValidateHttpResponse(request, response); !ok && !strings.Contains(faults[0].Message, "Path") {
		for _, fault := range faults {
			s.Errorf("%s %s answers %d not as described: %s %s %v\n%s", request.Method, request.URL.Path, response.StatusCode, fault.Message, fault.Reason, fault.SchemaValidationErrors, got)
		}
	}
	if response.StatusCode < 300 {
		request.Body = io.NopCloser(strings.NewReader(body))
		if ok, faults := s.validator.ValidateHttpRequestSync(request); !ok {
			for _, fault := range faults {
				s.Errorf("%s %s with %s is accepted, but not described: %s %s %v", request.Method, request.URL.RequestURI(), body, fault.Message, fault.Reason, fault.SchemaValidationErrors)
			}
		}
	}
}

// want sends a request and expects a status.
func (s *site) want(status int, key, method, path, body string, headers ...string) answer {
	s.Helper()
	got := s.send(key, method, path, body, headers...)
	if got.status != status {
		s.Fatalf("%s %s %s: %d, not %d: %s", method, path, body, got.status, status, got.body)
	}
	return got
}

// refused expects a problem whose detail has a text.
func (s *site) refused(status int, detail, key, method, path, body string, headers ...string) answer {
	s.Helper()
	got := s.send(key, method, path, body, headers...)
	if got.status != status || got.header.Get("Content-Type") != "application/problem+json" || !strings.Contains(got.detail(s.T), detail) {
		s.Errorf("%s %s %.200s: %d, not %d with %q: %s", method, path, body, got.status, status, detail, got.body)
	}
	return got
}
