package harness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"walhook/testenv"
	"walhook/testenv/pgserver"
)

// Patience bounds every wait in these tests. It is only reached if something is wrong, however slow the machine is.
const Patience = 2 * time.Minute

// SampleSchema is an application with the table that walhook expects by default.
const SampleSchema = `
create table assessment (id bigint primary key, title text, external_id text, copied_from bigint);
create table respondent (
  id bigint primary key, assessment_id bigint, organization_id text, name text, essay text, page int default 0,
  started_at timestamptz, finished_at timestamptz);
insert into assessment values (1, 'one', 'EXT-1'), (2, 'two', null);`

// Site is a test's installation: databases, receiver, and the environment of walhook.
type Site struct {
	T        *testing.T
	DB       string // URL of the application's database
	Store    string // URL of the store
	Receiver *testenv.Receiver
	Env      map[string]string
	Extra    []string // other environment variables, as NAME=value
	Sentinel func(n int) (statement, id string)
	Fences   int
}

// NewSite creates a database with the schema, and a receiver.
func NewSite(t *testing.T, schema string) *Site {
	t.Helper()
	return NewSiteOn(t, testenv.Postgres(t), schema)
}

// NewSiteOn is NewSite on a given server.
func NewSiteOn(t *testing.T, server *pgserver.Server, schema string) *Site {
	t.Helper()
	db := testenv.Database(t, server, schema)
	u, err := url.Parse(db)
	if err != nil {
		t.Fatal(err)
	}
	// Slots belong to the whole server, so each test has its own name.
	name := "slot_" + strings.Trim(u.Path, "/")
	return &Site{
		T: t, DB: db, Store: db, Receiver: testenv.NewReceiver(t), Sentinel: defaultSentinel,
		Env: map[string]string{
			"DATABASE_URL": db, "SLOT": name, "LISTEN": "127.0.0.1:0", "ALLOW_NETWORKS": "127.0.0.0/8",
			"RETRY_BASE": "50ms", "RETRY_CAP": "400ms", "DELIVERY_TIMEOUT": "2s", "LOG_LEVEL": "debug",
		},
	}
}

// With sets environment variables.
func (s *Site) With(pairs ...string) *Site {
	for i := 0; i < len(pairs); i += 2 {
		s.Env[pairs[i]] = pairs[i+1]
	}
	return s
}

// WithStore moves the store to a separate database.
func (s *Site) WithStore(server *pgserver.Server) *Site {
	s.Store = testenv.Database(s.T, server, "")
	return s.With("STORE_URL", s.Store)
}

// Up restarts a server.
func (s *Site) Up(server *pgserver.Server) {
	s.T.Helper()
	if err := server.Restart(context.Background()); err != nil {
		s.T.Fatal(err)
	}
}

// Command prepares a walhook command with the site's environment.
func (s *Site) Command(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		s.T.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = []string{"WALHOOK_TEST_EXEC=1", "PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}
	for name, value := range s.Env {
		cmd.Env = append(cmd.Env, "WALHOOK_"+name+"="+value)
	}
	cmd.Env = append(cmd.Env, s.Extra...)
	ownLifeline().tie(cmd)
	return cmd
}

// Walhook runs a command and returns its output and its exit status.
func (s *Site) Walhook(args ...string) (stdout, stderr string, status int) {
	s.T.Helper()
	cmd := s.Command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		s.T.Fatalf("run walhook %v: %v", args, err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// Attach runs walhook attach and expects success.
func (s *Site) Attach() *Site {
	s.T.Helper()
	if out, errOut, status := s.Walhook("attach"); status != 0 {
		s.T.Fatalf("attach: status %d\n%s%s", status, out, errOut)
	}
	return s
}

// Daemon is a running walhook run.
type Daemon struct {
	T      *testing.T
	Cmd    *exec.Cmd
	Log    *LogBuffer
	Exited chan struct{}
}

// LogBuffer collects a process's output while it runs.
type LogBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *LogBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *LogBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Start starts walhook run. It is stopped when the test ends.
func (s *Site) Start() *Daemon {
	s.T.Helper()
	return s.Background("run")
}

// Background starts a command without waiting for it. It is killed when the test ends.
func (s *Site) Background(args ...string) *Daemon {
	s.T.Helper()
	d := &Daemon{T: s.T, Cmd: s.Command(args...), Log: &LogBuffer{}, Exited: make(chan struct{})}
	d.Cmd.Stdout, d.Cmd.Stderr = d.Log, d.Log
	if err := d.Cmd.Start(); err != nil {
		s.T.Fatalf("start walhook %v: %v", args, err)
	}
	go func() {
		_ = d.Cmd.Wait()
		close(d.Exited)
	}()
	s.T.Cleanup(func() {
		d.Kill()
		if s.T.Failed() {
			text := d.Log.String()
			s.T.Logf("the log of walhook %v ends with:\n%s", args, text[max(len(text)-6000, 0):])
		}
	})
	return d
}

// Run attaches, starts the daemon and waits until it is ready.
func (s *Site) Run() *Daemon {
	s.T.Helper()
	s.Attach()
	return s.Start().Ready()
}

// Kill kills the daemon with SIGKILL.
func (d *Daemon) Kill() {
	_ = d.Cmd.Process.Kill()
	<-d.Exited
}

// Stop asks the daemon to stop and returns its exit status.
func (d *Daemon) Stop() int {
	d.T.Helper()
	_ = d.Cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.Exited:
	case <-time.After(Patience):
		d.T.Fatal("the daemon did not stop")
	}
	return d.Cmd.ProcessState.ExitCode()
}

// Wait waits until the daemon exits on its own and returns its exit status.
func (d *Daemon) Wait() int {
	d.T.Helper()
	select {
	case <-d.Exited:
	case <-time.After(Patience):
		d.T.Fatal("the daemon did not exit")
	}
	return d.Cmd.ProcessState.ExitCode()
}

var listening = regexp.MustCompile(`serving health and metrics" address=(\S+)`)

// Get queries the daemon's own HTTP server.
func (d *Daemon) Get(path string) (status int, body string) {
	match := listening.FindStringSubmatch(d.Log.String())
	if match == nil {
		return 0, "not listening yet"
	}
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + match[1] + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// Listens waits until the daemon serves HTTP, which is the first thing it does.
func (d *Daemon) Listens() {
	d.T.Helper()
	testenv.Eventually(d.T, Patience, "the daemon to listen", func() (bool, string) {
		return listening.MatchString(d.Log.String()), d.Log.String()
	})
}

// Ready waits until /readyz returns 200.
func (d *Daemon) Ready() *Daemon {
	d.T.Helper()
	d.Readyz(200, "")
	return d
}

// Readyz waits until /readyz returns the status and a reason that contains the text.
func (d *Daemon) Readyz(want int, reason string) {
	d.T.Helper()
	testenv.Eventually(d.T, Patience, fmt.Sprintf("/readyz %d %s", want, reason), func() (bool, string) {
		select {
		case <-d.Exited:
			return false, "the daemon ended: " + d.Log.String()
		default:
		}
		status, body := d.Get("/readyz")
		return status == want && strings.Contains(body, reason), fmt.Sprintf("%d %s", status, body)
	})
}

// Exec runs SQL as the application.
func (s *Site) Exec(statements string, args ...any) {
	s.T.Helper()
	testenv.Exec(s.T, s.DB, statements, args...)
}

// Meanwhile executes a statement in a database repeatedly, each time with the next number, until the returned function
// is called.
func (s *Site) Meanwhile(database, statement string) (end func()) {
	s.T.Helper()
	conn := testenv.Connect(s.T, database)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := conn.Exec(s.T.Context(), statement, n); err != nil {
				s.T.Errorf("%s: %v", statement, err)
				return
			}
		}
	}()
	end = sync.OnceFunc(func() {
		close(stop)
		<-ended
	})
	s.T.Cleanup(end) // if the test fails first: before the connection is closed
	return end
}

// WritesAgain waits until PostgreSQL lets the application update its table.
func (s *Site) WritesAgain() {
	s.T.Helper()
	testenv.Eventually(s.T, Patience, "the application to write again", func() (bool, string) {
		_, err := testenv.TryPsql(s.T, s.DB, "update respondent set page = page + 1")
		return err == nil, fmt.Sprint(err)
	})
}

// Hook adds a webhook to a path of the receiver, by default for assessment 1, and returns its id.
func (s *Site) Hook(path, event string, extra ...string) int64 {
	s.T.Helper()
	columns, values := "url, event_type", fmt.Sprintf("'%s', 'response.%s'", s.Receiver.URL(path), event)
	assessment := "'1'"
	for i := 0; i < len(extra); i += 2 {
		if extra[i] == "assessment_id" {
			assessment = extra[i+1]
			continue
		}
		columns += ", " + extra[i]
		values += ", " + extra[i+1]
	}
	return testenv.Value[int64](s.T, s.Store, fmt.Sprintf(
		"insert into walhook.webhook (assessment_id, %s) values (%s, %s) returning id", columns, assessment, values,
	))
}

// Hooks adds a webhook for each of the four events, all to /hook.
func (s *Site) Hooks() *Site {
	for _, event := range []string{"created", "started", "completed", "changed"} {
		s.Hook("/hook", event)
	}
	return s
}

// EventOf matches event and response in the body of a request.
var EventOf = regexp.MustCompile(`^\{"EventType":"response\.([a-z]+)","Timestamp":[0-9]+,"Data":\{"ResponseId":(.*)\}\}$`)

// Events returns the events at a path, such as "completed 1", in order of arrival.
func (s *Site) Events(path string) []string {
	s.T.Helper()
	var events []string
	for _, body := range s.Receiver.Bodies(path) {
		match := EventOf.FindStringSubmatch(body)
		if match == nil {
			s.T.Fatalf("unexpected body %s", body)
		}
		events = append(events, match[1]+" "+match[2])
	}
	return events
}

// sentinel returns the SQL that inserts the n-th respondent for which no webhook matches, and its key.
func defaultSentinel(n int) (statement, id string) {
	id = fmt.Sprint(900000000000000 + n)
	return "insert into respondent (id, assessment_id) values (" + id + ", 999999)", id
}

// WaitStored waits until everything committed so far has been consumed and stored.
func (s *Site) WaitStored() {
	s.T.Helper()
	s.Fences++
	statement, id := s.Sentinel(s.Fences)
	s.Exec(statement)
	testenv.Eventually(s.T, Patience, "the stream to catch up", func() (bool, string) {
		const stored = "select exists (select from walhook.response_state where response_id = $1)"
		return testenv.Value[bool](s.T, s.Store, stored, id), "sentinel " + id
	})
}

// WALEnd returns where the next WAL record of the application's server will begin.
func (s *Site) WALEnd() string {
	s.T.Helper()
	return testenv.Value[string](s.T, s.DB, "select pg_current_wal_insert_lsn()::text")
}

// WaitRead waits until everything up to this point has been read and stored. Some later change must have been written.
func (s *Site) WaitRead(lsn string) {
	s.T.Helper()
	testenv.Eventually(s.T, Patience, "the stream to catch up", func() (bool, string) {
		read := testenv.Value[string](s.T, s.Store, "select max(lsn)::text from walhook.position")
		return testenv.Value[bool](s.T, s.Store, "select $1::text::pg_lsn >= $2::text::pg_lsn", read, lsn), read + " of " + lsn
	})
}

// DropSlot drops the slot once the server has noticed that its daemon is gone.
func (s *Site) DropSlot() {
	s.T.Helper()
	testenv.Eventually(s.T, Patience, "a slot that nobody reads", func() (bool, string) {
		active := testenv.Value[bool](s.T, s.DB, "select active from pg_replication_slots where slot_name = $1", s.Env["SLOT"])
		return !active, fmt.Sprint("active: ", active)
	})
	s.Exec("select pg_drop_replication_slot($1)", s.Env["SLOT"])
}

// Fence waits until everything committed so far has been delivered, as far as possible.
func (s *Site) Fence() {
	s.T.Helper()
	s.WaitStored()
	testenv.Eventually(s.T, 4*Patience, "an empty queue", func() (bool, string) {
		n := testenv.Value[int64](s.T, s.Store, `
			select count(*) from walhook.queue q join walhook.webhook w on w.id = q.webhook_id where w.enabled`)
		return n == 0, fmt.Sprintf("%d pending", n)
	})
}

// Expect waits for exactly these events at a path, those of each response in this order, and verifies that no others
// arrive.
func (s *Site) Expect(path string, want ...string) {
	s.T.Helper()
	testenv.Eventually(s.T, Patience, fmt.Sprintf("%d events at %s", len(want), path), func() (bool, string) {
		got := s.Events(path)
		return len(got) >= len(want), fmt.Sprint(got)
	})
	s.Fence()
	got := s.Events(path)
	if diff := cmp.Diff(ByResponse(want), ByResponse(got)); diff != "" {
		s.T.Errorf("events at %s (-want +got):\n%s", path, diff)
	}
}

// ByResponse groups events by response.
func ByResponse(events []string) map[string][]string {
	stories := map[string][]string{}
	for _, event := range events {
		what, id, _ := strings.Cut(event, " ")
		stories[id] = append(stories[id], what)
	}
	return stories
}

// WaitRequests waits until a path has received n requests in total.
func (s *Site) WaitRequests(path string, n int) {
	s.T.Helper()
	testenv.Eventually(s.T, Patience, fmt.Sprintf("%d requests at %s", n, path), func() (bool, string) {
		got := len(s.Receiver.Bodies(path))
		return got >= n, fmt.Sprint(got)
	})
}

// PendingAfterFailure waits until a delivery of the webhook has failed and awaits its next attempt.
func (s *Site) PendingAfterFailure(webhookID int64) {
	s.T.Helper()
	testenv.Eventually(s.T, Patience, "a delivery that failed and is pending", func() (bool, string) {
		n := testenv.Value[int64](s.T, s.Store, `
			select count(*) from walhook.delivery_log where webhook_id = $1 and status = 'pending' and attempts > 0`, webhookID)
		return n > 0, fmt.Sprint(n)
	})
}

// WaitHeartbeat waits for two more heartbeats of the daemon.
func (s *Site) WaitHeartbeat() {
	s.T.Helper()
	const query = "select max(heartbeat_at) from walhook.daemon"
	for range 2 {
		before := testenv.Value[time.Time](s.T, s.Store, query)
		testenv.Eventually(s.T, Patience, "a heartbeat", func() (bool, string) {
			now := testenv.Value[time.Time](s.T, s.Store, query)
			return now.After(before), now.String()
		})
	}
}

// MoveTo makes another server, with a database of the same name, the application's.
func (s *Site) MoveTo(server *pgserver.Server) {
	s.T.Helper()
	s.DB = server.URL(s.Database())
}

// Database returns the name of the application's database.
func (s *Site) Database() string {
	s.T.Helper()
	u, err := url.Parse(s.DB)
	if err != nil {
		s.T.Fatal(err)
	}
	return strings.Trim(u.Path, "/")
}

// HostPort returns a server's address.
func HostPort(server *pgserver.Server) string { return fmt.Sprintf("127.0.0.1:%d", server.Port()) }

// WaitLog waits until a psql query returns the wanted result.
func (s *Site) WaitLog(query, want string) {
	s.T.Helper()
	testenv.Eventually(s.T, Patience, query, func() (bool, string) {
		got := testenv.Psql(s.T, s.Store, query)
		return got == want, "\n" + cmp.Diff(want, got)
	})
}

// As returns the URL of the store for a new login role that is a member of a group role.
func (s *Site) As(group string) string {
	s.T.Helper()
	u, err := url.Parse(s.Store)
	if err != nil {
		s.T.Fatal(err)
	}
	// Roles belong to the whole server, so the name is unique among tests.
	user := group + "_of_" + strings.Trim(u.Path, "/")
	testenv.Exec(s.T, s.Store, `create role "`+user+`" login in role `+group)
	s.T.Cleanup(func() { testenv.Exec(s.T, s.Store, `drop owned by "`+user+`"; drop role "`+user+`"`) })
	u.User = url.User(user)
	return u.String()
}

// UserOf returns a URL with another user.
func UserOf(t *testing.T, database, user string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(user)
	return u.String()
}

// ClosedPort returns an address at which nobody listens. It keeps the port reserved with a socket that is bound but
// does not listen.
func ClosedPort(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
}

// FreePort returns an address at which nobody listens, and that nobody takes between two daemons of a test.
func FreePort(t *testing.T) string {
	t.Helper()
	port, err := pgserver.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}
