package console

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"walhook/testenv"
)

// Every answer forbids frames, foreign content and guesses about its type.
func TestHeadersOfEveryAnswer(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	b := s.signIn(s.admin)
	for _, path := range []string{"/", "/login", "/settings", "/nowhere", "/static/walhook.css", "/healthz"} {
		a := b.get(path)
		policy := a.header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "frame-ancestors 'none'") || !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", path, policy)
		}
		if a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("X-Frame-Options") != "DENY" || a.header.Get("Referrer-Policy") == "" {
			t.Errorf("%s: headers %v", path, a.header)
		}
		for _, inline := range []string{" style=", " onclick=", " onload=", "<style", "<script>"} {
			a.lacks(t, inline)
		}
	}
	b.get("/nowhere").want(t, http.StatusNotFound, "There is no such page.")
}

// What another site makes the browser send changes nothing, whatever browsers say of its origin.
func TestCrossSiteRequests(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	b := s.signIn(s.admin)
	off := url.Values{"time_zone": {"Europe/Berlin"}}
	for _, from := range []map[string]string{
		{"Sec-Fetch-Site": "cross-site"},
		{"Sec-Fetch-Site": "same-site"},
		{"Sec-Fetch-Site": "", "Origin": "https://evil.example"},
		{"Sec-Fetch-Site": "", "Origin": "null"},
		{"Sec-Fetch-Site": "", "Referer": "https://evil.example/" + mustURL(t, s.url).Host},
		{"Sec-Fetch-Site": "", "Referer": "null"},
	} {
		b.header = http.Header{}
		for name, value := range from {
			b.header.Set(name, value)
		}
		b.post("/settings", off).want(t, http.StatusForbidden, "Another site")
		b.post("/logout", nil).want(t, http.StatusForbidden)
		b.post("/login", url.Values{"role": {s.viewer}, "password": {s.viewer}}).want(t, http.StatusForbidden)
	}
	b.header = nil
	if got := testenv.Value[string](t, s.store, "select time_zone from walhook.settings"); got != "UTC" {
		t.Errorf("the time zone is %s", got)
	}
	b.header = http.Header{"Sec-Fetch-Site": {""}, "Referer": {s.url + "/settings"}} // an old browser, and a program
	b.post("/settings", url.Values{"enabled": {"on"}, "time_zone": {"UTC"}}).want(t, http.StatusSeeOther)
	b.header = http.Header{"Sec-Fetch-Site": {""}}
	b.post("/settings", url.Values{"enabled": {"on"}, "time_zone": {"UTC"}}).want(t, http.StatusSeeOther)
	b.header = nil
	b.post("/settings", off).want(t, http.StatusSeeOther)
	b.get("/settings").want(t, http.StatusOK, "Settings saved.")
	if got := testenv.Value[string](t, s.store, "select actor || ' ' || (changes -> 'time_zone' ->> 'new') from walhook.change_log order by change_id desc limit 1"); got != s.admin+" Europe/Berlin" {
		t.Errorf("the change log has %s", got)
	}
}

// A session that somebody planted in the browser before is not the one after the sign-in, and one that has ended stays ended.
func TestSessionFixation(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	at := mustURL(t, s.url)
	b := s.browser()
	b.client.Jar.SetCookies(at, []*http.Cookie{{Name: "walhook", Value: "planted"}})
	b.post("/login", url.Values{"role": {s.admin}, "password": {s.admin}}).want(t, http.StatusSeeOther)
	first := b.client.Jar.Cookies(at)[0].Value
	if first == "planted" {
		t.Error("the planted session was kept")
	}
	b.post("/login", url.Values{"role": {s.viewer}, "password": {s.viewer}}).want(t, http.StatusSeeOther)
	second := b.client.Jar.Cookies(at)[0].Value
	b.post("/logout", nil).want(t, http.StatusSeeOther)
	for _, token := range []string{"planted", first, second} {
		thief := s.browser()
		thief.client.Jar, _ = cookiejar.New(nil)
		thief.client.Jar.SetCookies(at, []*http.Cookie{{Name: "walhook", Value: token}})
		if a := thief.get("/"); a.status != http.StatusSeeOther || a.location != "/login" {
			t.Errorf("session %s still works: %d", token, a.status)
		}
	}
}

// Cookies are for the console alone and out of scripts' reach; behind https they stay on TLS.
func TestCookies(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	s := newSite(t, nil)
	for public, prefix := range map[string]string{"http://127.0.0.1:1": "walhook", "https://walhook.example.com": "__Host-walhook"} {
		https := strings.HasPrefix(public, "https")
		check := func(a answer, name string) {
			t.Helper()
			cookies := a.header.Values("Set-Cookie")
			if len(cookies) == 0 {
				t.Errorf("%s: no cookie: %d %s", public, a.status, a.body)
			}
			for _, cookie := range cookies {
				if !strings.HasPrefix(cookie, name+"=") || !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Lax") ||
					!strings.Contains(cookie, "Path=/") || strings.Contains(cookie, "Domain") || strings.Contains(cookie, "Secure") != https {
					t.Errorf("%s: %s", public, cookie)
				}
			}
			if hsts := a.header.Get("Strict-Transport-Security"); (hsts != "") != https {
				t.Errorf("%s: Strict-Transport-Security %q", public, hsts)
			}
		}
		s.start(func(c *Config) { c.URL, c.OneTimeKey = mustURL(t, public), "the-way-in" })
		a := s.browser().post("/login", url.Values{"role": {s.admin}, "password": {s.admin}})
		if https {
			// The server asks for no password, and its console is reached from elsewhere.
			a.want(t, http.StatusForbidden, "anybody could sign in")
		} else {
			check(a, prefix)
		}
		check(s.browser().get("/login?key=unknown"), prefix+"-said")
		check(s.browser().get("/login?key=the-way-in"), prefix)
		s.start(func(c *Config) { withOIDC(p)(c); c.URL = mustURL(t, public) })
		check(s.browser().get("/login/start"), prefix+"-signin")
	}
}

// A link to the console never leads elsewhere.
func TestOpenRedirects(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for _, next := range []string{
		"https://evil.example", "//evil.example", `/\evil.example`, "/\t/evil.example", "javascript:alert(1)", "\r\nLocation: https://evil.example", "",
	} {
		a := s.browser().post("/login", url.Values{"role": {s.admin}, "password": {s.admin}, "next": {next}})
		if a.status != http.StatusSeeOther || a.location != "/" {
			t.Errorf("next %q: %d %s", next, a.status, a.location)
		}
		s.browser().get("/login?next="+url.QueryEscape(next)).want(t, http.StatusOK).lacks(t, "evil.example", "javascript:")
	}
	a := s.browser().post("/login", url.Values{"role": {s.admin}, "password": {s.admin}, "next": {"/deliveries?status=failed"}})
	if a.location != "/deliveries?status=failed" {
		t.Errorf("an address of the console's own becomes %s", a.location)
	}
	if a := s.browser().get("/settings?a=b"); a.location != "/login?next=%2Fsettings%3Fa%3Db" {
		t.Errorf("a page leads to %s", a.location)
	}
}

// What is typed is text, wherever it is shown again.
func TestHTMLInjection(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	const evil = `"><script>alert(1)</script>`
	s.browser().post("/login", url.Values{"role": {evil}, "password": {"x"}}).lacks(t, evil)
	b := s.signIn(s.admin)
	b.post("/settings", url.Values{"enabled": {"on"}, "time_zone": {evil}}).want(t, http.StatusUnprocessableEntity, `role="alert"`, "&lt;script&gt;").lacks(t, evil)
	testenv.Exec(t, s.store, "insert into walhook.incident_log (kind, detail) values ('gap', $1)", evil)
	b.get("/").want(t, http.StatusOK, "&lt;script&gt;").lacks(t, evil)
}

// A viewer's requests, though made by hand, change nothing.
func TestViewersSettingsByHand(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	b := s.signIn(s.viewer)
	b.post("/settings", url.Values{"time_zone": {"Europe/Berlin"}}).want(t, http.StatusForbidden, "Only members of walhook_admin")
	if got := testenv.Value[bool](t, s.store, "select enabled and time_zone = 'UTC' from walhook.settings"); !got {
		t.Error("the settings have changed")
	}
}

// A role that is revoked, or may not log in any more, is out.
func TestRevokedRoles(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	admin, viewer := s.signIn(s.admin), s.signIn(s.viewer)
	testenv.Exec(t, s.store, `revoke walhook_admin from "`+s.admin+`"; revoke walhook_viewer from "`+s.viewer+`"`)
	admin.post("/settings", url.Values{"time_zone": {"Europe/Berlin"}}).want(t, http.StatusSeeOther)
	viewer.get("/").want(t, http.StatusSeeOther)
	viewer.get("/login").want(t, http.StatusOK, "may no longer enter")
	testenv.Exec(t, s.store, `grant walhook_admin to "`+s.admin+`"`)
	admin.get("/").want(t, http.StatusSeeOther) // the session ended
	if got := testenv.Value[string](t, s.store, "select time_zone from walhook.settings"); got != "UTC" {
		t.Errorf("the time zone is %s", got)
	}
}

// A page that is left open asks by itself, and keeps neither an idle session alive nor one that is too old.
func TestLivePagesKeepNoSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for name, age := range map[string]func(*login){
		"idle": func(l *login) { l.used = l.used.Add(-sessionIdle) },
		"old":  func(l *login) { l.begun = l.begun.Add(-sessionLife) },
	} {
		b := s.signIn(s.viewer)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", s.url+"/overview/live", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/event-stream")
		res, err := b.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		s.server.logins.mu.Lock()
		for _, entry := range s.server.logins.byID {
			age(entry)
		}
		s.server.logins.mu.Unlock()
		if _, err := io.ReadAll(res.Body); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if a := b.get("/"); a.location != "/login" {
			t.Errorf("%s: the session is still valid: %d", name, a.status)
			continue
		}
		b.header.Set("Accept", "text/event-stream")
		b.get("/overview/live").want(t, http.StatusNoContent)
	}
}

// A live part that fails later ends, without a page among its messages.
func TestLivePartFails(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	b := s.signIn(s.viewer)
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/overview/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := b.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	testenv.Exec(t, s.store, "alter view walhook.troubled_endpoint rename to troubled")
	body, err := io.ReadAll(res.Body)
	if err != nil || !strings.HasPrefix(string(body), "data: ") || strings.Contains(string(body), "<html") {
		t.Errorf("%v: %s", err, body)
	}
	if !strings.Contains(s.log.String(), "path=/overview/live") {
		t.Errorf("the log says %s", s.log.String())
	}
	if a := b.get("/overview/live"); a.status != http.StatusInternalServerError {
		t.Errorf("the next one has status %d", a.status)
	}
}

// Failed sign-ins are slowed down for a role at an address, also many at once; the right password does not help until the wait is over.
func TestFailedSignInsAreSlowedDown(t *testing.T) {
	t.Parallel()
	th := newThrottle()
	now := time.Now()
	th.now = func() time.Time { return now }
	try := func(role, address string) time.Duration { return th.begin(role, address).wait }
	allowed := 0
	for range 100 {
		if try("ada", "192.0.2.1") == 0 {
			allowed++
		}
	}
	if allowed != 5 {
		t.Errorf("%d of 100 attempts at once were let through", allowed)
	}
	waited := time.Duration(0)
	for range 8 {
		wait := try("ada", "192.0.2.1")
		if wait <= 0 || wait < waited {
			t.Errorf("after a wait of %s comes one of %s", waited, wait)
		}
		waited = wait
		now = now.Add(wait)
		if got := try("ada", "192.0.2.1"); got > 0 {
			t.Errorf("after the wait it takes another %s", got)
		}
	}
	if wait := try("ada", "192.0.2.2"); wait > 20*time.Second {
		t.Errorf("others can keep the role out for %s", wait)
	}
	if try("grace", "192.0.2.3") != 0 {
		t.Error("another role elsewhere waits")
	}
	a := th.begin("grace", "192.0.2.3")
	a.succeeded()
	for i := range 5 {
		if wait := try("grace", "192.0.2.3"); wait != 0 {
			t.Errorf("attempt %d after a success waits %s", i, wait)
		}
	}
	for i := range 40 { // one address, many roles
		waited = try(fmt.Sprint("role", i), "192.0.2.9")
	}
	if waited == 0 {
		t.Error("an address may try as many roles as it likes")
	}
}

// The server cuts the name of a role that is too long: it is no other name for the role, with attempts of its own.
func TestLongNamesOfARole(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	name := strings.Repeat("r", 63)
	testenv.Exec(t, s.store, `do $$ begin if not exists (select from pg_roles where rolname = '`+name+`') then create role `+name+` login in role walhook_viewer; end if; end $$`)
	t.Cleanup(func() { testenv.Exec(t, s.store, "drop role "+name) })
	s.browser().post("/login", url.Values{"role": {name}, "password": {"x"}}).want(t, http.StatusSeeOther)
	s.browser().post("/login", url.Values{"role": {name + "r"}, "password": {"x"}}).want(t, http.StatusUnauthorized, wrongPassword)
}

// The proxy's headers are believed from its networks alone, and only once each.
func TestProxyLogin(t *testing.T) {
	t.Parallel()
	proxy := func(networks string) func(*Config) {
		return func(c *Config) {
			c.Login = LoginProxy
			c.Proxy = Proxy{Networks: []netip.Prefix{netip.MustParsePrefix(networks)}, UserHeader: "X-Forwarded-User", GroupsHeader: "X-Forwarded-Groups"}
			c.AdminGroups, c.ViewerGroups = []string{"admins"}, []string{"support"}
		}
	}
	s := newSite(t, proxy("127.0.0.0/8"))
	as := func(user, groups string) *browser {
		b := s.browser()
		b.header.Set("X-Forwarded-User", user)
		b.header.Set("X-Forwarded-Groups", groups)
		return b
	}
	berlin := url.Values{"enabled": {"on"}, "time_zone": {"Europe/Berlin"}}
	as("grace", "staff,support").post("/settings", berlin).want(t, http.StatusForbidden)
	as("ada", "staff, admins").post("/settings", berlin).want(t, http.StatusSeeOther)
	if got := testenv.Value[string](t, s.store, "select actor from walhook.change_log order by change_id desc limit 1"); got != "ada" {
		t.Errorf("the change log names %s", got)
	}
	as("grace", "support").get("/settings").want(t, http.StatusOK, "viewer").lacks(t, ">Save</button>", "Sign out")
	as("eve", "staff").get("/").want(t, http.StatusForbidden, "in no group")
	as("", "admins").get("/").want(t, http.StatusForbidden, "did not say who you are")
	twice := as("eve", "staff")
	twice.header["X-Forwarded-Groups"] = []string{"admins", "staff"}
	twice.get("/").want(t, http.StatusForbidden, "twice")
	s.browser().post("/login", url.Values{"role": {s.admin}, "password": {s.admin}}).want(t, http.StatusNotFound)

	// From elsewhere, whatever it says of where it comes from.
	s.start(proxy("192.0.2.0/24"))
	b := as("ada", "admins")
	for _, header := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded"} {
		b.header.Set(header, "192.0.2.1")
	}
	b.get("/").want(t, http.StatusForbidden, "entered through its proxy").lacks(t, "Overview</h1>")
	b.post("/settings", url.Values{"time_zone": {"UTC"}}).want(t, http.StatusForbidden)
	if got := testenv.Value[string](t, s.store, "select time_zone from walhook.settings"); got != "Europe/Berlin" {
		t.Errorf("the time zone is %s", got)
	}
}

// Where people sign in elsewhere, a console whose role may not act for them does not start, and says what to grant.
func TestOwnRole(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	u := mustURL(t, s.store)
	u.User = url.User(s.viewer)
	_, err := New(t.Context(), Config{
		Listen: "127.0.0.1:0", StoreURL: u.String(), Login: LoginProxy, AdminGroups: []string{"admins"}, Log: slog.New(slog.DiscardHandler),
		Proxy: Proxy{UserHeader: "X-Forwarded-User", GroupsHeader: "X-Forwarded-Groups"},
	})
	if err == nil || !strings.Contains(err.Error(), `GRANT walhook_admin TO "`+s.viewer+`"`) {
		t.Errorf("it starts, or says: %v", err)
	}
}

// A way in that works once works once.
func TestOneTimeKey(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *Config) { c.OneTimeKey = "the-way-in" })
	s.browser().get("/login?key=another").want(t, http.StatusSeeOther)
	b := s.browser()
	if a := b.get("/login?key=the-way-in"); a.location != "/" {
		t.Errorf("it leads to %s", a.location)
	}
	b.get("/").want(t, http.StatusOK, "Overview")
	if a := s.browser().get("/login?key=the-way-in"); a.location != "/login" {
		t.Errorf("the second time it leads to %s", a.location)
	}
}

// Whoever is not signed in begins no session: nothing of them is kept.
func TestStrangersAreNotKept(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	b := s.browser()
	for _, path := range []string{"/", "/login", "/login?key=guessed", "/login?next=/settings", "/no/such/page"} {
		if cookie := b.get(path).header.Get("Set-Cookie"); cookie != "" {
			t.Errorf("%s begins a session: %s", path, cookie)
		}
	}
	if a := b.post("/login", url.Values{"role": {s.nobody}, "password": {"wrong"}}); a.header.Get("Set-Cookie") != "" {
		t.Errorf("a failed sign-in begins a session: %v", a.header)
	}
}

// The overview is complete without a script, shows what is wrong, and tells an EventSource what changes.
func TestOverview(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	b := s.signIn(s.viewer)
	b.get("/").want(t, http.StatusOK, "Not streaming", "no daemon is running", "No webhooks yet").lacks(t, "Add Webhook</a></p>")
	testenv.Exec(t, s.store, `insert into walhook.webhook (event_type, url) values ('response.completed', 'https://hunter2.example.com/secret?token=hunter3');
		update walhook.endpoint set failures = 7, failing_since = now() - interval '2 hours', last_error = 'connection refused';
		insert into walhook.incident_log (kind, detail) values ('slot_lost', 'the slot is gone');
		insert into walhook.log (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, event_type, kind, succeeded, response_id)
		select nextval('walhook.delivery_id'), 1, g, now(), now(), 1, 3, 0, g % 4 <> 0, g::text from generate_series(1, 1000) g`)
	b.get("/").want(t, http.StatusOK, "https://hunter2.example.com", "7 failed in a row", "2 hours", "connection refused", "Slot lost", "the slot is gone",
		"1,000 deliveries", "250 failed", `<svg class="graph"`).lacks(t, "hunter3", "/secret")
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/overview/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := b.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if kind := res.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("it is %s", kind)
	}
	reads := func(want string) {
		t.Helper()
		seen := ""
		for buf := make([]byte, 4096); !strings.Contains(seen, want); {
			n, err := res.Body.Read(buf)
			seen += string(buf[:n])
			if err != nil && !strings.Contains(seen, want) {
				t.Fatalf("%v before %q:\n%s", err, want, seen)
			}
		}
	}
	reads("connection refused")
	testenv.Exec(t, s.store, "update walhook.endpoint set last_error = 'the answer changed'")
	reads("the answer changed")
	testenv.Exec(t, s.store, `revoke walhook_viewer from "`+s.viewer+`"`)
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Errorf("after the role was revoked: %v", err)
	}
}
