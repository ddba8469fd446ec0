package console

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"testing"

	"walhook/sql"
	"walhook/testenv"
	"walhook/testenv/pgserver"
)

// site is a store with walhook's schema, a console on it, and the roles of some people. Every role's password is its name.
type site struct {
	t                     *testing.T
	store                 string // URL as a superuser
	url                   string // of the console
	admin, viewer, nobody string // roles
	log                   *logBuffer
	server                *Server
	stop                  func() // the first console
}

// newSite starts a console with login database. configure, if not nil, may change its configuration.
func newSite(t *testing.T, configure func(*Config)) *site {
	t.Helper()
	return newSiteOn(t, testenv.Postgres(t), configure)
}

// newSiteOn is newSite with a store on a given server.
func newSiteOn(t *testing.T, server *pgserver.Server, configure func(*Config)) *site {
	t.Helper()
	store := testenv.Clone(t, server, testenv.Template(t, server, "installed", sql.Install))
	s := &site{t: t, store: store, log: &logBuffer{}}
	s.admin, s.viewer, s.nobody = s.role("admin", "walhook_admin"), s.role("viewer", "walhook_viewer"), s.role("nobody", "")
	s.stop = s.start(configure)
	return s
}

// role creates a login role, a member of the group. Roles belong to the whole server, so its name is one that no other test has.
func (s *site) role(name, group string) string {
	s.t.Helper()
	name += "_of_" + strings.Trim(mustURL(s.t, s.store).Path, "/")
	testenv.Exec(s.t, s.store, `create role "`+name+`" login password '`+name+`'`)
	if group != "" {
		testenv.Exec(s.t, s.store, `grant `+group+` to "`+name+`"`)
	}
	s.t.Cleanup(func() { testenv.Exec(s.t, s.store, `drop owned by "`+name+`"; drop role "`+name+`"`) })
	return name
}

// start starts a console, which ends with the test unless it is stopped before.
func (s *site) start(configure func(*Config)) (stop func()) {
	s.t.Helper()
	cfg := Config{
		Listen: "127.0.0.1:0", StoreURL: s.store, Login: LoginDatabase, Version: "test",
		Log: slog.New(slog.NewTextHandler(s.log, nil)),
	}
	if configure != nil {
		configure(&cfg)
	}
	server, err := New(s.t.Context(), cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.server, s.url = server, "http://"+server.listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(func() {
		stop()
		if s.t.Failed() {
			s.t.Log(s.log.String())
		}
	})
	return stop
}

// browser keeps cookies and follows no redirect.
type browser struct {
	t      *testing.T
	url    string
	client *http.Client
	header http.Header // sent with every request
}

func (s *site) browser() *browser {
	jar, _ := cookiejar.New(nil)
	return &browser{s.t, s.url, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, http.Header{}}
}

// signIn returns a browser in which the role is signed in.
func (s *site) signIn(role string) *browser {
	s.t.Helper()
	b := s.browser()
	if a := b.post("/login", url.Values{"role": {role}, "password": {role}}); a.status != http.StatusSeeOther || a.location != "/" {
		s.t.Fatalf("sign in as %s: %d %s\n%s", role, a.status, a.location, a.body)
	}
	return b
}

// answer is a response.
type answer struct {
	status         int
	location, body string
	header         http.Header
}

func (b *browser) get(path string) answer { b.t.Helper(); return b.do("GET", path, nil) }

// post sends a form, as a page of the console itself would.
func (b *browser) post(path string, form url.Values) answer {
	b.t.Helper()
	if form == nil {
		form = url.Values{}
	}
	return b.do("POST", path, form)
}

func (b *browser) do(method, path string, form url.Values) answer {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for name, values := range b.header {
		req.Header[name] = values
	}
	res, err := b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header.Get("Location"), string(body), res.Header}
}

// want fails the test unless the answer has the status, and its body all of the texts.
func (a answer) want(t *testing.T, status int, texts ...string) answer {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, not %d: %.2000s", a.status, status, a.body)
	}
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			t.Errorf("the page lacks %q:\n%.6000s", text, a.body)
		}
	}
	return a
}

// lacks fails the test if the body has one of the texts.
func (a answer) lacks(t *testing.T, texts ...string) answer {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(a.body, text) {
			t.Errorf("the page has %q:\n%.6000s", text, a.body)
		}
	}
	return a
}

func mustURL(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
