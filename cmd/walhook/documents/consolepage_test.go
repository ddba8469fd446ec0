package documents

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// The roles of the page on the console are enough: one signs in, and the console acts as the other for people whom a proxy names.
func TestConsolePage(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, server, harness.SampleSchema).Attach()
	for _, b := range readBlocks(t, "../../../docs/how-to/console.md") {
		testenv.Psql(t, s.Store, b.code)
	}
	for _, login := range []struct {
		env  []string
		open func(*http.Client, string) (*http.Response, error)
	}{
		{[]string{"STORE_URL", s.Store}, func(browser *http.Client, at string) (*http.Response, error) {
			return browser.PostForm(at+"/login", url.Values{"role": {"ada"}, "password": {"a long one"}, "next": {"/settings"}})
		}},
		{
			[]string{
				"STORE_URL", harness.UserOf(t, s.Store, "walhook_console"), "CONSOLE_LOGIN", "proxy", "PROXY_NETWORKS", "127.0.0.0/8",
				"ADMIN_GROUPS", "platform-admins",
			},
			func(browser *http.Client, at string) (*http.Response, error) {
				req, err := http.NewRequest("GET", at+"/settings", nil)
				if err != nil {
					return nil, err
				}
				req.Header.Set("X-Forwarded-User", "ada@example.com")
				req.Header.Set("X-Forwarded-Groups", "staff,platform-admins")
				return browser.Do(req)
			},
		},
	} {
		at := harness.FreePort(t)
		delete(s.Env, "DATABASE_URL")
		d := s.With(append(login.env, "CONSOLE_LISTEN", at)...).Background("console")
		testenv.Eventually(t, harness.Patience, "the console to listen", func() (bool, string) {
			return strings.Contains(d.Log.String(), "serving the console"), d.Log.String()
		})
		jar, _ := cookiejar.New(nil)
		res, err := login.open(&http.Client{Jar: jar}, "http://"+at)
		if err != nil {
			t.Fatal(err)
		}
		page, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK || !strings.Contains(string(page), "Use Webhooks") || !strings.Contains(string(page), ">Save<") {
			t.Errorf("%v: status %d: %s", login.env, res.StatusCode, page)
		}
		if status := d.Stop(); status != 0 {
			t.Errorf("%v: SIGTERM ends it with status %d: %s", login.env, status, d.Log.String())
		}
	}
}

var psqlCommand = regexp.MustCompile(`-c (?:"([^"]*)"|'([^']*)')`)

// The console of each example has a role of its own, which the example's statements create, and which is enough.
func TestConsolesOfExamples(t *testing.T) {
	t.Parallel()
	manifests := map[string]string{}
	for _, secret := range decodeAll[manifest](t, "../../../examples/kubernetes/secret.yaml") {
		manifests[secret.Metadata.Name] = secret.StringData["WALHOOK_STORE_URL"]
	}
	unit := readFile(t, "../../../examples/systemd/walhook-console.service")
	compose := decodeAll[composeFile](t, "../../../docker-compose.yml")[0].Services
	statements := func(text string) (statements []string) {
		for line := range strings.Lines(text) {
			for _, command := range psqlCommand.FindAllStringSubmatch(line, -1) {
				if strings.Contains(command[0], "walhook_console") {
					statements = append(statements, command[1]+command[2])
				}
			}
		}
		return statements
	}
	for name, c := range map[string]struct {
		url           string
		before, after []string
		people        string
	}{
		"kubernetes": {manifests["walhook-console"], nil, statements(readFile(t, "../../../examples/kubernetes/README.md")), "walhook_console"},
		"systemd":    {regexp.MustCompile(`WALHOOK_STORE_URL=(\S+)`).FindStringSubmatch(unit)[1], nil, statements(unit), "walhook_console"},
		"compose":    {compose["console"].Environment["WALHOOK_STORE_URL"], []string{readFile(t, "../../../examples/compose/console-role.sql")}, nil, "administrator"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, err := url.Parse(c.url)
			if err != nil || u.User.Username() != "walhook_console" {
				t.Fatalf("the console connects at %q: %v", c.url, err)
			}
			server := testenv.NewServer(t, nil)
			for _, statement := range c.before {
				testenv.Psql(t, server.URL("postgres"), statement)
			}
			s := harness.NewSiteOn(t, server, harness.SampleSchema).Attach()
			for _, statement := range c.after {
				testenv.Psql(t, s.Store, statement)
			}
			at := harness.FreePort(t)
			delete(s.Env, "DATABASE_URL")
			d := s.With("STORE_URL", harness.UserOf(t, s.Store, u.User.Username()), "CONSOLE_LISTEN", at).Background("console")
			testenv.Eventually(t, harness.Patience, "the console to be ready", func() (bool, string) {
				res, err := http.Get("http://" + at + "/readyz")
				if err != nil {
					return false, d.Log.String()
				}
				defer res.Body.Close()
				reason, _ := io.ReadAll(res.Body)
				return string(reason) == "ready\n", string(reason)
			})
			jar, _ := cookiejar.New(nil)
			res, err := (&http.Client{Jar: jar}).PostForm("http://"+at+"/login", url.Values{"role": {c.people}, "password": {"walhook"}, "next": {"/settings"}})
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if page, _ := io.ReadAll(res.Body); !strings.Contains(string(page), ">Save<") {
				t.Errorf("%s signs in: %d %s", c.people, res.StatusCode, page)
			}
		})
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
