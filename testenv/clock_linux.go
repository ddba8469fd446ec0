package testenv

import (
	_ "embed"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

//go:embed testdata/clock.c
var clockSource []byte

// Clock is the wall clock of a server, which may differ from the machine's. Start the server with its Env.
type Clock struct {
	t    testing.TB
	file string
	Env  []string
}

// NewClock returns a clock that is ahead of the machine's by an offset. It needs a C compiler.
func NewClock(t testing.TB, offset time.Duration) *Clock {
	t.Helper()
	compiler := Program(t, "cc")
	dir, err := os.MkdirTemp("", "walhook-clock-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	source, library, file := filepath.Join(dir, "clock.c"), filepath.Join(dir, "clock.so"), filepath.Join(dir, "offset")
	c := &Clock{t: t, file: file, Env: []string{"LD_PRELOAD=" + library, "CLOCK_OFFSET=" + file}}
	if err := os.WriteFile(source, clockSource, 0o644); err != nil {
		t.Fatal(err)
	}
	c.Set(offset)
	// The server runs as another user.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	compile := exec.CommandContext(t.Context(), compiler, "-shared", "-fPIC", "-O", "-o", library, source, "-ldl")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("compile the clock: %v\n%s", err, out)
	}
	return c
}

// Set makes the clock jump to another offset.
func (c *Clock) Set(offset time.Duration) {
	c.t.Helper()
	f, err := os.OpenFile(c.file, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(offset/time.Second)), 0); err != nil {
		c.t.Fatal(err)
	}
}
