package pgserver

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fakeBin makes a folder whose postgres tells a version.
func fakeBin(t *testing.T, dir, version string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// A child forked by another test while the file is open would hold it open too, and the kernel runs no such file (ETXTBSY).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	for name, script := range map[string]string{"initdb": "#!/bin/sh\n", "postgres": "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// PGBIN is obeyed or refused, and never passed over in silence.
func TestPGBIN(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, c := range []struct {
		name, version string
		want          int
		refusal       string
	}{
		{name: "any", version: "16.4"},
		{name: "wanted", version: "17.1 (Debian 17.1-1)", want: 17},
		{name: "other", version: "16.4", want: 17, refusal: "holds version 16, and wanted is 17"},
		{name: "old", version: "13.9", refusal: "holds version 13, and wanted is 14 or later"},
		{name: "beta", version: "19beta1", want: 19},
	} {
		dir := fakeBin(t, filepath.Join(root, c.name), c.version)
		got, err := named(t.Context(), dir, c.want, nil)
		if c.refusal == "" && (err != nil || got != dir) || c.refusal != "" && (err == nil || !strings.Contains(err.Error(), c.refusal)) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	if _, err := named(t.Context(), filepath.Join(root, "nowhere"), 0, nil); err == nil || !strings.Contains(err.Error(), "set it to the folder that holds both") {
		t.Errorf("an empty PGBIN gives %v", err)
	}
}

// On PATH there may be nothing but links, as Debian's administrators make them.
func TestFindFollowsLinks(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	target := fakeBin(t, filepath.Join(root, "17", "bin"), "17.2")
	links := filepath.Join(root, "links")
	if err := os.Mkdir(links, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(target, "postgres"), filepath.Join(links, "postgres")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGBIN", "")
	t.Setenv("PATH", links)
	if got, err := find(t.Context(), 17, nil, func(string) {}); err != nil || got != target {
		t.Errorf("found %q, %v", got, err)
	}
}

// A folder is open to all only if everything above it is.
func TestOpenToAll(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(t.TempDir(), "closed")
	within := filepath.Join(closed, "within")
	if err := os.MkdirAll(within, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{"/": true, within: false, filepath.Join(within, "missing"): false} {
		if got := openToAll(dir); got != want {
			t.Errorf("%s: %v", dir, got)
		}
	}
}
