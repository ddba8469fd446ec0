package testenv

import "testing"

// What is kept from statement to statement shows nothing of that: neither settings nor tables, locks and transactions of the
// one before, and it is there again when its server process was ended.
func TestSessionsAreAsNew(t *testing.T) {
	t.Parallel()
	url := Database(t, Postgres(t), "create table a (n int)")
	const leave = "set work_mem = '77MB'; create temporary table a as select 1 as n; select pg_advisory_lock(42), set_config('search_path', 'pg_catalog', false);"
	const look = `select current_setting('work_mem') = '77MB', (select count(*) from a), to_regclass('pg_temp.a') is null,
		(select count(*) from pg_locks where locktype = 'advisory' and objid = 42)`
	run := map[string]func(string){
		"Exec": func(script string) { Exec(t, url, script) },
		"Psql": func(script string) { Psql(t, url, script) },
	}
	for name, run := range run {
		for _, end := range []string{"", "begin; insert into a values (1); lock table public.a", "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"} {
			run(leave)
			run(end)
			if got := Psql(t, url, look); got != "f|0|t|0" {
				t.Errorf("after %s and %q, psql sees %s", name, end, got)
			}
			if got := Value[string](t, url, "select concat_ws('|', x, y, z, l) from ("+look+") s (x, y, z, l)"); got != "f|0|t|0" {
				t.Errorf("after %s and %q, a query sees %s", name, end, got)
			}
		}
	}
}

// A psql that is kept says what a new one says: errors with their status, notices, statements without a semicolon.
func TestPsqlIsKept(t *testing.T) {
	t.Parallel()
	url := Database(t, Postgres(t), "")
	for range 2 {
		for script, want := range map[string]string{
			"select 1, null, true":                                "1||t",
			"select 1; select 'two' -- and a comment":             "1\ntwo",
			"do $$ begin raise notice 'noted'; end $$; select 3;": "NOTICE:  noted\n3",
			"": "",
		} {
			if got := Psql(t, url, script); got != want {
				t.Errorf("%s: %q, not %q", script, got, want)
			}
		}
		for script, want := range map[string]string{"select 1;\nselect 1/0;\nselect 2;": "1\nERROR:  division by zero", "select 1/0": "ERROR:  division by zero"} {
			if out, err := TryPsql(t, url, script); err == nil || err.Error() != "exit status 3" || out != want {
				t.Errorf("%s: %v\n%s", script, err, out)
			}
		}
	}
	if out, err := TryPsql(t, url+"_not", "select 1"); err == nil || err.Error() != "exit status 2" {
		t.Errorf("a database that does not exist: %v\n%s", err, out)
	}
}
