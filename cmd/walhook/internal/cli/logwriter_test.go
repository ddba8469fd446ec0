package cli

import (
	"bufio"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// A log that nobody reads, and then one whose reader has gone, keep the daemon neither from sending nor from a clean stop, which SIGHUP asks for.
func TestLogThatNobodyReads(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).Attach()
	s.Hook("/hook", "created")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d := &harness.Daemon{T: t, Cmd: s.Command("run"), Log: &harness.LogBuffer{}, Exited: make(chan struct{})}
	d.Cmd.Stderr = write
	if err := d.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	go func() {
		_ = d.Cmd.Wait()
		close(d.Exited)
	}()
	t.Cleanup(d.Kill)
	lines := bufio.NewScanner(read)
	readUntil := func(text string) {
		t.Helper()
		_ = read.SetReadDeadline(time.Now().Add(harness.Patience))
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Fatalf("the log has no %q: %v", text, lines.Err())
	}
	insert := func(from, to int) {
		t.Helper()
		s.Exec("insert into respondent (id, assessment_id) select g, 1 from generate_series($1::int, $2::int) g", from, to)
		s.WaitRequests("/hook", to)
	}
	readUntil("msg=streaming")
	insert(1, 3000) // a line for each, more than pipe and buffer hold
	readUntil("dropped log lines that nobody read")
	insert(3001, 6000)
	_ = read.Close()
	insert(6001, 6100)
	stop := syscall.SIGHUP
	if signal.Ignored(stop) { // the tests run under nohup, which the daemon respects
		stop = syscall.SIGTERM
	}
	_ = d.Cmd.Process.Signal(stop)
	if status := d.Wait(); status != 0 {
		t.Errorf("the daemon ended with status %d", status)
	}
	testenv.Eventually(t, harness.Patience, "an empty queue", func() (bool, string) {
		got := testenv.Psql(t, s.Store, "select count(*) from walhook.queue")
		return got == "0", got
	})
}
