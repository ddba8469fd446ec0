package testenv

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"walhook/testenv/pgserver"
)

// A killed server comes back at the same port with all that was committed, and nothing of it is left after Stop.
func TestServerKillAndRestart(t *testing.T) {
	t.Parallel()
	server, err := pgserver.Start(context.Background(), pgserver.Options{Settings: map[string]string{"work_mem": "7MB"}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	url, port, data := server.URL("postgres"), server.Port(), server.DataDir()
	Exec(t, url, "create table kept (n int); insert into kept values (1)")
	for range 2 {
		server.Kill()
		if err := TryExec(url, "select 1"); err == nil {
			t.Error("a killed server answers")
		}
		if err := server.Restart(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if got := Psql(t, url, "select count(*), current_setting('work_mem'), current_setting('wal_level') from kept"); got != "1|7MB|logical" {
		t.Errorf("after two crashes the server says %s", got)
	}
	if server.Port() != port {
		t.Errorf("the port was %d and is %d", port, server.Port())
	}
	pid := server.PID()
	server.Stop()
	server.Stop() // may be repeated
	if _, err := os.Stat(filepath.Dir(data)); !os.IsNotExist(err) {
		t.Errorf("%s is left behind: %v", filepath.Dir(data), err)
	}
	if err := syscall.Kill(pid, 0); err == nil {
		t.Errorf("process %d is left behind", pid)
	}
}

// A test's database goes with it, slots included.
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
	})
	left := Psql(t, server.URL("postgres"), "select count(*) from pg_database where datname = '"+name+"' union all select count(*) from pg_replication_slots where slot_name = 'left_behind'")
	if left != "0\n0" {
		t.Errorf("databases and slots left behind: %s", left)
	}
}

func TestPsqlFails(t *testing.T) {
	t.Parallel()
	out, err := TryPsql(t, Postgres(t).URL("postgres"), "select 1;\nselect nothing;\nselect 2;")
	if err == nil || out != "1\nERROR:  column \"nothing\" does not exist\nLINE 1: select nothing;\n               ^" {
		t.Errorf("%v\n%s", err, out)
	}
}
