package console

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"walhook/testenv"
)

// state is all that people can change.
func (s *site) state() string {
	s.t.Helper()
	return testenv.Psql(s.t, s.store, `select md5(string_agg(w::text, '' order by id)) from walhook.webhook w union all
		select count(*)::text from walhook.change union all select count(*)::text from walhook.queue union all
		select count(*)::text from walhook.api_credential union all select s::text from walhook.settings s`)
}

// at returns the path of a route with this in place of each id.
func at(route route, id string) string {
	path := strings.ReplaceAll(strings.ReplaceAll(route.pattern, "{id}", id), "{delivery}", id)
	return strings.TrimSuffix(path, "{$}")
}

// No request changes anything unless an administrator's own page sends it as a form.
func TestWhatChangesNothing(t *testing.T) {
	t.Parallel()
	s := filled(t)
	testenv.Exec(t, s.store, "select walhook.create_api_key('Zapier')")
	admin, viewer, stranger := s.signIn(s.admin), s.signIn(s.viewer), s.browser()
	form := url.Values{
		"url": {"https://example.com"}, "event_type": {"response.created"}, "enabled": {"on"}, "time_zone": {"Europe/Berlin"}, "to": {"18"}, "name": {"mine"},
		"scope": {"admin"}, "_method": {"DELETE"},
	}
	before := s.state()
	unchanged := func(what string) {
		t.Helper()
		if after := s.state(); after != before {
			t.Errorf("%s changes something:\n%s\n%s", what, before, after)
			before = after
		}
	}
	for _, route := range s.server.routes() {
		if strings.HasSuffix(route.pattern, "/live") || route.pattern == "/logout" {
			continue
		}
		path := at(route, "1")
		what := route.method + " " + path
		if route.method == "GET" {
			for _, method := range []string{"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE"} {
				admin.header = http.Header{"X-Http-Method-Override": {"POST"}, "X-Method-Override": {"DELETE"}}
				if a := admin.do(method, path+"?"+form.Encode(), nil); a.status >= 500 {
					t.Errorf("%s %s: %d", method, path, a.status)
				}
				admin.header = nil
			}
			unchanged("a request like " + what)
			if a := stranger.get(path); a.status != http.StatusSeeOther || !strings.HasPrefix(a.location, "/login") {
				t.Errorf("a stranger gets %s: %d", path, a.status)
			}
			continue
		}
		for _, header := range []http.Header{
			{"Sec-Fetch-Site": {"cross-site"}},
			{"Sec-Fetch-Site": {"same-site"}},
			{"Sec-Fetch-Site": {""}, "Origin": {"null"}},
			{"Sec-Fetch-Site": {""}, "Origin": {"https://evil.example"}},
		} {
			admin.header = header
			admin.post(path, form).want(t, http.StatusForbidden, "Another site")
		}
		for _, kind := range []string{"text/plain", "application/json", "multipart/form-data; boundary=x", ""} {
			admin.header = http.Header{"Content-Type": {kind}}
			admin.post(path, form).want(t, http.StatusUnsupportedMediaType)
		}
		admin.header = nil
		if a := viewer.post(path, form); a.status != http.StatusForbidden && a.status != http.StatusNotFound {
			t.Errorf("a viewer's %s: %d %s", what, a.status, a.body)
		}
		if a := stranger.post(path, form); a.status != http.StatusSeeOther || !strings.HasPrefix(a.location, "/login") {
			t.Errorf("a stranger's %s: %d", what, a.status)
		}
		unchanged("what nobody may send as " + what)
	}
}

// No id, parameter or field is an error of the console's own, and none comes back as HTML.
func TestNonsense(t *testing.T) {
	t.Parallel()
	s := filled(t)
	b := s.signIn(s.admin)
	sane := func(what string, a answer) {
		t.Helper()
		if a.status >= 500 {
			t.Errorf("%s: %d", what, a.status)
		}
		a.lacks(t, "<script>alert")
	}
	nonsense := []string{
		"\x00", "\xff", "a\r\nSet-Cookie: x=y", "../../login", "-1", "0", "1e3", "99999999999999999999", "9223372036854775807", "NaN", "infinity", "1970-01-01T00:00",
		"999999-01-01T00:00", "0000-00-00T00:00", injected, "'; drop table x; --", strings.Repeat("é", 2000), "{}", "[[[[", "\u202e", "=cmd|' /C calc'!A0", "1-2-3", "--", "a-b",
	}
	// Each request has another value in each place.
	mixed := func(turn int, names ...string) url.Values {
		values := url.Values{}
		for i, name := range names {
			values.Set(name, nonsense[(turn*7+i)%len(nonsense)])
		}
		return values
	}
	turn := 0
	for _, route := range s.server.routes() {
		if route.method != "GET" || strings.HasSuffix(route.pattern, "/live") {
			continue
		}
		for range 3 {
			turn++
			query := mixed(turn, "q", "state", "sort", "urls", "after", "before", "webhook", "event", "status", "http", "response", "since", "until", "object", "id", "assessment", "test").Encode()
			sane(route.pattern+"?"+query, b.get(at(route, "1")+"?"+query))
		}
		for _, query := range []string{"?%zz", "?webhook=1&webhook=2;"} {
			sane(route.pattern+query, b.get(at(route, "1")+query))
		}
	}
	for _, value := range nonsense {
		for _, path := range []string{"/webhooks/", "/deliveries/", "/responses/"} {
			sane(path+value, b.get(path+url.PathEscape(value)))
		}
	}
	fields := []string{"url", "event_type", "description", "organization_id", "assessment_id", "other_assessment", "secret", "headers", "name", "scope", "expires_at", "time_zone", "response_id", "to"}
	for _, path := range []string{"/webhooks", "/webhooks/1", "/keys", "/settings", "/webhooks/1/test", "/webhooks/1/copy", "/deliveries/redeliver"} {
		for range 4 {
			turn++
			sane(fmt.Sprintf("POST %s, turn %d", path, turn), b.post(path, mixed(turn, fields...)))
		}
	}
	for i, value := range nonsense { // what is otherwise right
		form := url.Values{"url": {fmt.Sprint("https://example.com/", i)}, "event_type": {"response.created"}, "name": {"key"}, "scope": {"read"}}
		form.Set([]string{"description", "headers", "secret", "organization_id", "assessment_id"}[i%5], value)
		sane(fmt.Sprintf("POST /webhooks with %q", value), b.post("/webhooks", form))
		sane(fmt.Sprintf("POST /keys with %q", value), b.post("/keys", url.Values{"name": {"key " + value}, "scope": {"read"}, "organization_id": {value}}))
	}
	for _, path := range []string{"/", "/webhooks", "/deliveries", "/keys", "/changes", "/settings", "/webhooks/1"} {
		b.get(path).want(t, http.StatusOK).lacks(t, "<script>alert", "'&<b>")
	}
	for _, value := range nonsense[:5] {
		sane("role "+value, s.browser().post("/login", url.Values{"role": {value}, "password": {value}, "next": {value}}))
	}
}

// A form that is too large or broken is refused as a whole.
func TestBrokenForms(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	b := s.signIn(s.admin)
	send := func(path, body string) answer {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", s.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := b.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return answer{status: res.StatusCode, body: string(text)}
	}
	for _, path := range []string{"/settings", "/login", "/webhooks"} {
		send(path, "time_zone=Europe/Berlin&role=x&password=y&description="+strings.Repeat("x", maxForm)).want(t, http.StatusRequestEntityTooLarge, "too large")
		send(path, "time_zone=Europe/Berlin&role=x&password=y&enabled=%zz").want(t, http.StatusBadRequest, "cannot be read")
	}
	if got := testenv.Value[bool](t, s.store, "select enabled and time_zone = 'UTC' from walhook.settings"); !got {
		t.Error("the settings have changed")
	}
}

// Whoever sends a request slowly, or a huge header, keeps no connection.
func TestSlowAndHugeRequests(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	dial := func(text string) net.Conn {
		t.Helper()
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", mustURL(t, s.url).Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	slow := dial("GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	huge := dial("GET / HTTP/1.1\r\nHost: x\r\nX-Huge: " + strings.Repeat("x", 48<<10))
	res, err := http.ReadResponse(bufio.NewReader(huge), nil)
	if err != nil || res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a huge header: %v %v", res, err)
	}
	if _, err := io.ReadAll(slow); err != nil {
		t.Errorf("a slow header: %v", err)
	}
}

// Neither the Host header nor those of proxies get into an address, and what a browser sends counts for nothing from outside the networks.
func TestForgedHosts(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	admin := s.signIn(s.admin)
	for _, b := range []*browser{admin, s.browser()} {
		for _, path := range []string{"/", "/login", "/settings", "/webhooks", "/nowhere", "/api/v1/openapi.json", "/api/v1/me", "/static/../login", "//evil.example/x", "/login?next=//evil.example"} {
			req, err := http.NewRequestWithContext(t.Context(), "GET", s.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.URL.Opaque = path
			req.Host = "evil.example"
			for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Server", "X-Original-Url", "X-Rewrite-Url", "X-Forwarded-Prefix", "X-Forwarded-Proto", "Forwarded"} {
				req.Header.Set(name, "host=evil.example")
			}
			res, err := b.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			text := fmt.Sprint(res.Header) + string(body)
			if strings.Contains(text, "//evil.example") || strings.Contains(text, "host=evil") || res.StatusCode >= 500 {
				t.Errorf("%s: %d %s", path, res.StatusCode, text)
			}
		}
	}
}

// Headers that only look like the proxy's name nobody, and neither does a name that cannot be one.
func TestSmuggledHeaders(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *Config) {
		c.Login, c.AdminGroups = LoginProxy, []string{"admins"}
		c.Proxy = Proxy{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, UserHeader: "X-Forwarded-User", GroupsHeader: "X-Forwarded-Groups"}
	})
	for name, header := range map[string]http.Header{
		"underscores":        {"X_Forwarded_User": {"ada"}, "X_Forwarded_Groups": {"admins"}},
		"underscore groups":  {"X-Forwarded-User": {"ada"}, "X_Forwarded_Groups": {"admins"}},
		"two users":          {"X-Forwarded-User": {"eve", "ada"}, "X-Forwarded-Groups": {"admins"}},
		"other case":         {"X-Forwarded-User": {"eve"}, "x-forwarded-user": {"ada"}, "X-Forwarded-Groups": {"admins"}},
		"groups twice":       {"X-Forwarded-User": {"eve"}, "X-Forwarded-Groups": {"staff"}, "x-forwarded-groups": {"admins"}},
		"blank":              {"X-Forwarded-User": {" \t"}, "X-Forwarded-Groups": {"admins"}},
		"no groups":          {"X-Forwarded-User": {"eve"}, "X-Forwarded-Groups": {" , ;|"}},
		"group's beginning":  {"X-Forwarded-User": {"eve"}, "X-Forwarded-Groups": {"admins2, administrators, admin s"}},
		"other case's group": {"X-Forwarded-User": {"eve"}, "X-Forwarded-Groups": {"ADMINS"}},
		"no UTF-8":           {"X-Forwarded-User": {"eve\xff"}, "X-Forwarded-Groups": {"admins"}},
		"long":               {"X-Forwarded-User": {strings.Repeat("e", 300)}, "X-Forwarded-Groups": {"admins"}},
	} {
		b := s.browser()
		b.header = header
		if a := b.get("/settings"); a.status != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if a := b.post("/settings", url.Values{"time_zone": {"Europe/Berlin"}}); a.status != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	b := s.browser()
	b.header = http.Header{"X-Forwarded-User": {injected}, "X-Forwarded-Groups": {"admins"}}
	b.get("/settings").want(t, http.StatusOK, "&lt;script&gt;").lacks(t, "<script>alert")
}
