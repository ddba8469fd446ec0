package pgserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Halt stops the server with a signal and waits until it exits: SIGTERM is a smart shutdown, SIGINT a fast and SIGQUIT
// an immediate one. If it has not exited after 20 s, for instance because a replication client receives nothing, it is
// killed. The data is kept for Restart.
func (s *Server) Halt(signal syscall.Signal) { s.halt(signal, 20*time.Second) }

// HaltImmediately stops the server like a crash: the next start recovers. The data is kept for Restart.
func (s *Server) HaltImmediately() { s.Halt(syscall.SIGQUIT) }

func (s *Server) halt(signal syscall.Signal, patience time.Duration) {
	if !s.Running() {
		return
	}
	_ = s.cmd.Process.Signal(signal)
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.Kill()
	}
}

// Kill kills the server and all its processes with SIGKILL, and returns when they are gone, so that it can be
// restarted. The data is kept for Restart.
func (s *Server) Kill() {
	if !s.Running() {
		return
	}
	killFamily(s.cmd.Process)
	<-s.exited
}

// Stop stops the server, running or not, and removes all its files. It may be called repeatedly.
func (s *Server) Stop() {
	s.stop.Do(func() {
		s.halt(syscall.SIGINT, 5*time.Second)
		s.removeInterlock()
		_ = os.RemoveAll(s.base)
		s.watchdog.end()
	})
}

// removeInterlock removes the few bytes of System V shared memory that a killed server leaves in the kernel. The
// seventh line of its postmaster.pid names them; a server that stops normally removes both.
func (s *Server) removeInterlock() {
	text, err := os.ReadFile(filepath.Join(s.DataDir(), "postmaster.pid"))
	if err != nil {
		return
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 7 {
		return
	}
	if keyAndID := strings.Fields(lines[6]); len(keyAndID) == 2 {
		_ = exec.Command("ipcrm", "-m", keyAndID[1]).Run()
	}
}
