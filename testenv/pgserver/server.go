package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options say how a server is to be.
type Options struct {
	Settings map[string]string // of postgresql.conf, over the defaults below
	Version  int               // major version wanted; 0: any
	Progress func(string)      // told what takes long; may be nil
}

// defaults suit tests and demonstrations: quick rather than safe against a power cut. kill -9 loses nothing with them.
var defaults = map[string]string{
	"wal_level": "logical", "fsync": "off", "max_connections": "300", "max_wal_senders": "50", "max_replication_slots": "50",
	"max_logical_replication_workers": "0", "shared_buffers": "64MB", "listen_addresses": "127.0.0.1", "log_line_prefix": "%m [%p] %a ",
	"max_prepared_transactions": "10",
}

// Server is a running server.
type Server struct {
	bin     string
	base    string // holds data, the log and the socket
	port    int
	version int
	options Options
	as      *syscall.Credential
	cmd     *exec.Cmd
	guard   io.Closer // closing it, or dying, lets the watchdog end the server
	exited  chan struct{}
}

// Start finds PostgreSQL, makes a cluster and starts it.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	bin, err := find(ctx, o.Version, o.Progress)
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, options: o}
	if s.as, err = otherUser(); err != nil {
		return nil, err
	}
	// Short, for the socket's path may have 107 bytes.
	if s.base, err = os.MkdirTemp(shortTemp(), "walhook-pg-"); err != nil {
		return nil, fmt.Errorf("make a folder for PostgreSQL: %w", err)
	}
	if err := s.init(ctx); err != nil {
		_ = os.RemoveAll(s.base)
		return nil, err
	}
	if err := s.Restart(ctx); err != nil {
		_ = os.RemoveAll(s.base)
		return nil, err
	}
	return s, nil
}

func shortTemp() string {
	if dir := os.TempDir(); len(dir) < 50 {
		return dir
	}
	return "/tmp"
}

// otherUser is whom root runs the server as, nil for everybody else.
func otherUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if errUID == nil && errGID == nil && uid != 0 {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")
}

func (s *Server) init(ctx context.Context) error {
	if s.as != nil {
		if err := os.Chown(s.base, int(s.as.Uid), int(s.as.Gid)); err != nil {
			return fmt.Errorf("hand the folder over to the server's user: %w", err)
		}
	}
	cmd := s.command(ctx, "initdb", "-D", s.DataDir(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-c", "fsync=off")
	out, err := cmd.CombinedOutput()
	if err != nil && bytes.Contains(out, []byte("invalid option")) { // -c came with 16
		cmd = s.command(ctx, "initdb", "-D", s.DataDir(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
		out, err = cmd.CombinedOutput()
	}
	if err != nil {
		return fmt.Errorf("run %s/initdb: %w\n%s", s.bin, err, out)
	}
	return nil
}

// command prepares one of the server's programs to run as the server's user, in a process group of its own so that Ctrl-C
// reaches this process first.
func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Dir = s.base
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	if lib := filepath.Join(filepath.Dir(s.bin), "lib"); isDir(lib) && !strings.HasPrefix(lib, "/usr/lib/") {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+lib)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.as}
	return cmd
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Restart starts the server where it does not run, on the port it had.
func (s *Server) Restart(ctx context.Context) error {
	var last error
	for range 5 {
		if s.port == 0 {
			port, err := freePort()
			if err != nil {
				return err
			}
			s.port = port
		}
		if last = s.launch(ctx); last == nil {
			return nil
		}
		if s.version != 0 || !strings.Contains(s.Log(), "Address already in use") {
			return last
		}
		s.port = 0
	}
	return last
}

// launch runs postgres under a watchdog: a shell that waits for the end of its standard input, which comes with the end of
// this process however it ends, and then stops the server at once.
func (s *Server) launch(ctx context.Context) error {
	settings := map[string]string{}
	for _, from := range []map[string]string{defaults, s.options.Settings} {
		for name, value := range from {
			settings[name] = value
		}
	}
	settings["port"] = strconv.Itoa(s.port)
	settings["unix_socket_directories"] = s.base
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	sort.Strings(names)
	args := []string{"-D", s.DataDir()}
	for _, name := range names {
		args = append(args, "-c", name+"="+settings[name])
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the server's log: %w", err)
	}
	defer log.Close()

	cmd := s.command(context.Background(), "postgres", args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run %s/postgres: %w", s.bin, err)
	}
	watchdog := exec.Command("/bin/sh", "-c", `read -r _; kill -QUIT "$1" 2>/dev/null; sleep 1; kill -KILL "$1" 2>/dev/null; rm -rf "$2"`, "watchdog",
		strconv.Itoa(cmd.Process.Pid), s.base)
	watchdog.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	guard, err := watchdog.StdinPipe()
	if err == nil {
		err = watchdog.Start()
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return fmt.Errorf("watch over postgres: %w", err)
	}
	exited := make(chan struct{})
	s.cmd, s.exited = cmd, exited
	s.guard = closerFunc(func() error {
		_ = watchdog.Process.Kill() // the server has ended by other means
		_ = guard.Close()
		_ = watchdog.Wait()
		return nil
	})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	return s.waitReady(ctx)
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			err = conn.QueryRow(ctx, "select current_setting('server_version_num')::int").Scan(&s.version)
			_ = conn.Close(ctx)
		}
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			_ = s.guard.Close()
			return fmt.Errorf("postgres ended as it started; its log ends with:\n%s", tail(s.Log(), 2000))
		case <-ctx.Done():
			s.Kill()
			return fmt.Errorf("postgres did not start: %w; its log ends with:\n%s", err, tail(s.Log(), 2000))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// URL returns where a database of the server is, as its superuser.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
}

// Port returns the port that the server listens on, at 127.0.0.1.
func (s *Server) Port() int { return s.port }

// Version returns the server's server_version_num.
func (s *Server) Version() int { return s.version }

// BinDir returns the folder of the server's programs.
func (s *Server) BinDir() string { return s.bin }

// DataDir returns the server's data directory.
func (s *Server) DataDir() string { return filepath.Join(s.base, "data") }

func (s *Server) logFile() string { return filepath.Join(s.base, "log") }

// Log returns what the server has logged.
func (s *Server) Log() string {
	text, _ := os.ReadFile(s.logFile())
	return string(text)
}

// PID returns the process id of the postmaster.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Halt stops the server with a signal: SIGINT is a fast shutdown, SIGQUIT an immediate one. It keeps the data.
func (s *Server) Halt(signal syscall.Signal) {
	_ = s.cmd.Process.Signal(signal)
	select {
	case <-s.exited:
		_ = s.guard.Close()
	case <-time.After(20 * time.Second):
		s.Kill()
	}
}

// Kill ends the server as a crash does, and waits until all its processes are gone, so that it can be restarted. It keeps
// the data.
func (s *Server) Kill() {
	children := childrenOf(s.cmd.Process.Pid)
	_ = s.cmd.Process.Kill()
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-s.exited
	_ = s.guard.Close()
	for _, pid := range children {
		for alive(pid) {
			time.Sleep(time.Millisecond)
		}
	}
}

// Stop ends the server and removes all that it had. It may be repeated.
func (s *Server) Stop() {
	select {
	case <-s.exited:
	default:
		s.Halt(syscall.SIGINT)
	}
	_ = os.RemoveAll(s.base)
}

// childrenOf lists the processes whose parent has this pid, from /proc; none where there is no /proc.
func childrenOf(parent int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var pids []int
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		// pid (name) state ppid; the name may hold anything.
		_, rest, ok := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 2 || fields[1] != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// alive reports whether a process exists and is no zombie.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func tail(text string, n int) string {
	if len(text) > n {
		return "..." + text[len(text)-n:]
	}
	return text
}
