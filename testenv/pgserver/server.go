package pgserver

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// Options configure a server.
type Options struct {
	Settings  map[string]string // override the defaults below; "" means that of the configuration files
	Version   int               // major version; 0: any from 14
	SegmentMB int               // size of a WAL segment; 0: the server's default
	Env       []string          // environment, in addition to this process's
	Folder    string            // holds the server's own folder; "": the one for temporary files
	Template  *Server           // from Create, never started; its data is copied, instead of running initdb; may be nil
	Log       io.Writer         // receives the server's log as it is written; may be nil
	Progress  func(string)      // reports slow steps; may be nil
}

// defaults suit tests and demos: fast rather than safe against a power failure. kill -9 loses nothing with them. Their
// queries are short, and JIT compilation, which the planner chooses for tables without statistics, takes longer than
// running them. Dynamic shared memory is in the data directory, since in /dev/shm it would outlive a killed server.
var defaults = map[string]string{
	"wal_level": "logical", "fsync": "off", "max_connections": "300", "max_wal_senders": "50", "max_replication_slots": "50",
	"max_logical_replication_workers": "0", "shared_buffers": "64MB", "listen_addresses": "127.0.0.1", "log_line_prefix": "%m [%p] %a ",
	"max_prepared_transactions": "10", "dynamic_shared_memory_type": "mmap", "wal_init_zero": "off", "jit": "off",
}

// Server is a server and its data. It runs from Start on, except between Halt or Kill and Restart.
type Server struct {
	bin      string
	base     string // contains data, log and socket
	port     int
	version  int
	options  Options
	as       *account
	watchdog *watchdog
	cmd      *exec.Cmd
	exited   chan struct{} // closed when the postmaster has exited
	maxFile  int64         // bytes; 0: no limit
	stop     sync.Once
}

// Start creates a server and starts it.
func Start(ctx context.Context, o Options) (*Server, error) {
	s, err := Create(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := s.Restart(ctx); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// Create finds PostgreSQL and creates a cluster, which Restart starts.
func Create(ctx context.Context, o Options) (*Server, error) {
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
	if o.Template != nil {
		err = s.copyCluster(ctx, o.Template)
	} else {
		err = s.init(ctx)
	}
	if err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// makeBase creates the folder for everything, and a watchdog that removes it if this process is killed.
func (s *Server) makeBase() (err error) {
	// Short, because the socket's path may have at most 107 bytes.
	if s.base, err = os.MkdirTemp(cmp.Or(s.options.Folder, tempDir(s.as)), "walhook-pg-"); err != nil {
		return fmt.Errorf("create a folder for PostgreSQL: %w", err)
	}
	if s.watchdog, err = watch(s.base); err != nil {
		_ = os.RemoveAll(s.base)
		return err
	}
	if s.as != nil {
		if err := os.Chown(s.base, s.as.uid, s.as.gid); err != nil {
			s.Stop()
			return fmt.Errorf("change the owner of the folder: %w", err)
		}
	}
	return nil
}

// URL returns the URL of a database, for the superuser.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
}

// LimitFiles limits the size of the server's files in bytes, from the next Restart on; 0 is no limit. To the server, a
// file that cannot grow is like a full disk.
func (s *Server) LimitFiles(bytes int64) { s.maxFile = bytes }

// Port returns the server's port at 127.0.0.1. It does not change with Restart.
func (s *Server) Port() int { return s.port }

// Version returns the server's server_version_num.
func (s *Server) Version() int { return s.version }

// BinDir returns the folder of the server's programs.
func (s *Server) BinDir() string { return s.bin }

// DataDir returns the server's data directory.
func (s *Server) DataDir() string { return filepath.Join(s.base, "data") }

// PID returns the process id of the postmaster.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Running reports whether the postmaster is running.
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
