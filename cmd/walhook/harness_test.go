package main

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

// patience bounds every wait in these tests. It is never reached where all is well, however slow the machine is.
const patience = 2 * time.Minute

// sampleSchema is an application as walhook expects it by default.
const sampleSchema = `
create table assessment (id bigint primary key, title text, external_id text, copied_from bigint);
create table respondent (
  id bigint primary key, assessment_id bigint, organization_id text, name text, essay text, page int default 0,
  started_at timestamptz, finished_at timestamptz);
insert into assessment values (1, 'one', 'EXT-1'), (2, 'two', null);`

// site is a test's installation: databases, receiver, and the environment that walhook is run with.
type site struct {
	t        *testing.T
	db       string // URL of the application's database
	store    string // URL of the store
	receiver *testenv.Receiver
	env      map[string]string
	extra    []string // other variables of the environment, as NAME=value
	sentinel func(n int) (statement, id string)
	fences   int
}

// newSite makes a database with the schema, and a receiver.
func newSite(t *testing.T, schema string) *site {
	t.Helper()
	return newSiteOn(t, testenv.Postgres(t), schema)
}

func newSiteOn(t *testing.T, server *pgserver.Server, schema string) *site {
	t.Helper()
	db := testenv.Database(t, server, schema)
	u, err := url.Parse(db)
	if err != nil {
		t.Fatal(err)
	}
	// Slots belong to the whole server, so each test has a name of its own.
	name := "slot_" + strings.Trim(u.Path, "/")
	return &site{
		t: t, db: db, store: db, receiver: testenv.NewReceiver(t), sentinel: defaultSentinel,
		env: map[string]string{
			"DATABASE_URL": db, "SLOT": name, "LISTEN": "127.0.0.1:0", "ALLOW_NETWORKS": "127.0.0.0/8",
			"RETRY_BASE": "50ms", "RETRY_CAP": "400ms", "DELIVERY_TIMEOUT": "2s", "LOG_LEVEL": "debug",
		},
	}
}

// with sets variables.
func (s *site) with(pairs ...string) *site {
	for i := 0; i < len(pairs); i += 2 {
		s.env[pairs[i]] = pairs[i+1]
	}
	return s
}

// withStore moves the store to a database of its own.
func (s *site) withStore(server *pgserver.Server) *site {
	s.store = testenv.Database(s.t, server, "")
	return s.with("STORE_URL", s.store)
}

// up starts a server again.
func (s *site) up(server *pgserver.Server) {
	s.t.Helper()
	if err := server.Restart(context.Background()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) command(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = []string{"WALHOOK_TEST_EXEC=1", "PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}
	for name, value := range s.env {
		cmd.Env = append(cmd.Env, "WALHOOK_"+name+"="+value)
	}
	cmd.Env = append(cmd.Env, s.extra...)
	return cmd
}

// walhook runs a command to its end and returns what it printed and its exit status.
func (s *site) walhook(args ...string) (stdout, stderr string, status int) {
	s.t.Helper()
	cmd := s.command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		s.t.Fatalf("run walhook %v: %v", args, err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// attach runs walhook attach and expects success.
func (s *site) attach() *site {
	s.t.Helper()
	if out, errOut, status := s.walhook("attach"); status != 0 {
		s.t.Fatalf("attach: status %d\n%s%s", status, out, errOut)
	}
	return s
}

// daemon is a running walhook run.
type daemon struct {
	t      *testing.T
	cmd    *exec.Cmd
	log    *logBuffer
	exited chan struct{}
}

// logBuffer gathers a process's output while it runs.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start starts walhook run. The test's end stops it.
func (s *site) start() *daemon {
	s.t.Helper()
	return s.background("run")
}

// background starts a command whose end is waited for elsewhere. The test's end kills it.
func (s *site) background(args ...string) *daemon {
	s.t.Helper()
	d := &daemon{t: s.t, cmd: s.command(args...), log: &logBuffer{}, exited: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := d.cmd.Start(); err != nil {
		s.t.Fatalf("start walhook %v: %v", args, err)
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.exited)
	}()
	s.t.Cleanup(func() {
		d.kill()
		if s.t.Failed() {
			text := d.log.String()
			s.t.Logf("the log of walhook %v ends with:\n%s", args, text[max(len(text)-6000, 0):])
		}
	})
	return d
}

// run attaches, starts the daemon and waits until it is ready.
func (s *site) run() *daemon {
	s.t.Helper()
	s.attach()
	return s.start().ready()
}

// kill ends the daemon as kill -9 does.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.exited
}

// stop asks the daemon to stop and returns its exit status.
func (d *daemon) stop() int {
	d.t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(patience):
		d.t.Fatal("the daemon did not stop")
	}
	return d.cmd.ProcessState.ExitCode()
}

// wait waits for the daemon to end by itself and returns its exit status.
func (d *daemon) wait() int {
	d.t.Helper()
	select {
	case <-d.exited:
	case <-time.After(patience):
		d.t.Fatal("the daemon did not end")
	}
	return d.cmd.ProcessState.ExitCode()
}

var listening = regexp.MustCompile(`serving health and metrics" address=(\S+)`)

// get asks the daemon's own HTTP server.
func (d *daemon) get(path string) (status int, body string) {
	match := listening.FindStringSubmatch(d.log.String())
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

// listens waits until the daemon serves HTTP, which it does first of all.
func (d *daemon) listens() {
	d.t.Helper()
	testenv.Eventually(d.t, patience, "the daemon to listen", func() (bool, string) {
		return listening.MatchString(d.log.String()), d.log.String()
	})
}

// ready waits until /readyz says 200.
func (d *daemon) ready() *daemon {
	d.t.Helper()
	d.readyz(200, "")
	return d
}

// readyz waits until /readyz answers with the status and a reason that holds the text.
func (d *daemon) readyz(want int, reason string) {
	d.t.Helper()
	testenv.Eventually(d.t, patience, fmt.Sprintf("/readyz %d %s", want, reason), func() (bool, string) {
		select {
		case <-d.exited:
			return false, "the daemon ended: " + d.log.String()
		default:
		}
		status, body := d.get("/readyz")
		return status == want && strings.Contains(body, reason), fmt.Sprintf("%d %s", status, body)
	})
}

// exec runs SQL as the application.
func (s *site) exec(statements string, args ...any) {
	s.t.Helper()
	testenv.Exec(s.t, s.db, statements, args...)
}

// meanwhile executes a statement in a database again and again, each time with the next number, until the returned function has ended
// that.
func (s *site) meanwhile(database, statement string) (end func()) {
	s.t.Helper()
	conn := testenv.Connect(s.t, database)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := conn.Exec(s.t.Context(), statement, n); err != nil {
				s.t.Errorf("%s: %v", statement, err)
				return
			}
		}
	}()
	end = sync.OnceFunc(func() {
		close(stop)
		<-ended
	})
	s.t.Cleanup(end) // where the test fails first: before the connection is closed
	return end
}

// writesAgain waits until PostgreSQL lets the application update its table.
func (s *site) writesAgain() {
	s.t.Helper()
	testenv.Eventually(s.t, patience, "the application to write again", func() (bool, string) {
		_, err := testenv.TryPsql(s.t, s.db, "update respondent set page = page + 1")
		return err == nil, fmt.Sprint(err)
	})
}

// hook adds a webhook to a path of the receiver, by default for assessment 1, and returns its id.
func (s *site) hook(path, event string, extra ...string) int64 {
	s.t.Helper()
	columns, values := "url, event_type", fmt.Sprintf("'%s', 'response.%s'", s.receiver.URL(path), event)
	assessment := "'1'"
	for i := 0; i < len(extra); i += 2 {
		if extra[i] == "assessment_id" {
			assessment = extra[i+1]
			continue
		}
		columns += ", " + extra[i]
		values += ", " + extra[i+1]
	}
	return testenv.Value[int64](s.t, s.store, fmt.Sprintf("insert into walhook.webhook (assessment_id, %s) values (%s, %s) returning id", columns, assessment, values))
}

// hooks adds a webhook for each of the four events, all to /hook.
func (s *site) hooks() *site {
	for _, event := range []string{"created", "started", "completed", "changed"} {
		s.hook("/hook", event)
	}
	return s
}

var eventOf = regexp.MustCompile(`^\{"EventType":"response\.([a-z]+)","Timestamp":[0-9]+,"Data":\{"ResponseId":(.*)\}\}$`)

// events returns what a path got, as "completed 1", in order of arrival.
func (s *site) events(path string) []string {
	s.t.Helper()
	var events []string
	for _, body := range s.receiver.Bodies(path) {
		match := eventOf.FindStringSubmatch(body)
		if match == nil {
			s.t.Fatalf("body %s is not of the contract's form", body)
		}
		events = append(events, match[1]+" "+match[2])
	}
	return events
}

// sentinel returns the SQL of the n-th respondent that fires nothing anybody listens to, and its key.
func defaultSentinel(n int) (statement, id string) {
	id = fmt.Sprint(900000000000000 + n)
	return "insert into respondent (id, assessment_id) values (" + id + ", 999999)", id
}

// waitStored waits until everything that was committed before it has been consumed and stored.
func (s *site) waitStored() {
	s.t.Helper()
	s.fences++
	statement, id := s.sentinel(s.fences)
	s.exec(statement)
	testenv.Eventually(s.t, patience, "the stream to catch up", func() (bool, string) {
		return testenv.Value[bool](s.t, s.store, "select exists (select from walhook.response_state where response_id = $1)", id), "sentinel " + id
	})
}

// dropSlot drops the slot once the server has noticed that its daemon has gone.
func (s *site) dropSlot() {
	s.t.Helper()
	testenv.Eventually(s.t, patience, "a slot that nobody reads", func() (bool, string) {
		active := testenv.Value[bool](s.t, s.db, "select active from pg_replication_slots where slot_name = $1", s.env["SLOT"])
		return !active, fmt.Sprint("active: ", active)
	})
	s.exec("select pg_drop_replication_slot($1)", s.env["SLOT"])
}

// fence makes sure that everything committed before it has been delivered, as far as it can be.
func (s *site) fence() {
	s.t.Helper()
	s.waitStored()
	testenv.Eventually(s.t, 4*patience, "an empty queue", func() (bool, string) {
		n := testenv.Value[int64](s.t, s.store, "select count(*) from walhook.queue q join walhook.webhook w on w.id = q.webhook_id where w.enabled")
		return n == 0, fmt.Sprintf("%d pending", n)
	})
}

// expect waits for exactly these events at a path, those of each response in this order, and makes sure that no other comes.
func (s *site) expect(path string, want ...string) {
	s.t.Helper()
	testenv.Eventually(s.t, patience, fmt.Sprintf("%d events at %s", len(want), path), func() (bool, string) {
		got := s.events(path)
		return len(got) >= len(want), fmt.Sprint(got)
	})
	s.fence()
	got := s.events(path)
	if diff := cmp.Diff(byResponse(want), byResponse(got)); diff != "" {
		s.t.Errorf("events at %s (-want +got):\n%s", path, diff)
	}
}

// byResponse sorts events into the stories of their responses.
func byResponse(events []string) map[string][]string {
	stories := map[string][]string{}
	for _, event := range events {
		what, id, _ := strings.Cut(event, " ")
		stories[id] = append(stories[id], what)
	}
	return stories
}

// waitRequests waits until a path has got n requests in all.
func (s *site) waitRequests(path string, n int) {
	s.t.Helper()
	testenv.Eventually(s.t, patience, fmt.Sprintf("%d requests at %s", n, path), func() (bool, string) {
		got := len(s.receiver.Bodies(path))
		return got >= n, fmt.Sprint(got)
	})
}

// pendingAfterFailure waits until a delivery of the webhook has failed and waits for its next attempt.
func (s *site) pendingAfterFailure(webhookID int64) {
	s.t.Helper()
	testenv.Eventually(s.t, patience, "a delivery that failed and is pending", func() (bool, string) {
		n := testenv.Value[int64](s.t, s.store, "select count(*) from walhook.delivery_log where webhook_id = $1 and status = 'pending' and attempts > 0", webhookID)
		return n > 0, fmt.Sprint(n)
	})
}

// waitHeartbeat lets some of the daemon's own time pass: until it has told twice more that it lives.
func (s *site) waitHeartbeat() {
	s.t.Helper()
	const query = "select max(heartbeat_at) from walhook.daemon"
	for range 2 {
		before := testenv.Value[time.Time](s.t, s.store, query)
		testenv.Eventually(s.t, patience, "a heartbeat", func() (bool, string) {
			now := testenv.Value[time.Time](s.t, s.store, query)
			return now.After(before), now.String()
		})
	}
}
