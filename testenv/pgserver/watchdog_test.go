//go:build unix

package pgserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// When a process is killed, its server and the server's files are removed, whether the server was running or not.
func TestNothingOutlivesItsParent(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"running", "killed"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			parent := exec.Command(os.Args[0])
			parent.Env = append(os.Environ(), startAndWait+"="+state)
			stdin, err := parent.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			stdout, err := parent.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := parent.Start(); err != nil {
				t.Fatal(err)
			}
			var postmaster, watchdog int
			var base string
			_, scanErr := fmt.Fscanln(stdout, &postmaster, &watchdog, &base)
			_ = parent.Process.Kill()
			_ = parent.Wait()
			if scanErr != nil {
				t.Fatal(scanErr)
			}
			gone := func() bool {
				_, err := os.Stat(base)
				table := processes()
				return errors.Is(err, fs.ErrNotExist) && ended(table, postmaster) && ended(table, watchdog)
			}
			until(30*time.Second, gone)
			if !gone() {
				t.Errorf("postmaster %d, watchdog %d or %s is left behind", postmaster, watchdog, base)
			}
		})
	}
}

func ended(table map[int]process, pid int) bool {
	p, ok := table[pid]
	return !ok || p.state == 'Z'
}

// Ctrl-C in a terminal signals the foreground process group, which contains neither the server nor its watchdog.
func TestServerHasItsOwnProcessGroup(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	for _, pid := range []int{s.PID(), s.watchdog.cmd.Process.Pid} {
		if group, err := syscall.Getpgid(pid); err != nil || group != pid {
			t.Errorf("process %d is in group %d, %v", pid, group, err)
		}
	}
}
