package pgserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// oldest is the oldest major version that walhook supports.
const oldest = 14

var versionText = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// usualFolders are where packages install the server's programs.
var usualFolders = []string{
	"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/usr/libexec/postgresql*", "/usr/local/bin",
	"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin", "/Applications/Postgres.app/Contents/Versions/*/bin",
}

// find returns a folder with initdb and postgres of the wanted major version (0: any): PGBIN, the folder on PATH, the
// usual folders, newest first, or otherwise a download.
func find(ctx context.Context, want int, as *account, progress func(string)) (string, error) {
	if dir := os.Getenv("PGBIN"); dir != "" {
		return named(ctx, dir, want, as)
	}
	var others []string
	for _, dir := range candidates() {
		v := major(ctx, dir, as)
		switch {
		case v >= oldest && (want == 0 || v == want):
			return dir, nil
		case v != 0:
			others = append(others, fmt.Sprintf("%d in %s", v, dir))
		}
	}
	progress("no PostgreSQL " + wording(want) + " was found on this machine; downloading one")
	dir, err := download(ctx, want, as)
	if err != nil {
		found := "nothing"
		if others != nil {
			found = "only " + strings.Join(others, ", ")
		}
		return "", fmt.Errorf("find PostgreSQL %s: PATH and the usual folders (%s) hold %s, and the download failed: %w; "+
			"install PostgreSQL's server, or set PGBIN to the folder that holds its initdb and postgres",
			wording(want), strings.Join(usualFolders, ", "), found, err)
	}
	return dir, nil
}

// named returns the folder in PGBIN, or what is wrong with it.
func named(ctx context.Context, dir string, want int, as *account) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find PostgreSQL: %w", err)
	}
	switch v := major(ctx, dir, as); {
	case v == 0:
		return "", fmt.Errorf(
			"find PostgreSQL: PGBIN is %s, which has no initdb and postgres that the server's user can run; "+
				"set it to a folder with both", dir,
		)
	case v < oldest || want != 0 && v != want:
		return "", fmt.Errorf("find PostgreSQL: PGBIN is %s, which has version %d instead of %s", dir, v, wording(want))
	}
	return dir, nil
}

func wording(want int) string {
	if want == 0 {
		return strconv.Itoa(oldest) + " or later"
	}
	return strconv.Itoa(want)
}

// candidates returns the folders to search, best first.
func candidates() []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// It may be a link in a folder without initdb and libraries.
		if target, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, pattern := range usualFolders {
		found, _ := filepath.Glob(pattern)
		slices.Sort(found)
		slices.Reverse(found)
		dirs = append(dirs, found...)
	}
	return dirs
}

// major returns the version of the server in a folder, or 0 if there is none that the server's user can run.
func major(ctx context.Context, dir string, as *account) int {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return 0
	}
	cmd := program(ctx, as, dir, "postgres", "--version")
	cmd.Dir = "/"
	out, err := cmd.Output()
	if err != nil {
		return 0
	}
	match := versionText.FindSubmatch(out)
	if match == nil {
		return 0
	}
	v, _ := strconv.Atoi(string(match[1]))
	return v
}
