package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"walhook/testenv/pgserver"
)

// Program returns the path of a program that tests cannot download. A test that needs a missing program is skipped,
// except in CI, which installs all of them.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, name)
	}
	return path
}

// PsqlProgram is Program for psql, which packages also install in folders that are not on PATH.
func PsqlProgram(t testing.TB) string {
	t.Helper()
	path, err := findPsql(os.Getenv("PGBIN"))
	if err != nil {
		missing(t, "psql")
	}
	return path
}

// PathWithPsql returns an assignment of PATH that includes the folder of psql, for scripts that run it.
func PathWithPsql(t testing.TB) string {
	t.Helper()
	return "PATH=" + os.Getenv("PATH") + string(os.PathListSeparator) + filepath.Dir(PsqlProgram(t))
}

// Browser returns the path of a browser of the Chromium family: the one in WALHOOK_TEST_BROWSER, or one on PATH.
func Browser(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("WALHOOK_TEST_BROWSER"); path != "" {
		found, err := exec.LookPath(path)
		if err != nil {
			t.Fatalf("WALHOOK_TEST_BROWSER is %s: %v", path, err)
		}
		return found
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell", "headless_shell"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing(t, "Chromium or Chrome (on PATH, or its path in WALHOOK_TEST_BROWSER)")
	return ""
}

// NeedsVersion skips a test of a feature that the server's version of PostgreSQL does not have.
func NeedsVersion(t testing.TB, server *pgserver.Server, since int, what string) {
	t.Helper()
	if server.Version() < since {
		t.Skipf("%s: since PostgreSQL %d; the server is %d", what, since/10000, server.Version()/10000)
	}
}

func missing(t testing.TB, name string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed, and CI runs every test", name)
	}
	t.Skipf("needs %s, which is not installed", name)
}
