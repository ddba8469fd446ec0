package documents

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
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
