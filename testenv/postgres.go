package testenv

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/testenv/pgserver"
)

var shared struct {
	sync.Mutex
	server *pgserver.Server
	err    error
}

// Main runs a package's tests and stops the shared server. Call it from TestMain.
func Main(m *testing.M) {
	status := m.Run()
	if shared.server != nil {
		shared.server.Stop()
	}
	os.Exit(status)
}

// Postgres returns the server that all tests of the process share. A missing server fails the test.
func Postgres(t testing.TB) *pgserver.Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = pgserver.Start(context.Background(), pgserver.Options{Version: wanted()})
	}
	if shared.err != nil {
		t.Fatalf("start PostgreSQL: %v", shared.err)
	}
	assertVersion(t, shared.server)
	return shared.server
}

// NewServer starts a server for one test, which may stop and kill it.
func NewServer(t testing.TB, settings map[string]string) *pgserver.Server {
	t.Helper()
	server, err := pgserver.Start(context.Background(), pgserver.Options{Version: wanted(), Settings: settings})
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log := server.Log()
			t.Logf("the server's log ends with:\n%s", log[max(len(log)-4000, 0):])
		}
		server.Stop()
	})
	assertVersion(t, server)
	return server
}

// wanted is the major version that WALHOOK_TEST_PG asks for, 0 for any.
func wanted() int {
	version, _ := strconv.Atoi(os.Getenv("WALHOOK_TEST_PG"))
	return version
}

// assertVersion makes sure that a run on a certain version is one.
func assertVersion(t testing.TB, server *pgserver.Server) {
	t.Helper()
	if want := wanted(); want != 0 && server.Version()/10000 != want {
		t.Fatalf("WALHOOK_TEST_PG asks for PostgreSQL %d and the server is %d", want, server.Version())
	}
}

var databases atomic.Int64

// Database makes a database, runs the script in it, and drops it when the test has ended. It returns its URL.
func Database(t testing.TB, server *pgserver.Server, script string) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	Exec(t, server.URL("postgres"), "create database "+name)
	t.Cleanup(func() { dropDatabase(t, server, name) })
	url := server.URL(name)
	if script != "" {
		Exec(t, url, script)
	}
	return url
}

// dropDatabase drops a database with its slots. A walsender may take a moment to end.
func dropDatabase(t testing.TB, server *pgserver.Server, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, server.URL("postgres"))
	if err != nil {
		return // the test has stopped the server
	}
	defer conn.Close(ctx)
	for {
		_, err = conn.Exec(ctx, "select pg_terminate_backend(active_pid) from pg_replication_slots where database = $1 and active", name)
		if err == nil {
			_, err = conn.Exec(ctx, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = $1", name)
		}
		if err == nil {
			_, err = conn.Exec(ctx, "drop database if exists "+name+" with (force)")
		}
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Errorf("drop database %s: %v", name, err)
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Connect opens a connection that is closed when the test has ended.
func Connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// Exec runs statements on a connection of their own; with arguments, one.
func Exec(t testing.TB, url, statements string, args ...any) {
	t.Helper()
	if err := TryExec(url, statements, args...); err != nil {
		t.Fatalf("run %.200s: %v", statements, err)
	}
}

// TryExec is Exec for tests that expect an error.
func TryExec(url, statements string, args ...any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if len(args) == 0 {
		_, err = conn.PgConn().Exec(ctx, statements).ReadAll()
	} else {
		_, err = conn.Exec(ctx, statements, args...)
	}
	return err
}

// Value runs a query and returns the one value that it yields.
func Value[T any](t testing.TB, url, query string, args ...any) T {
	t.Helper()
	values := Values[T](t, url, query, args...)
	if len(values) != 1 {
		t.Fatalf("query %s: %d rows instead of 1", query, len(values))
	}
	return values[0]
}

// Values runs a query and returns its one column.
func Values[T any](t testing.TB, url, query string, args ...any) []T {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		t.Fatalf("query %s: %v", query, err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("query %s: %v", query, err)
	}
	return values
}

// Eventually waits until the condition holds, and fails with its last word when it does not in time.
func Eventually(t testing.TB, within time.Duration, what string, condition func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		ok, detail := condition()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %s", what, within, detail)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Psql runs a script with psql, as people do, and returns what it prints: unaligned, tuples only.
func Psql(t testing.TB, url, script string) string {
	t.Helper()
	out, err := TryPsql(t, url, script)
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	return out
}

// TryPsql is Psql for scripts that are to fail; the output holds the error.
func TryPsql(t testing.TB, url, script string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("psql")
	if err != nil {
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/psql")
		if len(found) == 0 {
			t.Fatal("psql is neither on PATH nor in /usr/lib/postgresql: install PostgreSQL's client")
		}
		path = found[len(found)-1]
	}
	cmd := exec.Command(path, "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", url)
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	return strings.TrimRight(string(out), "\n"), err
}
