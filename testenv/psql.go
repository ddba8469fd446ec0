package testenv

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Psql runs a script with psql, like people do, and returns its output: unaligned, tuples only. It stops at the first
// error. If psql is not installed, a session of this process runs the script and prints the same.
func Psql(t testing.TB, url, script string) string {
	t.Helper()
	out, err := TryPsql(t, url, script)
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	return out
}

// TryPsql is Psql for scripts that are expected to fail; the output includes the error. A script with backslash commands needs
// psql itself: without it, the test is skipped.
func TryPsql(t testing.TB, url, script string) (string, error) {
	t.Helper()
	if strings.Contains(script, `\`) { // may change psql's settings, and where its input ends
		cmd := psqlCommand(PsqlProgram(t), url)
		cmd.Stdin = strings.NewReader(script)
		out, err := cmd.CombinedOutput()
		return strings.TrimRight(string(out), "\n"), err
	}
	path, err := findPsql(os.Getenv("PGBIN"))
	if err != nil {
		return runInSession(url, script)
	}
	return runInPsql(path, url, script)
}

func psqlCommand(path, url string) *exec.Cmd {
	return exec.Command(path, "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", url)
}

// findPsql returns the psql in the folder of the server's programs, on PATH, or the newest in the usual folders.
func findPsql(pgbin string) (string, error) {
	if pgbin != "" {
		// Servers that were unpacked rather than installed often have none.
		if path, err := exec.LookPath(filepath.Join(pgbin, "psql")); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath("psql"); err == nil {
		return path, nil
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin/psql", "/usr/pgsql-*/bin/psql", "/usr/local/pgsql/bin/psql",
		"/opt/homebrew/opt/*/bin/psql",
	} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return slices.Max(found), nil
		}
	}
	return "", errors.New("psql is neither in PGBIN nor on PATH nor in the usual folders")
}
