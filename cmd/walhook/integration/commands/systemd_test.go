package commands

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"walhook/cmd/walhook/internal/harness"
)

// A unit with Type=notify counts as started once the daemon streams or stands by; until then, and after, systemd shows what it does. The
// watchdog hears from it.
func TestSystemdIsNotified(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Attach()
	// await reads what a daemon sends until it sends the last of the wanted, which must come in this order.
	type manager struct {
		d     *harness.Daemon
		await func(wanted ...string) (all []string)
	}
	start := func() manager {
		folder, err := os.MkdirTemp("", "n") // the path of a socket is short
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(folder) })
		address := &net.UnixAddr{Name: filepath.Join(folder, "s"), Net: "unixgram"}
		socket, err := net.ListenUnixgram("unixgram", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { socket.Close() })
		lines := make(chan string, 10000) // read at once, as systemd does: a sender waits while a socket is full
		go func() {
			for buffer := make([]byte, 4096); ; {
				n, err := socket.Read(buffer)
				if err != nil {
					return
				}
				for line := range strings.Lines(string(buffer[:n])) {
					lines <- strings.TrimSuffix(line, "\n")
				}
			}
		}()
		s.Extra = []string{"NOTIFY_SOCKET=" + address.Name, "WATCHDOG_USEC=200000"}
		return manager{s.Start(), func(wanted ...string) (all []string) {
			t.Helper()
			for len(wanted) > 0 {
				select {
				case line := <-lines:
					all = append(all, line)
					if strings.HasPrefix(line, wanted[0]) {
						wanted = wanted[1:]
					}
				case <-time.After(harness.Patience):
					t.Fatalf("systemd did not hear %q, after %q", wanted[0], all)
				}
			}
			return all
		}}
	}

	first := start()
	first.await("STATUS=starting", "READY=1", "STATUS=streaming", "WATCHDOG=1", "WATCHDOG=1")
	second := start()
	second.await("READY=1", "STATUS=standing by: ")
	if status := first.d.Stop(); status != 0 {
		t.Errorf("the first ended with status %d", status)
	}
	first.await("STOPPING=1", "STATUS=stopping")
	again := second.await("STATUS=streaming")
	if slices.Contains(again, "READY=1") {
		t.Errorf("a daemon that takes over is ready a second time: %q", again)
	}
	second.d.Stop()

	s.With("DATABASE_URL", "postgres://walhook@127.0.0.1:1/app?connect_timeout=1")
	waits := start()
	before := waits.await("STATUS=waiting: ", "WATCHDOG=1", "WATCHDOG=1")
	if slices.Contains(before, "READY=1") {
		t.Errorf("a daemon that waits for its database is ready: %q", before)
	}
}
