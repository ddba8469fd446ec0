package pgserver

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// Options say how a server is to be.
type Options struct {
	Settings  map[string]string // over the defaults below; "": that of the configuration files
	Version   int               // major version wanted; 0: any from 14
	SegmentMB int               // size of a WAL segment; 0: the server's default
	Env       []string          // of the server, besides this process's
	Log       io.Writer         // gets what the server logs, as it logs it; may be nil, for Log remembers it anyway
	Progress  func(string)      // told what takes long; may be nil
}

// defaults suit tests and demonstrations: quick rather than safe against a power cut. kill -9 loses nothing with them.
// Queries in them are short, and to compile one, which the planner wants for tables that it knows nothing of yet, takes longer.
// Dynamic shared memory lies in the data directory, since in /dev/shm it would outlive a killed server.
var defaults = map[string]string{
	"wal_level": "logical", "fsync": "off", "max_connections": "300", "max_wal_senders": "50", "max_replication_slots": "50",
	"max_logical_replication_workers": "0", "shared_buffers": "64MB", "listen_addresses": "127.0.0.1", "log_line_prefix": "%m [%p] %a ",
	"max_prepared_transactions": "10", "dynamic_shared_memory_type": "mmap", "wal_init_zero": "off", "jit": "off",
}

// Server is a server and its data. It runs from Start on, but between Halt or Kill and Restart.
type Server struct {
	bin      string
	base     string // holds data, the log and the socket
	port     int
	version  int
	options  Options
	as       *account
	watchdog *watchdog
	cmd      *exec.Cmd
	exited   chan struct{} // closed when the postmaster has ended
	maxFile  int64         // bytes; 0: no limit
	stop     sync.Once
}

// Start finds PostgreSQL, makes a cluster and starts it.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	as, err := serverAccount()
	if err != nil {
		return nil, err
	}
	bin, err := find(ctx, o.Version, as, o.Progress)
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, options: o, as: as}
	if err := s.makeBase(); err != nil {
		return nil, err
	}
	if err = s.init(ctx); err == nil {
		err = s.Restart(ctx)
	}
	if err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// makeBase makes the folder that holds everything, and sees to it that nothing is left should this process be killed.
func (s *Server) makeBase() (err error) {
	// Short, for the socket's path may have 107 bytes.
	if s.base, err = os.MkdirTemp(tempDir(s.as), "walhook-pg-"); err != nil {
		return fmt.Errorf("make a folder for PostgreSQL: %w", err)
	}
	if s.watchdog, err = watch(s.base); err != nil {
		_ = os.RemoveAll(s.base)
		return err
	}
	if s.as != nil {
		if err := os.Chown(s.base, s.as.uid, s.as.gid); err != nil {
			s.Stop()
			return fmt.Errorf("hand the folder over to the server's user: %w", err)
		}
	}
	return nil
}

// URL returns where a database of the server is, as its superuser.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
}

// LimitFiles sets how many bytes a file of the server may have from the next Restart on, 0 for any number: a file that cannot
// grow is for the server what a full disk is.
func (s *Server) LimitFiles(bytes int64) { s.maxFile = bytes }

// Port returns the port that the server listens on, at 127.0.0.1. It stays the same from start to start.
func (s *Server) Port() int { return s.port }

// Version returns the server's server_version_num, as the server tells it.
func (s *Server) Version() int { return s.version }

// BinDir returns the folder of the server's programs.
func (s *Server) BinDir() string { return s.bin }

// DataDir returns the server's data directory.
func (s *Server) DataDir() string { return filepath.Join(s.base, "data") }

// PID returns the process id of the postmaster.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Running reports whether the postmaster is there.
func (s *Server) Running() bool {
	if s.exited == nil {
		return false
	}
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}
