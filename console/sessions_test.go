package console

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"walhook/testenv"
)

// balancer is one address for several consoles. Each request goes to another one.
type balancer struct {
	url string

	mu       sync.Mutex
	consoles []*url.URL
	turn     int
}

func newBalancer(t *testing.T) *balancer {
	t.Helper()
	b := &balancer{}
	server := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.turn++
		r.SetURL(b.consoles[b.turn%len(b.consoles)])
		r.Out.Host = r.In.Host
	}})
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

func (b *balancer) to(t *testing.T, consoles ...string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.consoles = nil
	for _, console := range consoles {
		b.consoles = append(b.consoles, mustURL(t, console))
	}
}

// before configures a console that browsers reach at the balancer's address.
func (b *balancer) before(t *testing.T, configure func(*Config)) func(*Config) {
	return func(c *Config) {
		configure(c)
		c.URL = mustURL(t, b.url)
	}
}

// Whoever signed in with OpenID Connect is signed in on every console, also on one that starts later, and signs out everywhere.
func TestSessionsOfManyConsoles(t *testing.T) {
	t.Parallel()
	p, lb := newProvider(t), newBalancer(t)
	configure := lb.before(t, withOIDC(p))
	s := newSite(t, configure)
	first, stopFirst := s.url, s.stop
	stopSecond := s.start(configure)
	second := s.url
	lb.to(t, first, second)
	s.url = lb.url
	signIn := func() *browser {
		t.Helper()
		b := s.browser()
		b.get(b.toProvider("/settings")).want(t, http.StatusSeeOther)
		for range 4 {
			b.get("/settings").want(t, http.StatusOK, "ada@example.com", ">Save</button>")
		}
		return b
	}
	b := signIn()
	for range 2 { // what the next page says comes along, whichever console serves it
		b.post("/settings", url.Values{"enabled": {"on"}, "time_zone": {"UTC"}}).want(t, http.StatusSeeOther)
		b.get("/settings").want(t, http.StatusOK, "Settings saved.")
		b.get("/settings").lacks(t, "Settings saved.")
	}
	token := b.client.Jar.Cookies(mustURL(t, lb.url))[0].Value
	kept := testenv.Psql(t, s.store, "select string_agg(to_jsonb(c)::text || encode(c.sealed, 'escape'), '') from walhook.console_session c")
	if !strings.Contains(kept, "ada@example.com") || strings.Contains(kept, token) || strings.Contains(kept, "access") {
		t.Errorf("the store keeps %s", kept)
	}

	stopFirst()
	stopSecond()
	s.start(configure)
	third := s.url
	s.start(configure)
	fourth := s.url
	lb.to(t, third, fourth)
	for range 4 {
		b.get("/settings").want(t, http.StatusOK, "ada@example.com")
	}
	s.url = lb.url

	// One of them ends the session, also for a live part of a page that another one serves.
	thief := &browser{t: t, url: fourth, client: &http.Client{CheckRedirect: b.client.CheckRedirect}, header: http.Header{"Cookie": {"walhook=" + token}}}
	thief.get("/settings").want(t, http.StatusOK)
	req, err := http.NewRequestWithContext(t.Context(), "GET", fourth+"/overview/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Cookie": thief.header["Cookie"], "Accept": {"text/event-stream"}}
	live, err := thief.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Body.Close()
	b.url = third
	b.post("/logout", nil).want(t, http.StatusSeeOther)
	if text, err := io.ReadAll(live.Body); err != nil || live.StatusCode != http.StatusOK {
		t.Errorf("the live part: %d %v %s", live.StatusCode, err, text)
	}
	thief.get("/settings").want(t, http.StatusSeeOther)

	for name, end := range map[string]func(){
		"idle": func() {
			testenv.Exec(t, s.store, "update walhook.console_session set seen_at = now() - interval '31 minutes'")
		},
		"too old": func() { testenv.Exec(t, s.store, "update walhook.console_session set expires_at = now()") },
		"in no group any more": func() {
			p.set(func(p *provider) { p.groups = []string{"staff"} })
			testenv.Exec(t, s.store, "update walhook.console_session set asked_at = now() - interval '46 seconds'")
		},
		"blocked": func() {
			p.set(func(p *provider) { p.blocked = true })
			testenv.Exec(t, s.store, "update walhook.console_session set asked_at = now() - interval '46 seconds'")
		},
	} {
		p.set(func(p *provider) { p.groups, p.blocked = []string{"admins"}, false })
		b := signIn()
		end()
		for range 2 {
			if a := b.get("/settings"); a.location != "/login?next=%2Fsettings" {
				t.Errorf("%s: the session still works: %d %s", name, a.status, a.location)
			}
		}
		if a := b.get("/login?next=%2Fsettings"); !strings.Contains(a.body, "Your session has ended") && !strings.Contains(a.body, "may no longer enter") {
			t.Errorf("%s: it does not say why: %s", name, a.body)
		}
	}
	if err := s.server.stored.reap(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := testenv.Psql(t, s.store, "select count(*) from walhook.console_session"); got != "0" {
		t.Errorf("%s sessions are kept", got)
	}
}

// One request of many asks the provider, and others go on meanwhile. A provider that does not answer ends no session at once.
func TestProviderIsAskedByOne(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	s := newSite(t, withOIDC(p))
	b := s.browser()
	b.get(b.toProvider("/")).want(t, http.StatusSeeOther)
	asked := func() int { p.mu.Lock(); defer p.mu.Unlock(); return p.asked }
	before := asked()
	testenv.Exec(t, s.store, "update walhook.console_session set asked_at = now() - interval '46 seconds'")
	var requests sync.WaitGroup
	for range 8 {
		requests.Go(func() { b.get("/settings").want(t, http.StatusOK) })
	}
	requests.Wait()
	if n := asked() - before; n != 1 {
		t.Errorf("the provider is asked %d times", n)
	}
	p.server.Close()
	testenv.Exec(t, s.store, "update walhook.console_session set asked_at = now() - interval '46 seconds'")
	b.get("/settings").want(t, http.StatusOK)
	testenv.Exec(t, s.store, "update walhook.console_session set asked_at = now() - interval '46 seconds', named_at = now() - interval '6 minutes'")
	b.get("/settings").want(t, http.StatusSeeOther)
}

// Thousands who begin to sign in at the provider, and never come back, leave nothing behind.
func TestBegunSignInsAreNotKept(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	s := newSite(t, withOIDC(p))
	var strangers sync.WaitGroup
	for range 4 {
		strangers.Go(func() {
			client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			for range 500 {
				res, err := client.Get(s.url + "/login/start?next=/settings")
				if err != nil {
					t.Error(err)
					return
				}
				res.Body.Close()
				if res.StatusCode != http.StatusSeeOther {
					t.Errorf("status %d", res.StatusCode)
				}
			}
		})
	}
	strangers.Wait()
	if n := len(s.server.logins.byID); n != 0 {
		t.Errorf("the console keeps %d sessions", n)
	}
	if got := testenv.Psql(t, s.store, "select count(*) from walhook.console_session"); got != "0" {
		t.Errorf("the store keeps %s sessions", got)
	}
	b := s.browser()
	b.get(b.toProvider("/settings")).want(t, http.StatusSeeOther)
	b.get("/settings").want(t, http.StatusOK)
	b = s.browser()
	b.get(b.toProvider("/settings?a="+strings.Repeat("a", 8000))).want(t, http.StatusSeeOther)
}

// A sign-in that has begun is what a console wrote, and not for long.
func TestBegunSignInsAreSealed(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	s := newSite(t, withOIDC(p))
	at := mustURL(t, s.url)
	for name, forge := range map[string]func(value string) string{
		"altered": func(value string) string {
			return strings.Map(func(r rune) rune { return r ^ 1 }, value[:8]) + value[8:]
		},
		"cut":   func(value string) string { return value[:len(value)/2] },
		"empty": func(string) string { return "x" },
		"another console's secret": func(string) string {
			other, err := newOIDCLogin(OIDC{ClientSecret: "guessed"}, "")
			if err != nil {
				t.Fatal(err)
			}
			return sealSignIn(t, other, signIn{State: "s", Until: time.Now().Add(time.Hour)})
		},
		"too old": func(string) string {
			return sealSignIn(t, s.server.oidc, signIn{State: "s", Until: time.Now().Add(-time.Second)})
		},
	} {
		b := s.browser()
		back := b.toProvider("/")
		value := b.client.Jar.Cookies(at)[0].Value
		b.client.Jar, _ = cookiejar.New(nil)
		b.client.Jar.SetCookies(at, []*http.Cookie{{Name: "walhook-signin", Value: forge(value)}})
		if a := b.get(back); a.status != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if a := b.get("/login/callback?code=x&state=s"); a.status != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

func sealSignIn(t *testing.T, o *oidcLogin, begun signIn) string {
	t.Helper()
	value, err := o.seal(begun)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// A password is not stored. Whoever signed in with one signs in again after a restart, is told why, and gets the page that they wanted.
func TestRestartWithDatabaseLogin(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	b := s.signIn(s.admin)
	s.stop()
	s.start(nil)
	b.url = s.url
	a := b.get("/deliveries?status=failed")
	if a.status != http.StatusSeeOther || a.location != "/login?next=%2Fdeliveries%3Fstatus%3Dfailed" {
		t.Fatalf("%d %s", a.status, a.location)
	}
	b.get(a.location).want(t, http.StatusOK, "Your session has ended", "the console was restarted", `name="next" value="/deliveries?status=failed"`)
	b.get(a.location).lacks(t, "Your session has ended")
	b.header.Set("Referer", s.url+"/webhooks/7")
	if a = b.post("/webhooks/7/test", nil); a.location != "/login?next=%2Fwebhooks%2F7" {
		t.Errorf("a form leads to %s", a.location)
	}
	b.header.Set("Referer", "https://evil.example/webhooks/7")
	if a = b.post("/webhooks/7/test", nil); a.location != "/login" {
		t.Errorf("a form of another site leads to %s", a.location)
	}
	s.browser().get("/login").lacks(t, "Your session has ended")
}

// Somebody who signs in again and again keeps the newest sessions.
func TestSessionsOfOnePersonAreBounded(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	s := newSite(t, withOIDC(p))
	var first, last *browser
	for i := range loginsPerName + 2 {
		last = s.browser()
		last.get(last.toProvider("/")).want(t, http.StatusSeeOther)
		if i == 0 {
			first = last
		}
	}
	first.get("/settings").want(t, http.StatusSeeOther)
	last.get("/settings").want(t, http.StatusOK)
	l := newLogins()
	for i := range loginsPerName + 2 {
		l.add(idOf(fmt.Sprint(i)), &login{name: "ada"})
	}
	if l.get(idOf("0"), false) != nil || l.get(idOf(fmt.Sprint(loginsPerName+1)), false) == nil || len(l.byID) != loginsPerName {
		t.Errorf("%d sessions are kept", len(l.byID))
	}
}

// However many people are signed in, and however many pages they leave open, the console has a bounded number of connections and answers.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	const most = 3
	s.server.connections = newConnections(most, s.server.logins.shed)
	s.server.liveParts = make(chan struct{}, 2*most)
	people := make([]*browser, 4*most)
	for i := range people {
		people[i] = s.signIn([]string{s.viewer, s.admin}[i%2])
	}
	opened := 0
	for _, b := range people {
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/overview/live", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/event-stream")
		res, err := b.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		switch res.StatusCode {
		case http.StatusOK:
			opened++
		case http.StatusServiceUnavailable:
		default:
			t.Errorf("status %d", res.StatusCode)
		}
	}
	if opened != 2*most {
		t.Errorf("%d live parts are open", opened)
	}
	for _, b := range people {
		b.get("/").want(t, http.StatusOK, "Overview")
	}
	if n := testenv.Value[int64](t, s.store, "select count(*) from pg_stat_activity where datname = current_database() and usename in ('"+s.viewer+"', '"+s.admin+"')"); n > most {
		t.Errorf("%d connections are open", n)
	}
}

// If all connections are in use, a page says so instead of hanging, and a sign-in that fails for it does not count as a failed one.
func TestNoConnectionIsLeft(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	b := s.signIn(s.viewer)
	c := newConnections(1, func() {})
	c.patience = time.Millisecond
	c.slots <- struct{}{}
	s.server.connections = c
	for range 8 {
		s.browser().post("/login", url.Values{"role": {s.admin}, "password": {s.admin}}).want(t, http.StatusServiceUnavailable, "All connections of the console to the store are in use")
	}
	<-c.slots
	s.signIn(s.admin)
	b.get("/").want(t, http.StatusOK) // the session's own pool is older than the bound of this test
}

// A console that acts for everybody with a role of its own says so, too, if its connections stay in use.
func TestOwnConnectionsAreInUse(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	s := newSite(t, withOIDC(p))
	b := s.browser()
	b.get(b.toProvider("/")).want(t, http.StatusSeeOther)
	var held []*pgxpool.Conn
	for range poolConns {
		conn, err := s.server.pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	b.get("/settings").want(t, http.StatusServiceUnavailable, "All connections of the console to the store are in use")
	for _, conn := range held {
		conn.Release()
	}
	b.get("/settings").want(t, http.StatusOK)
}
