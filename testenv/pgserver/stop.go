package pgserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Halt stops the server with a signal and waits for its end: SIGTERM is a smart shutdown, SIGINT a fast and SIGQUIT an
// immediate one. A server that has not ended after 20 s, such as one with a replication client that takes nothing, is killed.
// The data stays, for Restart.
func (s *Server) Halt(signal syscall.Signal) { s.halt(signal, 20*time.Second) }

// HaltImmediately stops the server as a crash that it noticed: the next start recovers. The data stays, for Restart.
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

// Kill ends the server and all its processes as kill -9 does, and returns when they are gone, so that it can be started again.
// The data stays, for Restart.
func (s *Server) Kill() {
	if !s.Running() {
		return
	}
	killFamily(s.cmd.Process)
	<-s.exited
}

// Stop ends the server and removes all that it had. It may be repeated, and ends servers that do not run as well.
func (s *Server) Stop() {
	s.stop.Do(func() {
		s.halt(syscall.SIGINT, 5*time.Second)
		s.removeInterlock()
		_ = os.RemoveAll(s.base)
		s.watchdog.end()
	})
}

// removeInterlock removes the few bytes of System V shared memory that a killed server has left in the kernel. A server that
// was stopped has removed them together with its postmaster.pid, whose seventh line names them.
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
