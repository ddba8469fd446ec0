package console

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walhook/testenv"
)

// Members of the group roles enter, and nobody else; each sees what they may.
func TestDatabaseLogin(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.browser().get("/").want(t, http.StatusSeeOther)
	s.browser().get("/login").want(t, http.StatusOK, `<label for="role">Role</label>`, `<label for="password">Password</label>`, ">Sign in</button>")
	s.signIn(s.admin).get("/settings").want(t, http.StatusOK, "Use Webhooks", "Time zone", ">Save</button>")
	s.signIn(s.viewer).get("/settings").want(t, http.StatusOK, "Use Webhooks").lacks(t, ">Save</button>")
	s.browser().post("/login", map[string][]string{"role": {s.nobody}, "password": {s.nobody}}).want(t, http.StatusForbidden, "walhook_viewer")
}

// A wrong password, and a role that does not exist, are refused alike; after some of them the role waits. With its password a role may
// come from anywhere; without the database asking for one, from the console's machine alone.
func TestPasswords(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	rules := "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(server.DataDir(), "pg_hba.conf"), []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	testenv.Exec(t, server.URL("postgres"), "select pg_reload_conf()")
	s := newSiteOn(t, server, nil)
	testenv.Eventually(t, 20*time.Second, "the rules to hold", func() (bool, string) {
		err := testenv.TryExec(strings.Replace(s.store, "postgres@", s.viewer+":wrong@", 1), "select 1")
		return err != nil, "any password will do"
	})
	remote := func() *browser {
		b := s.browser()
		b.header.Set("X-Forwarded-For", "192.0.2.7")
		return b
	}
	if a := remote().post("/login", url.Values{"role": {s.admin}, "password": {s.admin}}); a.status != http.StatusSeeOther {
		t.Errorf("with the password: %d %s", a.status, a.body)
	}
	remote().post("/login", url.Values{"role": {"postgres"}, "password": {"anything"}}).want(t, http.StatusForbidden, "asks this role for no password")
	unknown := s.browser().post("/login", url.Values{"role": {"no_such_role"}, "password": {"wrong"}}).want(t, http.StatusUnauthorized, wrongPassword)
	for range 5 {
		wrong := s.browser().post("/login", url.Values{"role": {s.admin}, "password": {"wrong"}}).want(t, http.StatusUnauthorized, wrongPassword)
		if strings.ReplaceAll(wrong.body, s.admin, "no_such_role") != unknown.body {
			t.Errorf("the page tells roles that exist from others:\n%s\n%s", wrong.body, unknown.body)
		}
	}
	a := s.browser().post("/login", url.Values{"role": {s.admin}, "password": {s.admin}})
	if a.want(t, http.StatusTooManyRequests, "Too many failed attempts").header.Get("Retry-After") == "" {
		t.Error("it does not say when to try again")
	}
	s.signIn(s.viewer) // others are not kept out
	// Over a Unix-domain socket the server may know the console by its operating-system user, and everybody on the machine would be that.
	socket := *mustURL(t, s.store)
	socket.RawQuery = url.Values{"host": {testenv.Value[string](t, s.store, "show unix_socket_directories")}, "port": {socket.Port()}}.Encode()
	socket.Host = ""
	s.start(func(c *Config) { c.StoreURL = socket.String() })
	s.browser().post("/login", url.Values{"role": {"postgres"}, "password": {"anything"}}).want(t, http.StatusForbidden, "asks this role for no password")
	if strings.Contains(s.log.String(), "wrong") {
		t.Errorf("the log has a password:\n%s", s.log.String())
	}
}
