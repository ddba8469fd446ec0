package commands

import (
	"context"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// Where synchronous_standby_names matches the daemon alone, the application's commits wait for it. They go through, whatever the daemon
// itself commits on that server, and an incident says what to change.
func TestDaemonIsTheOnlyStandby(t *testing.T) {
	t.Parallel()
	s := harness.NewSiteOn(t, testenv.NewServer(t, nil), harness.SampleSchema+"create table other (n int);")
	daemon := s.Run()
	s.Hooks()
	set := func(value string) {
		t.Helper()
		testenv.Exec(t, s.DB, "alter system set synchronous_standby_names = "+value)
		testenv.Exec(t, s.DB, "select pg_reload_conf()")
		testenv.Exec(t, s.DB, "checkpoint") // by the process that has commits wait, and that takes the setting over before
	}
	set("'*'")
	t.Cleanup(func() { set("''") })
	writer := testenv.Connect(t, s.DB)
	write := func(statement string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
		defer cancel()
		if _, err := writer.Exec(ctx, statement); err != nil {
			t.Fatalf("%s: %v\n%s", statement, err, testenv.Psql(t, s.DB, "select pid, application_name, wait_event, query from pg_stat_activity where state <> 'idle'"))
		}
	}
	write("insert into respondent (id, assessment_id) values (1, 1)")
	write("insert into other values (1)")
	s.Expect("/hook", "created 1")
	harness.WaitIncident(s, "precondition_lost", "synchronous_standby_names is \\*.*ALTER SYSTEM SET synchronous_standby_names")
	if out, _, _ := s.Walhook("doctor"); !strings.Contains(out, "commits of the application wait for the daemon, and hang while none runs") {
		t.Errorf("doctor says\n%s", out)
	}

	daemon.Stop()
	s.Run() // it registers before anything is acknowledged
	write("update respondent set started_at = now()")
	s.Expect("/hook", "created 1", "started 1")
	set("''")
	harness.WaitResolved(s, "precondition_lost")
}
