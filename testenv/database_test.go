package testenv

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// A test's database is dropped when the test ends, together with everything that would prevent it: sessions, slots,
// prepared transactions.
func TestDatabaseIsDropped(t *testing.T) {
	t.Parallel()
	server := Postgres(t)
	var name string
	t.Run("uses one", func(t *testing.T) {
		url := Database(t, server, "create table a (n int); insert into a values (41), (42)")
		name = Value[string](t, url, "select current_database()")
		Exec(t, url, "select pg_create_logical_replication_slot('left_behind', 'pgoutput')")
		if got := Values[int32](t, url, "select n from a order by n"); len(got) != 2 || got[1] != 42 {
			t.Errorf("the script left %v", got)
		}
		Exec(t, url, "begin; insert into a values (43); prepare transaction 'it''s prepared'")
		stream(t, url, "left_behind")
	})
	left := Psql(t, server.URL("postgres"), "select count(*) from pg_database where datname = '"+name+"' union all select count(*) from pg_replication_slots where slot_name = 'left_behind'")
	if left != "0\n0" {
		t.Errorf("databases and slots left behind: %s", left)
	}
}

// stream starts streaming from a slot, on a connection that stays open.
func stream(t *testing.T, url, slot string) {
	t.Helper()
	Exec(t, url, "create publication p for all tables")
	conn := Connect(t, url+"&replication=database")
	conn.PgConn().Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION SLOT " + slot + " LOGICAL 0/0 (proto_version '1', publication_names 'p')"})
	if err := conn.PgConn().Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	if answer, err := conn.PgConn().ReceiveMessage(t.Context()); err != nil {
		t.Fatalf("start replication: %T %v", answer, err)
	} else if refusal, ok := answer.(*pgproto3.ErrorResponse); ok {
		t.Fatalf("start replication: %s", refusal.Message)
	}
	Eventually(t, patience, "a walsender", func() (bool, string) {
		return Value[int64](t, url, "select count(*) from pg_replication_slots where slot_name = $1 and active", slot) == 1, "the slot is not active"
	})
}

// It is no error if the test has dropped the database itself.
func TestDatabaseMayBeDroppedByTheTest(t *testing.T) {
	t.Parallel()
	server := Postgres(t)
	name := Value[string](t, Database(t, server, ""), "select current_database()")
	Exec(t, server.URL("postgres"), "drop database "+name+" with (force)")
}

// A template is filled once, and every clone is a separate database.
func TestTemplate(t *testing.T) {
	t.Parallel()
	server := Postgres(t)
	fill := func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "create table a (n int); insert into a values (1); select pg_sleep(0.1)")
		return err
	}
	var urls [4]string
	var all sync.WaitGroup
	for i := range urls {
		all.Go(func() { urls[i] = Clone(t, server, Template(t, server, "of_test", fill)) })
	}
	all.Wait()
	Exec(t, urls[0], "insert into a values (2)")
	for i, want := range []int64{2, 1, 1, 1} {
		if n := Value[int64](t, urls[i], "select count(*) from a"); n != want {
			t.Errorf("clone %d holds %d rows instead of %d", i, n, want)
		}
	}
	if err := TryExec(server.URL("template_of_test"), "select 1"); err == nil {
		t.Error("a template accepts connections")
	}
}

// A test's own server has the requested settings, and may be killed and stopped before the test ends.
func TestNewServer(t *testing.T) {
	t.Parallel()
	server := NewServer(t, map[string]string{"work_mem": "7MB"})
	url := Database(t, server, "create table kept (n int); insert into kept values (1)")
	server.Kill()
	if err := TryExec(url, "select 1"); err == nil {
		t.Error("a killed server answers")
	}
	if err := server.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := Psql(t, url, "select count(*), current_setting('work_mem') from kept"); got != "1|7MB" {
		t.Errorf("after a crash the server says %s", got)
	}
	server.Stop() // its database is removed with it
}

func TestPsqlEndsAtTheFirstError(t *testing.T) {
	t.Parallel()
	out, err := TryPsql(t, Postgres(t).URL("postgres"), "select 1;\nselect nothing;\nselect 2;")
	if err == nil || out != "1\nERROR:  column \"nothing\" does not exist" {
		t.Errorf("%v\n%s", err, out)
	}
}

// psql is taken from the folder of the server's programs if it is there, and otherwise from elsewhere.
func TestFindPsql(t *testing.T) {
	t.Parallel()
	PsqlProgram(t)
	dir := t.TempDir()
	if path, err := findPsql(dir); err != nil || strings.HasPrefix(path, dir) {
		t.Errorf("found %q, %v", path, err)
	}
	own := filepath.Join(dir, "psql")
	if err := os.WriteFile(own, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if path, err := findPsql(dir); err != nil || path != own {
		t.Errorf("found %q, %v", path, err)
	}
}
