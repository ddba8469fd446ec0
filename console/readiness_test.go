package console

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"walhook/session"
	"walhook/sql"
	"walhook/testenv"
)

// A console whose store has another schema says so instead of serving broken pages, and recovers once the schema has its own version.
func TestStoreOfAnotherVersion(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	current := testenv.Value[int](t, s.store, "select version from walhook.schema_version")
	key := testenv.Value[string](t, s.store, "select walhook.create_api_key('Zapier')")
	b := s.signIn(s.admin)
	at := func(version int) {
		t.Helper()
		testenv.Exec(t, s.store, fmt.Sprintf("comment on table walhook.schema_version is 'Internal: the version of this schema; as it was installed: %d'", version))
	}
	api := s.browser()
	api.header.Set("X-API-Key", key)
	for version, advice := range map[int]string{current - 1: "run `walhook attach` to upgrade it", current + 1: "use the newer walhook that upgraded it"} {
		at(version)
		b.get("/webhooks").want(t, http.StatusServiceUnavailable, fmt.Sprintf("version %d", version), advice)
		b.post("/settings", url.Values{"time_zone": {"Europe/Berlin"}}).want(t, http.StatusServiceUnavailable, advice)
		s.browser().post("/login", url.Values{"role": {s.admin}, "password": {s.admin}}).want(t, http.StatusServiceUnavailable, advice)
		testenv.Eventually(t, time.Minute, "the API and /readyz to say so", func() (bool, string) {
			a, ready := api.get("/api/v1/me"), s.browser().get("/readyz")
			return a.status == http.StatusServiceUnavailable && strings.Contains(a.body, advice) && a.header.Get("Retry-After") != "" &&
				ready.status == http.StatusServiceUnavailable && strings.Contains(ready.body, advice), fmt.Sprint(a, ready)
		})
		s.browser().get("/healthz").want(t, http.StatusOK)
	}
	at(current - 1)
	s.start(nil) // it starts, and waits
	late := s.browser()
	late.post("/login", url.Values{"role": {s.admin}, "password": {s.admin}}).want(t, http.StatusServiceUnavailable)
	if !strings.Contains(s.log.String(), "pages report it until it is upgraded") {
		t.Errorf("the log says %s", s.log)
	}
	at(current)
	b.get("/webhooks").want(t, http.StatusOK)
	late.post("/login", url.Values{"role": {s.admin}, "password": {s.admin}}).want(t, http.StatusSeeOther)
	testenv.Eventually(t, time.Minute, "the API and /readyz to work again", func() (bool, string) {
		a, ready := api.get("/api/v1/me"), late.get("/readyz")
		return a.status == http.StatusOK && ready.status == http.StatusOK, fmt.Sprint(a, ready)
	})
	if got := testenv.Value[string](t, s.store, "select time_zone from walhook.settings"); got != "UTC" {
		t.Errorf("the time zone is %s", got)
	}
}

// A console may start before walhook attach, and says what is missing until it has run.
func TestStoreWithoutSchema(t *testing.T) {
	t.Parallel()
	store := testenv.Database(t, testenv.NewServer(t, nil), "") // which has no group roles
	s := &site{t: t, store: store, log: &logBuffer{}}
	s.start(func(c *Config) {
		c.Login, c.AdminGroups = LoginProxy, []string{"admins"}
		c.Proxy = Proxy{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, UserHeader: "X-Forwarded-User", GroupsHeader: "X-Forwarded-Groups"}
	})
	b := s.browser()
	b.header.Set("X-Forwarded-User", "ada")
	b.header.Set("X-Forwarded-Groups", "admins")
	b.get("/").want(t, http.StatusServiceUnavailable, "run `walhook attach` first")
	conn, err := session.Connect(t.Context(), store, "the store")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := sql.Install(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	b.get("/").want(t, http.StatusOK, "Overview")
	testenv.Eventually(t, time.Minute, "the console to notice", func() (bool, string) {
		return b.get("/readyz").status == http.StatusOK && strings.Contains(s.log.String(), "store is ready"), s.log.String()
	})
}

// People who sign in with their own role do not need the console's; the API does, and says so at the start and in its answers.
func TestAPIWithoutARole(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	key := testenv.Value[string](t, s.store, "select walhook.create_api_key('Zapier')")
	own := mustURL(t, s.store)
	own.User = url.User(s.nobody)
	s.start(func(c *Config) { c.StoreURL = own.String() })
	if log := s.log.String(); strings.Count(log, `GRANT walhook_admin TO \"`+s.nobody+`\"`) != 1 || !strings.Contains(log, "HTTP API is not available") {
		t.Errorf("the log says %s", log)
	}
	api := s.browser()
	api.header.Set("X-API-Key", key)
	a := api.get("/api/v1/me").want(t, http.StatusServiceUnavailable, "not a member of walhook_admin")
	if a.header.Get("Content-Type") != "application/problem+json" || a.header.Get("Retry-After") == "" || strings.Contains(a.body, s.nobody) {
		t.Errorf("%v: %s", a.header, a.body)
	}
	s.browser().get("/readyz").want(t, http.StatusOK, "the API cannot be used").lacks(t, s.nobody)
	s.signIn(s.admin).get("/").want(t, http.StatusOK)
	testenv.Exec(t, s.store, `grant walhook_admin to "`+s.nobody+`"`)
	testenv.Eventually(t, time.Minute, "the API to work", func() (bool, string) {
		a := api.get("/api/v1/me")
		return a.status == http.StatusOK, a.body
	})
	s.browser().get("/readyz").want(t, http.StatusOK, "ready")
}

// Where the console acts for people, it says so to them if its role may not do so any more.
func TestOwnRoleIsRevoked(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	own := mustURL(t, s.store)
	own.User = url.User(s.admin)
	s.start(func(c *Config) {
		c.StoreURL, c.Login, c.AdminGroups = own.String(), LoginProxy, []string{"admins"}
		c.Proxy = Proxy{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, UserHeader: "X-Forwarded-User", GroupsHeader: "X-Forwarded-Groups"}
	})
	b := s.browser()
	b.header.Set("X-Forwarded-User", "ada")
	b.header.Set("X-Forwarded-Groups", "admins")
	b.get("/").want(t, http.StatusOK, "Overview")
	testenv.Exec(t, s.store, `revoke walhook_admin from "`+s.admin+`"`)
	b.get("/").want(t, http.StatusServiceUnavailable, "console&#39;s role may not act for the people who sign in").lacks(t, s.admin)
	testenv.Eventually(t, time.Minute, "the log and /readyz to say so", func() (bool, string) {
		return b.get("/readyz").status == http.StatusServiceUnavailable && strings.Contains(s.log.String(), `GRANT walhook_admin`), s.log.String()
	})
}
