package commands

import (
	"io"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"

	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// interrupt stops a command like Ctrl-C.
func interrupt(d *harness.Daemon) int {
	d.T.Helper()
	_ = d.Cmd.Process.Signal(syscall.SIGINT)
	return d.Wait()
}

// says waits until a command's output matches.
func says(d *harness.Daemon, pattern string) {
	d.T.Helper()
	testenv.Eventually(d.T, harness.Patience, pattern, func() (bool, string) {
		return regexp.MustCompile(pattern).MatchString(d.Log.String()), d.Log.String()
	})
}

// In a pipe, status prints one block after the other, continues while the databases are unavailable, and exits cleanly
// when interrupted.
func TestStatusWatch(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, server, harness.SampleSchema).Attach()
	blocks, lines := s.Background("status", "--watch=100ms"), s.Background("status", "--json", "--watch=100ms")
	const block = `at \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ\nfail  slot        nobody reads slot [^\n]*\nok    lag         [^\n]*\nfail  daemons     no daemon is running[^\n]*\nok    log         [^\n]*\nok    queue       0 pending\n`
	says(blocks, `^`+block+`\n`+block+`\n`+block)
	server.Kill()
	says(blocks, `\n\nat [^\n]*\nfail  store       connect to the store at [^\n]*\nfail  source      connect to [^\n]*\n\nat `)
	says(lines, `\{"at":"[^"]*","ok":false,"problems":\["connect to the store at `)
	s.Up(server)
	says(blocks, `fail  (store|source)  [^\n]*\n([^\n]+\n)*\n`+block) // the server may start to answer between the two
	says(lines, `"connect to [^\n]*\n\{"at":"[^"]*","ok":false,"problems":\["nobody reads`)
	for _, d := range []*harness.Daemon{blocks, lines} {
		if status := interrupt(d); status != cli.ExitOK {
			t.Errorf("interrupted, it exits with status %d:\n%s", status, d.Log.String())
		}
	}
	for line := range strings.Lines(lines.Log.String()) {
		if got := harness.Fields(t, line); got["at"] != "string" || got["ok"] != "boolean" {
			t.Errorf("a line is %s", line)
		}
	}
	if strings.ContainsRune(blocks.Log.String(), '\x1b') {
		t.Error("the pipe contains control sequences")
	}
}

// On a terminal, status redraws in place.
func TestStatusWatchOnTerminal(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).Attach()
	cmd := s.Command("status", "--watch=100ms")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 40})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close(); _ = cmd.Process.Kill() })
	screen := &harness.LogBuffer{}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(screen, terminal) // ends with an error when the program does
	}()
	const line = "(at|ok  |fail) [^\x1b\r\n]{1,39}\x1b\\[K\r\n"
	const drawn = "\x1b\\[H(" + line + "){6}\x1b\\[J"
	testenv.Eventually(t, harness.Patience, "the status to be drawn three times", func() (bool, string) {
		return regexp.MustCompile("^\x1b\\[2J" + drawn + drawn + drawn).MatchString(screen.String()), screen.String()
	})
	// Typed input: the terminal turns it into a signal.
	if _, err := terminal.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C it exits with %v:\n%s", err, screen)
	}
	terminal.Close()
	<-copied
}

func TestRedrawStaysOnTheScreen(t *testing.T) {
	t.Parallel()
	got := string(cli.Redraw("1234567\n12\n3\n4\n", 5, 4, false))
	if diff := cmp.Diff("\x1b[H12345\x1b[K\n12\x1b[K\nand 2\x1b[K\n\x1b[J", got); diff != "" {
		t.Errorf("redraw (-want +got):\n%s", diff)
	}
	if got := string(cli.Redraw("123\n", 0, 0, true)); got != "\x1b[2J\x1b[H123\x1b[K\n\x1b[J" {
		t.Errorf("on a terminal of unknown size: %q", got)
	}
}
