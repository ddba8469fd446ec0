package documents

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// platformSite is an installation as automation platforms meet it: a console, an API key for it, and an application
// that records responses.
type platformSite struct {
	*harness.Site
	address     string // of the console
	key         string
	application string // records a finish of response N at POST /responses/N
}

func newPlatformSite(t *testing.T, key string) *platformSite {
	t.Helper()
	s := &platformSite{Site: harness.NewSite(t, harness.SampleSchema)}
	s.Run()
	at := harness.FreePort(t)
	console := s.With("STORE_URL", s.As("walhook_admin"), "CONSOLE_LISTEN", at).Background("console")
	testenv.Eventually(t, harness.Patience, "the console to listen", func() (bool, string) {
		return strings.Contains(console.Log.String(), "serving the console"), console.Log.String()
	})
	s.address = "http://" + at
	s.key = testenv.Value[string](t, s.Store, "select walhook.create_api_key($1)", key)

	conn := testenv.Connect(t, s.DB)
	var mu sync.Mutex // a connection does one thing at a time
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if _, err := conn.Exec(r.Context(), `
			insert into respondent as r (id, assessment_id, started_at, finished_at) values ($1::text::bigint, 17, now(), now())
			    on conflict (id) do update set finished_at = r.finished_at + interval '1 second'`,
			strings.TrimPrefix(r.URL.Path, "/responses/")); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(application.Close)
	s.application = application.URL
	return s
}

// npmPatience bounds the installation of packages, and a run of tests.
const npmPatience = 10 * time.Minute

// TestZapier runs the tests of examples/zapier, in Zapier's own core.
func TestZapier(t *testing.T) {
	t.Parallel()
	project := installNode(t, "../../../examples/zapier")
	npmTest(t, project, newPlatformSite(t, "Zapier"))
}

// TestN8n builds examples/n8n against n8n-workflow, and runs its tests.
func TestN8n(t *testing.T) {
	t.Parallel()
	project := installNode(t, "../../../examples/n8n")
	npmTest(t, project, newPlatformSite(t, "n8n"))
}

// installNode copies a project of Node.js and installs its packages there, so that the checkout stays as it is.
func installNode(t *testing.T, folder string) string {
	t.Helper()
	testenv.Program(t, "npm")
	version, err := exec.CommandContext(t.Context(), testenv.Program(t, "node"), "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if major, _, _ := strings.Cut(strings.TrimPrefix(string(version), "v"), "."); len(major) < 2 || major < "20" {
		lacks(t, "needs Node.js 20 or later; this is "+strings.TrimSpace(string(version)))
	}
	project := t.TempDir()
	if err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		name, relErr := filepath.Rel(folder, path)
		switch {
		case err != nil:
			return err
		case relErr != nil:
			return relErr
		case entry.IsDir() && (name == "node_modules" || name == "dist"):
			return filepath.SkipDir
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(project, name), 0o700)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(project, name), content, 0o600)
	}); err != nil {
		t.Fatal(err)
	}
	// Whoever installs it uses the registry that npm is configured for.
	lock, err := os.ReadFile(filepath.Join(project, "package-lock.json"))
	if err != nil || strings.Contains(string(lock), `"resolved"`) {
		t.Errorf("package-lock.json names a registry; see .npmrc: %v", err)
	}
	if out, err := npm(t, project, nil, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline",
		"--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=10000"); err != nil {
		if os.Getenv("CI") != "" {
			t.Log(out)
		}
		first, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
		lacks(t, fmt.Sprintf("needs packages from npm: %v, %s", err, first))
	}
	return project
}

// lacks skips a test because of what this machine lacks. In CI, which must have everything, it fails the test.
func lacks(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// npmTest runs the tests of a project, which find the site in their environment.
func npmTest(t *testing.T, project string, s *platformSite) {
	t.Helper()
	env := []string{"WALHOOK_ADDRESS=" + s.address, "WALHOOK_API_KEY=" + s.key, "APPLICATION=" + s.application}
	if out, err := npm(t, project, env, "test"); err != nil {
		t.Errorf("npm test: %v\n%s", err, out)
	} else if !strings.Contains(out, "# fail 0") || strings.Contains(out, "# tests 0") {
		t.Errorf("npm test ran nothing:\n%s", out)
	}
}

func npm(t *testing.T, project string, env []string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), npmPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = project, append(os.Environ(), env...), 5*time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}
