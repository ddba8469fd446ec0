package testenv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/testenv/pgserver"
)

var databases atomic.Int64

// Database creates a database, runs the script in it, and drops it when the test ends. It returns its URL.
func Database(t testing.TB, server *pgserver.Server, script string) string {
	t.Helper()
	url := Clone(t, server, "template1")
	if script != "" {
		Exec(t, url, script)
	}
	return url
}

// Clone creates a database as a copy of a template, and drops it when the test ends. It returns its URL. Replication
// slots and settings of the database itself are not copied.
func Clone(t testing.TB, server *pgserver.Server, template string) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	how := ""
	if server.Version() >= 150000 {
		// Otherwise the whole copy passes through the WAL, where every walsender of the server reads it.
		how = " strategy file_copy"
	}
	Exec(t, server.URL("postgres"), "create database "+quoted(name)+" template "+quoted(template)+how)
	t.Cleanup(func() { dropDatabase(t, server, name) })
	return server.URL(name)
}

// EncodedDatabase is Database with another encoding, such as LATIN1.
func EncodedDatabase(t testing.TB, server *pgserver.Server, encoding, script string) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	Exec(t, server.URL("postgres"), "create database "+quoted(name)+" template template0 encoding '"+encoding+"' lc_collate 'C' lc_ctype 'C'")
	t.Cleanup(func() { dropDatabase(t, server, name) })
	url := server.URL(name)
	if script != "" {
		Exec(t, url, script)
	}
	return url
}

type templateKey struct {
	server *pgserver.Server
	name   string
}

var templates struct {
	sync.Mutex
	filled map[templateKey]bool
}

// Template creates a database to Clone from and fills it, for the first test that asks. The name then stands for the
// content as long as the server runs. It returns the database's name.
func Template(t testing.TB, server *pgserver.Server, name string, fill func(ctx context.Context, conn *pgx.Conn) error) string {
	t.Helper()
	templates.Lock()
	defer templates.Unlock()
	database := "template_" + name
	key := templateKey{server: server, name: name}
	if templates.filled[key] {
		return database
	}
	admin := server.URL("postgres")
	Exec(t, admin, "drop database if exists "+quoted(database)) // left behind by a test that could not fill it
	Exec(t, admin, "create database "+quoted(database))
	conn, err := pgx.Connect(t.Context(), server.URL(database))
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	err = fill(t.Context(), conn)
	_ = conn.Close(t.Context())
	if err != nil {
		t.Fatalf("fill template %s: %v", name, err)
	}
	// A template with a session in it cannot be copied, so nobody may connect to it.
	Exec(t, admin, "alter database "+quoted(database)+" allow_connections false")
	if templates.filled == nil {
		templates.filled = map[templateKey]bool{}
	}
	templates.filled[key] = true
	return database
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

// dropDatabase drops a database with its sessions, prepared transactions and slots. A walsender may take a moment to exit.
func dropDatabase(t testing.TB, server *pgserver.Server, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	endSessions(server.Port(), name)
	if !server.Running() {
		return // the test has stopped the server, whose data is removed
	}
	for {
		err := tryDropDatabase(ctx, server, name)
		if err == nil || !server.Running() {
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

func tryDropDatabase(ctx context.Context, server *pgserver.Server, name string) error {
	conn, err := borrow(ctx, server.URL("postgres"))
	if err != nil {
		return err
	}
	defer giveBack(ctx, server.URL("postgres"), conn)
	if err := rollBackPrepared(ctx, conn, server, name); err != nil {
		return err
	}
	// A daemon that still runs would reconnect as fast as its sessions are terminated.
	_, err = conn.Exec(ctx, "alter database "+quoted(name)+" allow_connections false")
	if pgErr := (*pgconn.PgError)(nil); errors.As(err, &pgErr) && pgErr.Code == "3D000" {
		return nil // the test has dropped it
	}
	if err != nil {
		return err
	}
	for _, statement := range []string{
		"select pg_terminate_backend(pid) from pg_stat_activity where datname = $1",
		"select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = $1",
	} {
		if _, err := conn.Exec(ctx, statement, name); err != nil {
			return err
		}
	}
	_, err = conn.Exec(ctx, "drop database if exists "+quoted(name)+" with (force)")
	return err
}

// rollBackPrepared rolls back prepared transactions, which only a session in their database may do.
func rollBackPrepared(ctx context.Context, admin *pgx.Conn, server *pgserver.Server, name string) error {
	rows, err := admin.Query(ctx, "select format('rollback prepared %L', gid) from pg_prepared_xacts where database = $1", name)
	if err != nil {
		return err
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(statements) == 0 {
		return err
	}
	conn, err := pgx.Connect(ctx, server.URL(name))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}
