package testenv

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// psqlPatience bounds a script. It is only reached if something is wrong.
const psqlPatience = 2 * time.Minute

// Errors that stand for psql's exit statuses: no connection, or a failed statement.
var (
	errConnect   = errors.New("exit status 2")
	errStatement = errors.New("exit status 3")
)

// Psql runs a script as psql does, and returns what psql prints: unaligned, tuples only. It stops at the first error.
// A session of this process runs it, which costs a fraction of a psql; only a script with backslash commands needs
// psql itself, and the test is skipped if psql is not installed.
func Psql(t testing.TB, url, script string) string {
	t.Helper()
	out, err := TryPsql(t, url, script)
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	return out
}

// TryPsql is Psql for scripts that are expected to fail; the output includes the error.
func TryPsql(t testing.TB, url, script string) (string, error) {
	t.Helper()
	if strings.Contains(script, `\`) {
		return runInPsql(PsqlProgram(t), url, script)
	}
	return runInSession(url, script)
}

func runInPsql(path, url, script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), psqlPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", url)
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	return strings.TrimRight(string(out), "\n"), err
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
