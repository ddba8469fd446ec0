package main

import (
	"io"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"

	"walhook/testenv"
)

// interrupt ends a command as Ctrl-C does.
func (d *daemon) interrupt() int {
	d.t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGINT)
	return d.wait()
}

// says waits until what a command printed matches.
func (d *daemon) says(pattern string) {
	d.t.Helper()
	testenv.Eventually(d.t, patience, pattern, func() (bool, string) {
		return regexp.MustCompile(pattern).MatchString(d.log.String()), d.log.String()
	})
}

// In a pipe status is one block after the other, goes on while the databases are away, and ends well when it is interrupted.
func TestStatusWatch(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := newSiteOn(t, server, sampleSchema).attach()
	blocks, lines := s.background("status", "--watch=100ms"), s.background("status", "--json", "--watch=100ms")
	const block = `at \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ\nfail  slot        nobody reads slot [^\n]*\nok    lag         [^\n]*\nfail  daemons     no daemon lives[^\n]*\nok    log         [^\n]*\nok    queue       0 pending\n`
	blocks.says(`^` + block + `\n` + block + `\n` + block)
	server.Kill()
	blocks.says(`\n\nat [^\n]*\nfail  store       connect to the store at [^\n]*\nfail  source      connect to [^\n]*\n\nat `)
	lines.says(`\{"at":"[^"]*","ok":false,"problems":\["connect to the store at `)
	s.up(server)
	blocks.says(`fail  (store|source)  [^\n]*\n([^\n]+\n)*\n` + block) // the server may begin to answer between the two
	lines.says(`"connect to [^\n]*\n\{"at":"[^"]*","ok":false,"problems":\["nobody reads`)
	for _, d := range []*daemon{blocks, lines} {
		if status := d.interrupt(); status != exitOK {
			t.Errorf("interrupted, it ends with status %d:\n%s", status, d.log.String())
		}
	}
	for line := range strings.Lines(lines.log.String()) {
		if got := fields(t, line); got["at"] != "string" || got["ok"] != "boolean" {
			t.Errorf("a line is %s", line)
		}
	}
	if strings.ContainsRune(blocks.log.String(), '\x1b') {
		t.Error("there are control sequences in a pipe")
	}
}

// On a terminal status is drawn in its place.
func TestStatusWatchOnTerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).attach()
	cmd := s.command("status", "--watch=100ms")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 40})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close(); _ = cmd.Process.Kill() })
	screen := &logBuffer{}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(screen, terminal) // ends with an error when the program does
	}()
	const line = "(at|ok  |fail) [^\x1b\r\n]{1,39}\x1b\\[K\r\n"
	const drawn = "\x1b\\[H(" + line + "){6}\x1b\\[J"
	testenv.Eventually(t, patience, "the status to be drawn three times", func() (bool, string) {
		return regexp.MustCompile("^\x1b\\[2J" + drawn + drawn + drawn).MatchString(screen.String()), screen.String()
	})
	// What a person types: the terminal makes a signal of it.
	if _, err := terminal.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C it ends with %v:\n%s", err, screen)
	}
	terminal.Close()
	<-copied
}

func TestRedrawStaysOnTheScreen(t *testing.T) {
	t.Parallel()
	got := string(redraw("1234567\n12\n3\n4\n", 5, 4, false))
	if diff := cmp.Diff("\x1b[H12345\x1b[K\n12\x1b[K\nand 2\x1b[K\n\x1b[J", got); diff != "" {
		t.Errorf("redraw (-want +got):\n%s", diff)
	}
	if got := string(redraw("123\n", 0, 0, true)); got != "\x1b[2J\x1b[H123\x1b[K\n\x1b[J" {
		t.Errorf("on a terminal of unknown size: %q", got)
	}
}

func TestWatchInterval(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"0s", "-1s", "1ms"} {
		_, errOut, status := call(t, "status", "--watch="+value)
		if status != exitUsage || !strings.Contains(errOut, "--watch="+value+" is not accepted: a duration of at least 100ms") {
			t.Errorf("%s: status %d: %s", value, status, errOut)
		}
	}
	var days duration
	if err := days.Set("2w1d"); err != nil || time.Duration(days) != 15*24*time.Hour {
		t.Errorf("2w1d: %s: %v", &days, err)
	}
	if _, errOut, status := call(t, "status", "--watch=often"); status != exitUsage || strings.Count(errOut, "\n") != 1 {
		t.Errorf("often: status %d: %s", status, errOut)
	}
}
