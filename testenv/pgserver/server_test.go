//go:build unix

package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// start starts a server of the version in WALHOOK_TEST_PG.
func start(t *testing.T, o Options) *Server {
	t.Helper()
	o.Folder = MemoryFolder()
	if o.Version == 0 {
		o.Version, _ = strconv.Atoi(os.Getenv("WALHOOK_TEST_PG"))
	}
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func connect(t *testing.T, s *Server) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func query(t *testing.T, s *Server, sql string) string {
	t.Helper()
	var text string
	if err := connect(t, s).QueryRow(t.Context(), sql).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

// A server matches its options, and reports its properties.
func TestStart(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	s := start(t, Options{Settings: map[string]string{"work_mem": "7MB", "log_statement": "all"}, Log: &log})
	got := query(t, s, `select concat_ws(' ', current_setting('work_mem'), current_setting('wal_level'), current_setting('fsync'),
		current_setting('server_version_num'), current_setting('server_encoding'), current_setting('data_directory'))`)
	if want := fmt.Sprintf("7MB logical off %d UTF8 %s", s.Version(), s.DataDir()); got != want {
		t.Errorf("the server says %q instead of %q", got, want)
	}
	if want := os.Getenv("WALHOOK_TEST_PG"); want != "" && want != strconv.Itoa(s.Version()/10000) {
		t.Errorf("version %s was requested but the server is %d", want, s.Version())
	}
	if _, err := os.Stat(filepath.Join(s.BinDir(), "postgres")); err != nil {
		t.Error(err)
	}
	s.Stop()
	if !strings.Contains(log.String(), "current_setting('work_mem')") {
		t.Errorf("the log is %s", log.String())
	}
}

type lockedBuffer struct {
	sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.Lock()
	defer b.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.Lock()
	defer b.Unlock()
	return b.Buffer.String()
}

// Servers on copies of one cluster are as different as others: each has its own system identifier, before and after
// recovery.
func TestTemplate(t *testing.T) {
	t.Parallel()
	for _, megabytes := range []int{0, 1} {
		version, _ := strconv.Atoi(os.Getenv("WALHOOK_TEST_PG"))
		template, err := Create(t.Context(), Options{Folder: MemoryFolder(), Version: version, SegmentMB: megabytes})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(template.Stop)
		seen := map[string]bool{}
		for range 2 {
			s := start(t, Options{Template: template})
			identifier := query(t, s, "select system_identifier::text from pg_control_system()")
			if n, err := strconv.ParseInt(identifier, 10, 64); err != nil || n <= 0 || seen[identifier] {
				t.Errorf("the system identifier is %s, after %v", identifier, seen)
			}
			seen[identifier] = true
			s.Kill()
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if now := query(t, s, "select system_identifier::text from pg_control_system()"); now != identifier {
				t.Errorf("the system identifier was %s and is %s", identifier, now)
			}
		}
	}
}

// A server that was killed under load, or halted, restarts on the same port with everything that was committed.
func TestCrashAndRestart(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	port := s.Port()
	if _, err := connect(t, s).Exec(t.Context(), "create table kept (n bigint)"); err != nil {
		t.Fatal(err)
	}
	committed := 0
	for _, end := range []func(){s.Kill, s.HaltImmediately, s.Kill, func() { s.Halt(syscall.SIGINT) }} {
		pid := s.PID()
		conn := connect(t, s)
		enough := make(chan struct{})
		ended := make(chan int)
		go func() {
			done := 0
			for {
				if _, err := conn.Exec(t.Context(), "insert into kept values (1)"); err != nil {
					ended <- done
					return
				}
				if done++; done == 100 {
					close(enough)
				}
			}
		}()
		<-enough
		end()
		committed += <-ended
		if s.Running() || syscall.Kill(pid, 0) == nil {
			t.Error("the server is still running")
		}
		for child, p := range processes() {
			if p.parent == pid {
				t.Errorf("its process %d is still running", child)
			}
		}
		end() // stopping it again changes nothing
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// Each time, the server may have committed one more row than it could report.
	if n, _ := strconv.Atoi(query(t, s, "select count(*)::text from kept")); n < committed || n > committed+4 {
		t.Errorf("%d rows were committed but %d exist", committed, n)
	}
	if s.Port() != port {
		t.Errorf("the port was %d and is %d", port, s.Port())
	}
}

// Stop leaves nothing behind, whatever state the server is in, and may be called repeatedly from any goroutine.
func TestStop(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(*Server){"running": func(*Server) {}, "killed": (*Server).Kill, "halted": (*Server).HaltImmediately} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, Options{})
			pid, watchdog, segment := s.PID(), s.watchdog.cmd.Process.Pid, interlock(t, s)
			before(s)
			var both sync.WaitGroup
			both.Go(s.Stop)
			both.Go(s.Stop)
			both.Wait()
			if _, err := os.Stat(s.base); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is left behind: %v", s.base, err)
			}
			for _, pid := range []int{pid, watchdog} {
				if syscall.Kill(pid, 0) == nil {
					t.Errorf("process %d is left behind", pid)
				}
			}
			if segments, err := os.ReadFile("/proc/sysvipc/shm"); err == nil && segment != "" {
				for line := range strings.Lines(string(segments)) {
					if f := strings.Fields(line); f[1] == segment {
						t.Errorf("shared memory is left behind: %s", line)
					}
				}
			}
		})
	}
}

func interlock(t *testing.T, s *Server) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.DataDir(), "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(strings.Split(string(text), "\n")[6])[1]
}

// A server that cannot start says why.
func TestStartFails(t *testing.T) {
	t.Parallel()
	if _, err := Start(t.Context(), Options{Settings: map[string]string{"shared_buffers": "plenty"}}); err == nil || !strings.Contains(err.Error(), "shared_buffers") {
		t.Errorf("a bad setting gives %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Options{}); err == nil {
		t.Error("a server starts for a cancelled context")
	}
}

// Restart waits for a port that somebody else uses briefly.
func TestPortIsTaken(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	s.Kill()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port()))
	if err != nil {
		t.Fatal(err)
	}
	restarted := make(chan error, 1)
	go func() { restarted <- s.Restart(t.Context()) }()
	until(30*time.Second, func() bool { return strings.Contains(s.Log(), "Address already in use") })
	_ = l.Close()
	if err := <-restarted; err != nil {
		t.Fatal(err)
	}
}

func TestFreePort(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	for range 100 {
		port, err := FreePort()
		if err != nil || seen[port] || port >= 32768 {
			t.Fatalf("port %d, %v", port, err)
		}
		seen[port] = true
	}
}
