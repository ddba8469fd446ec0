package pgserver

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fakeBin creates a folder with a postgres that reports a version.
func fakeBin(t *testing.T, dir, version string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// A child forked by another test while the file is open would keep it open, and the kernel refuses to run such a file
	// (ETXTBSY).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	for name, script := range map[string]string{"initdb": "#!/bin/sh\n", "postgres": "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// PGBIN is used or refused, never silently ignored.
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
		{name: "other", version: "16.4", want: 17, refusal: "has version 16 instead of 17"},
		{name: "old", version: "13.9", refusal: "has version 13 instead of 14 or later"},
		{name: "beta", version: "19beta1", want: 19},
	} {
		dir := fakeBin(t, filepath.Join(root, c.name), c.version)
		got, err := named(t.Context(), dir, c.want, nil)
		if c.refusal == "" && (err != nil || got != dir) || c.refusal != "" && (err == nil || !strings.Contains(err.Error(), c.refusal)) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	if _, err := named(t.Context(), filepath.Join(root, "nowhere"), 0, nil); err == nil || !strings.Contains(err.Error(), "set it to a folder with both") {
		t.Errorf("an empty PGBIN gives %v", err)
	}
}

// PATH may contain only links, as Debian's administrators create them.
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

// A folder is accessible only if all its parents are.
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
