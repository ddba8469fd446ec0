package browser

import (
	"net/url"
	"os"
	"regexp"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// installation is a site with a console on it.
type installation struct {
	*harness.Site
	url           string // of the console
	admin, viewer string // roles; the server asks for no password
}

// application is a sample application with the names of its assessments.
const application = harness.SampleSchema + `
update assessment set title = case id when 1 then 'Fire safety' else 'Draft' end;`

// newInstallation attaches and starts a console.
func newInstallation(t *testing.T) *installation {
	t.Helper()
	s := harness.NewSite(t, application).With(
		"ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_NAME", "title", "MAX_ATTEMPTS", "2", "CONSOLE_LISTEN", "127.0.0.1:0",
	).Attach()
	console := s.Background("console")
	i := &installation{Site: s, admin: userOf(t, s.As("walhook_admin")), viewer: userOf(t, s.As("walhook_viewer"))}
	testenv.Eventually(t, harness.Patience, "the console to listen", func() (bool, string) {
		if match := serving.FindStringSubmatch(console.Log.String()); match != nil {
			i.url = match[1]
		}
		return i.url != "", console.Log.String()
	})
	return i
}

var serving = regexp.MustCompile(`serving the console" .*url=(\S+)`)

func userOf(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	return u.User.Username()
}

// newGallery is an installation that shows everything there is, without a daemon that would change it.
func newGallery(t *testing.T) *installation {
	t.Helper()
	i := newInstallation(t)
	script, err := os.ReadFile("testdata/gallery.sql")
	if err != nil {
		t.Fatal(err)
	}
	testenv.Exec(t, i.Store, string(script))
	testenv.Exec(t, i.Store, "create role ada login in role walhook_admin")
	t.Cleanup(func() { testenv.Exec(t, i.Store, "drop owned by ada; drop role ada") })
	i.admin = "ada"
	lock := testenv.Connect(t, i.Store)
	if _, err := lock.Exec(t.Context(), "select pg_advisory_lock(x'77686b64'::int, max(id)::int) from walhook.daemon"); err != nil {
		t.Fatal(err)
	}
	return i
}

// signIn signs a role in at the page that asks for it.
func (b *tab) signIn(role string) {
	b.t.Helper()
	b.open("/")
	b.at("/login")
	b.fill("Role", role)
	b.fill("Password", "any")
	b.follow("Sign in")
	b.sees("Overview")
}
