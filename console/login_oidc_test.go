package console

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"walhook/testenv"
)

// withOIDC configures a console for the provider. It asks about the person's groups at each request.
func withOIDC(p *provider) func(*Config) {
	return func(c *Config) {
		c.Login = LoginOIDC
		c.OIDC = OIDC{Issuer: p.server.URL, ClientID: "walhook", ClientSecret: "s3cret", GroupsClaim: "groups"}
		c.AdminGroups, c.ViewerGroups = []string{"admins"}, []string{"support"}
	}
}

// toProvider begins to sign in, and returns the address at the console to which the provider sends the browser back.
func (b *browser) toProvider(next string) string {
	b.t.Helper()
	there := b.get("/login/start?next=" + url.QueryEscape(next))
	if there.status != http.StatusSeeOther {
		b.t.Fatalf("the console does not lead to the provider: %d %s", there.status, there.body)
	}
	res, err := b.client.Get(there.location)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	back := res.Header.Get("Location")
	if !strings.HasPrefix(back, b.url+"/login/callback?") {
		b.t.Fatalf("the provider leads to %q", back)
	}
	return strings.TrimPrefix(back, b.url)
}

// People sign in at the provider; their groups, and what they may do, change with it.
func TestOIDCLogin(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	s := newSite(t, withOIDC(p))
	s.server.oidc.recheck = 0
	b := s.browser()
	b.get("/login").want(t, http.StatusOK, `href="/login/start?next=%2f"`, ">Sign in</a>").lacks(t, "Password")
	if a := b.get(b.toProvider("/settings")); a.status != http.StatusSeeOther || a.location != "/settings" {
		t.Fatalf("signed in: %d %s\n%s", a.status, a.location, a.body)
	}
	b.get("/settings").want(t, http.StatusOK, "ada@example.com", ">Save</button>")
	b.post("/settings", url.Values{"enabled": {"on"}, "time_zone": {"Europe/Berlin"}}).want(t, http.StatusSeeOther)
	if got := testenv.Value[string](t, s.store, "select actor from walhook.change_log order by change_id desc limit 1"); got != "ada@example.com" {
		t.Errorf("the change log names %s", got)
	}

	p.set(func(p *provider) { p.groups = []string{"support"} })
	b.get("/settings").want(t, http.StatusOK, "viewer").lacks(t, ">Save</button>")
	b.post("/settings", url.Values{"time_zone": {"UTC"}}).want(t, http.StatusForbidden)
	p.set(func(p *provider) { p.groups = []string{"staff"} })
	b.get("/settings").want(t, http.StatusSeeOther)
	p.set(func(p *provider) { p.groups = []string{"admins"} })
	b.get("/settings").want(t, http.StatusSeeOther) // the session has ended

	b.get(b.toProvider("/")).want(t, http.StatusSeeOther)
	b.get("/").want(t, http.StatusOK)
	p.set(func(p *provider) { p.groups = nil }) // some providers leave the claim out
	b.get("/").want(t, http.StatusSeeOther)
	p.set(func(p *provider) { p.groups = []string{"admins"} })

	b.get(b.toProvider("/")).want(t, http.StatusSeeOther)
	b.get("/").want(t, http.StatusOK)
	p.set(func(p *provider) { p.blocked = true })
	b.get("/").want(t, http.StatusSeeOther)
	p.set(func(p *provider) { p.blocked = false })

	b.get(b.toProvider("/")).want(t, http.StatusSeeOther)
	b.post("/logout", nil).want(t, http.StatusSeeOther)
	b.get("/").want(t, http.StatusSeeOther)
	b.post("/login", url.Values{"role": {s.admin}, "password": {s.admin}}).want(t, http.StatusNotFound)
}

// A session ends with the ID token if the provider tells nothing later.
func TestOIDCSessionEndsWithItsToken(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	p.noDetails = true
	p.change = func(claims map[string]any) { claims["exp"] = time.Now().Add(3 * time.Second).Unix() }
	b := newSite(t, withOIDC(p)).browser()
	b.get(b.toProvider("/")).want(t, http.StatusSeeOther)
	b.get("/").want(t, http.StatusOK)
	testenv.Eventually(t, 20*time.Second, "the session to end", func() (bool, string) { return b.get("/").status == http.StatusSeeOther, "" })
}

// A sign-in that did not begin in this browser, a token for somebody else, and a code that was used are refused.
func TestOIDCRefusals(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	s := newSite(t, withOIDC(p))
	for name, change := range map[string]func(map[string]any){
		"another nonce":    func(c map[string]any) { c["nonce"] = "replayed" },
		"no nonce":         func(c map[string]any) { delete(c, "nonce") },
		"another audience": func(c map[string]any) { c["aud"] = "another-client" },
		"another issuer":   func(c map[string]any) { c["iss"] = "https://evil.example" },
		"expired":          func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() },
	} {
		p.set(func(p *provider) { p.change = change })
		b := s.browser()
		if a := b.get(b.toProvider("/")); a.status != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		b.get("/").want(t, http.StatusSeeOther)
	}
	p.set(func(p *provider) { p.change = nil })
	attacker, victim := s.browser(), s.browser()
	back := attacker.toProvider("/")
	victim.get(back).want(t, http.StatusForbidden, "not begun here")
	victim.toProvider("/")
	victim.get(back).want(t, http.StatusForbidden, "not begun here")
	victim.get("/").want(t, http.StatusSeeOther)
	attacker.get(back).want(t, http.StatusSeeOther)
	attacker.get(back).want(t, http.StatusForbidden) // a second time
	p.set(func(p *provider) { p.groups = []string{"staff"} })
	b := s.browser()
	b.get(b.toProvider("/")).want(t, http.StatusForbidden, "in no group")
	b.get(b.toProvider("//evil.example")).lacks(t, "evil.example")
	b.get("/login/callback?error=access_denied").want(t, http.StatusForbidden)
	p.server.Close()
	s.start(withOIDC(p))
	s.browser().get("/login/start").want(t, http.StatusServiceUnavailable, "does not answer")
}

// An address of which the provider does not say that it is the person's names nobody, however the provider writes that.
func TestUnverifiedAddress(t *testing.T) {
	t.Parallel()
	for _, unverified := range []any{false, "false", "no", 0} {
		claims := map[string]any{"email": "root@example.com", "email_verified": unverified, "preferred_username": "eve"}
		if got := nameOf(claims, "person-1"); got != "eve" {
			t.Errorf("with %#v it is %s", unverified, got)
		}
	}
	for _, verified := range []any{true, "true", nil} {
		if got := nameOf(map[string]any{"email": "ada@example.com", "email_verified": verified}, "person-1"); got != "ada@example.com" {
			t.Errorf("with %#v it is %s", verified, got)
		}
	}
}

// The words of a group's name are no groups.
func TestGroupsInOneText(t *testing.T) {
	t.Parallel()
	s := &Server{cfg: Config{AdminGroups: []string{"admins", ""}, ViewerGroups: []string{"Customer support"}}}
	o := &oidcLogin{cfg: OIDC{GroupsClaim: "groups"}}
	for claim, want := range map[string]string{
		"admins": roleAdmin, "staff, admins": roleAdmin, "Customer support": roleViewer, "Sports club admins": "", "": "",
	} {
		groups, found := o.groups(map[string]any{"groups": claim})
		if got := s.groupRole(groups); got != want || !found {
			t.Errorf("%q gives %q, not %q", claim, got, want)
		}
	}
}
