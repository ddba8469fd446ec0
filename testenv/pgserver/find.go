package pgserver

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

var versionText = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// find returns a folder that holds initdb and postgres of the wanted major version (0: any): the one that PGBIN names, the one
// on PATH, the usual folders, newest first, and else a download.
func find(ctx context.Context, want int, progress func(string)) (string, error) {
	if dir := os.Getenv("PGBIN"); dir != "" {
		if major(ctx, dir) == 0 {
			return "", fmt.Errorf("PGBIN is %s, and no postgres can be run there", dir)
		}
		return dir, nil
	}
	for _, dir := range candidates() {
		if v := major(ctx, dir); v != 0 && (want == 0 || v == want) && v >= 14 {
			return dir, nil
		}
	}
	progress("no PostgreSQL was found on this machine; downloading one")
	dir, err := download(want)
	if err != nil {
		return "", fmt.Errorf("find PostgreSQL: neither PGBIN nor PATH nor the usual folders hold initdb and postgres, and the download failed: %w; "+
			"install PostgreSQL 14 or later, or set PGBIN to the folder of its programs", err)
	}
	return dir, nil
}

func candidates() []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/usr/local/opt/postgresql@*/bin",
		"/opt/homebrew/opt/postgresql@*/bin", "/Applications/Postgres.app/Contents/Versions/*/bin", "/usr/local/bin",
	} {
		found, _ := filepath.Glob(pattern)
		slices.Sort(found)
		slices.Reverse(found)
		dirs = append(dirs, found...)
	}
	return dirs
}

// major returns the version of the server in a folder, 0 where there is none.
func major(ctx context.Context, dir string) int {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return 0
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
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

// download fetches a server with embedded-postgres, which keeps it in its cache, and returns its folder of programs.
func download(want int) (string, error) {
	version := map[int]embeddedpostgres.PostgresVersion{
		14: embeddedpostgres.V14, 15: embeddedpostgres.V15, 16: embeddedpostgres.V16, 17: embeddedpostgres.V17,
	}[want]
	if version == "" {
		version = embeddedpostgres.V17
	}
	home, err := os.UserCacheDir()
	if err != nil {
		home = os.TempDir()
	}
	base := filepath.Join(home, "walhook-postgres", string(version))
	if _, err := os.Stat(filepath.Join(base, "bin", "postgres")); err == nil {
		return filepath.Join(base, "bin"), nil
	}
	// Starting it once is its only way to unpack. Its data directory is thrown away.
	port, err := freePort()
	if err != nil {
		return "", err
	}
	pg := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().Version(version).BinariesPath(base).
		RuntimePath(filepath.Join(base, "runtime")).Port(uint32(port)).Logger(io.Discard))
	startErr := pg.Start()
	if startErr == nil {
		_ = pg.Stop()
	}
	if _, err := os.Stat(filepath.Join(base, "bin", "postgres")); err == nil {
		return filepath.Join(base, "bin"), nil // as root it unpacks, and cannot start what it unpacked
	}
	return "", startErr
}
