package testenv

import (
	"os"
	"testing"
)

// A reused session shows nothing of the previous statement: no settings, temporary tables, locks or transactions. It is
// replaced if its server process was terminated.
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

// A session that runs a script prints what psql prints: errors with their status, notices, statements without a
// semicolon.
func TestScriptsPrintAlike(t *testing.T) {
	t.Parallel()
	url := Database(t, Postgres(t), "")
	run := map[string]func(url, script string) (string, error){"a session": runInSession}
	if path, err := findPsql(os.Getenv("PGBIN")); err == nil {
		run["psql"] = func(url, script string) (string, error) { return runInPsql(path, url, script) }
	}
	for name, run := range run {
		for range 2 {
			for script, want := range map[string]string{
				"select 1, null, true":                                "1||t",
				"select 1; select 'two' -- and a comment; not an end": "1\ntwo",

				"do $$ begin raise notice 'noted' using detail = 'd', hint = 'h'; end $$; select 3;":                                                     "NOTICE:  noted\nDETAIL:  d\nHINT:  h\n3",
				"select 'a;''b', e'c''d', $x$;$$;$x$; select 4 as \"a;b\" /* ; */":                                                                       "a;'b|c'd|;$$;\n4",
				"begin; create table t (n int); insert into t values (1); rollback; select to_regclass('t') is null":                                     "t",
				"create function pg_temp.f(n int) returns int begin atomic select case when n > 1 then 1 else 2 end; select n; end; select pg_temp.f(5)": "5",
				"": "",
			} {
				if got, err := run(url, script); got != want || err != nil {
					t.Errorf("%s, %s: %q, not %q (%v)", name, script, got, want, err)
				}
			}
			for script, want := range map[string]string{
				"select 1;\nselect 1/0;\nselect 2;": "1\nERROR:  division by zero",
				"select 1/0":                        "ERROR:  division by zero",
				"create temp table kept as select 7 as n; select 1/0": "ERROR:  division by zero",
			} {
				if out, err := run(url, script); err == nil || err.Error() != "exit status 3" || out != want {
					t.Errorf("%s, %s: %v\n%s", name, script, err, out)
				}
			}
		}
		if out, err := run(url+"_not", "select 1"); err == nil || err.Error() != "exit status 2" {
			t.Errorf("%s, a database that does not exist: %v\n%s", name, err, out)
		}
	}
}
