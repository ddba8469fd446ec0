package pgserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// init creates the data directory.
func (s *Server) init(ctx context.Context) error {
	args := []string{"-D", s.DataDir(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"}
	if s.options.SegmentMB != 0 {
		args = append(args, fmt.Sprintf("--wal-segsize=%d", s.options.SegmentMB))
	}
	cmd := program(ctx, s.as, s.bin, "initdb", args...)
	cmd.Dir = s.base
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s/initdb: %w\n%s", s.bin, err, out)
	}
	return nil
}

// program prepares one of the server's programs to run as the server's user, in its own process group, so that Ctrl-C
// reaches this process first.
func program(ctx context.Context, as *account, dir, name string, args ...string) *exec.Cmd {
	path := name // found on PATH if there is no folder
	if dir != "" {
		path = filepath.Join(dir, name)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	// Unpacked archives have their libraries next to the programs.
	if lib := filepath.Join(filepath.Dir(dir), "lib"); dir != "" && isDir(lib) && !strings.HasPrefix(lib, "/usr/lib/") {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+lib)
	}
	cmd.SysProcAttr = as.attributes()
	return cmd
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// tempDir returns the folder for temporary files, or /tmp if its name is too long or the server's user has no access.
func tempDir(as *account) string {
	dir := os.TempDir()
	if len(dir) >= 50 || as != nil && !openToAll(dir) {
		return "/tmp"
	}
	return dir
}

// openToAll reports whether every user may access a folder and all its parents.
func openToAll(dir string) bool {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		above := filepath.Dir(dir)
		if above == dir {
			return true
		}
		dir = above
	}
}
