package main

import (
	"bufio"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"walhook/testenv"
)

// A log that nobody reads, and then one whose reader has gone, keep the daemon neither from sending nor from a clean stop, which SIGHUP asks for.
func TestLogThatNobodyReads(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).attach()
	s.hook("/hook", "created")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, cmd: s.command("run"), log: &logBuffer{}, exited: make(chan struct{})}
	d.cmd.Stderr = write
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	go func() {
		_ = d.cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(d.kill)
	lines := bufio.NewScanner(read)
	readUntil := func(text string) {
		t.Helper()
		_ = read.SetReadDeadline(time.Now().Add(patience))
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Fatalf("the log has no %q: %v", text, lines.Err())
	}
	insert := func(from, to int) {
		t.Helper()
		s.exec("insert into respondent (id, assessment_id) select g, 1 from generate_series($1::int, $2::int) g", from, to)
		s.waitRequests("/hook", to)
	}
	readUntil("msg=streaming")
	insert(1, 3000) // a line for each, more than pipe and buffer hold
	readUntil("dropped log lines that nobody read")
	insert(3001, 6000)
	_ = read.Close()
	insert(6001, 6100)
	_ = d.cmd.Process.Signal(syscall.SIGHUP)
	if status := d.wait(); status != 0 {
		t.Errorf("the daemon ended with status %d", status)
	}
	testenv.Eventually(t, patience, "an empty queue", func() (bool, string) {
		got := testenv.Psql(t, s.store, "select count(*) from walhook.queue")
		return got == "0", got
	})
}
