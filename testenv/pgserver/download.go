package pgserver

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

var downloads = map[int]embeddedpostgres.PostgresVersion{
	0:  embeddedpostgres.V17,
	14: embeddedpostgres.V14, 15: embeddedpostgres.V15, 16: embeddedpostgres.V16, 17: embeddedpostgres.V17, 18: embeddedpostgres.V18,
}

// download downloads a server with embedded-postgres to the user's cache, and returns the folder of its programs.
func download(ctx context.Context, want int, as *account) (string, error) {
	version, ok := downloads[want]
	if !ok {
		return "", fmt.Errorf("there is no download of PostgreSQL %d", want)
	}
	cache, err := cacheDir(as)
	if err != nil {
		return "", err
	}
	kept := filepath.Join(cache, string(version))
	if major(ctx, filepath.Join(kept, "bin"), as) != 0 {
		return filepath.Join(kept, "bin"), nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unpacked, err := os.MkdirTemp(cache, "unpack-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(unpacked)
	port, err := FreePort()
	if err != nil {
		return "", err
	}
	// It unpacks only when it starts a server. As root it unpacks, and then fails to start the server.
	programs := filepath.Join(unpacked, "pg")
	pg := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().Version(version).BinariesPath(programs).
		RuntimePath(filepath.Join(unpacked, "run")).Port(uint32(port)).Logger(io.Discard))
	startErr := pg.Start()
	if startErr == nil {
		_ = pg.Stop()
	}
	if err := os.Chmod(unpacked, 0o755); err != nil {
		return "", err
	}
	if startErr != nil && (as == nil || !isDir(filepath.Join(programs, "share")) || major(ctx, filepath.Join(programs, "bin"), as) == 0) {
		return "", startErr
	}
	// The first process moves the complete folder into place; others find it there.
	if err := os.Rename(programs, kept); err != nil && !isDir(filepath.Join(kept, "bin")) {
		return "", err
	}
	return filepath.Join(kept, "bin"), nil
}

// cacheDir returns the folder for downloads; for root, one that the server's user can access.
func cacheDir(as *account) (string, error) {
	if as != nil {
		return "/var/cache/walhook-postgres", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "walhook-postgres"), nil
}
