package stream

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// gapHistory has changes that happen while nobody reads the stream, and the events that the rows still show.
const gapHistory = `
	insert into respondent (id, assessment_id, started_at) values (10, 1, now());
	update respondent set finished_at = now() where id = 1;
	update respondent set finished_at = finished_at + interval '1 hour' where id = 2;
	delete from respondent where id = 3;
	update respondent set name = 'nothing happened' where id = 4`

const beforeGap = `insert into respondent (id, assessment_id, started_at, finished_at) values
	(1, 1, now(), null), (2, 1, now(), now()), (3, 1, now(), now()), (4, 1, now(), now())`

var missedInGap = []string{"created 10", "started 10", "completed 1", "changed 2"}

// expectRecovered waits for the events of the gap, and verifies that the log marks them as recovered.
func expectRecovered(s *harness.Site, path string, want ...string) {
	s.T.Helper()
	s.Expect(path, want...)
	n := testenv.Value[int](s.T, s.Store, "select count(*)::int from walhook.delivery_log where recovered")
	if n != len(want) {
		s.T.Errorf("%d deliveries are marked as recovered, not %d", n, len(want))
	}
}

func TestLostSlotLosesNothing(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Exec(beforeGap)
	d := s.Run()
	s.Hooks()
	if status := d.Stop(); status != 0 {
		t.Fatalf("stop: status %d", status)
	}
	s.DropSlot()
	s.Exec(gapHistory)
	s.Start().Ready()
	expectRecovered(s, "/hook", missedInGap...)
	if n := testenv.Value[int](t, s.Store, "select count(*)::int from walhook.incident where kind = 'slot_lost' and resolved_at is not null"); n != 1 {
		t.Errorf("%d incidents report the lost slot, not 1", n)
	}
	s.Exec("update respondent set started_at = now() where id = 4; update respondent set finished_at = now() where id = 4")
	s.Expect("/hook", append(missedInGap, "changed 4")...)
}

func TestGapsFoundWhileRunning(t *testing.T) {
	t.Parallel()
	afterwards := map[string]string{"emptied for a while": "alter publication walhook add table respondent"}
	for name, gap := range map[string]string{
		"publication dropped": "drop publication walhook",
		"publication emptied": "alter publication walhook drop table respondent",
		"emptied for a while": "alter publication walhook drop table respondent",
		"fewer actions":       "alter publication walhook set (publish = 'insert')",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema)
			s.Exec(beforeGap)
			s.Run()
			s.Hooks()
			s.Exec(gap)
			s.Exec(gapHistory)
			s.Exec(afterwards[name])
			harness.WaitResolved(s, "publication_changed")
			s.Expect("/hook", missedInGap...)
		})
	}
}

// A publication that was dropped and created again while no daemon runs looks the same, but the stream has missed
// changes.
func TestPublicationChangedBetweenDaemons(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Exec(beforeGap)
	d := s.Run()
	s.Hooks()
	d.Stop()
	s.Exec("alter publication walhook drop table respondent")
	s.Exec(gapHistory)
	s.Exec("alter publication walhook add table respondent")
	d = s.Start().Ready()
	expectRecovered(s, "/hook", missedInGap...)
	d.Stop()
	for _, harmless := range []string{"vacuum (freeze) pg_publication", "vacuum full pg_publication_rel", "alter publication walhook add table assessment"} {
		s.Exec(harmless)
	}
	s.Start().Ready()
	if n := testenv.Value[int](t, s.Store, "select count(*)::int from walhook.incident where kind = 'publication_changed'"); n != 1 {
		t.Errorf("%d incidents report a changed publication, not 1", n)
	}
}

// PostgreSQL would refuse updates of a published table without a replica identity. It is taken out of the publication,
// and added again, with the missed events, once it has one.
func TestReplicaIdentityLost(t *testing.T) {
	t.Parallel()
	const key, noKey = "alter table respondent add primary key (id)", "alter table respondent drop constraint respondent_pkey"
	for name, c := range map[string]struct {
		before, lose, giveBack, publish, reason string
		since                                   int // server version
	}{
		"primary key dropped": {"", noKey, key, "all", "stays out of publication", 0},
		"deferrable key": {
			"", noKey + ", add primary key (id) deferrable", noKey + ", add primary key (id)", "all",
			"DROP CONSTRAINT respondent_pkey, ADD PRIMARY KEY (id)", 0,
		},
		"identity nothing":  {"", "alter table respondent replica identity nothing", "alter table respondent replica identity default", "all", "stays out of publication", 0},
		"full with a list":  {"", "alter table respondent replica identity full", "alter table respondent replica identity default", "mapped", "use WALHOOK_PUBLISH=all", 150000},
		"one of all tables": {"create publication walhook for all tables", noKey, key, "all", "stays out of publication", 0},
		"one of a schema":   {"create publication walhook for tables in schema public", noKey, key, "all", "stays out of publication", 150000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.Postgres(t)
			testenv.NeedsVersion(t, server, c.since, "column lists and publications of schemas")
			s := harness.NewSite(t, harness.SampleSchema).With("PUBLISH", c.publish)
			s.Exec(beforeGap + "; " + c.before)
			d := s.Run()
			s.Hooks()
			s.Exec(c.lose)
			s.WritesAgain()
			s.Exec(gapHistory)
			d.Readyz(503, c.reason)
			s.Exec(c.giveBack)
			d.Ready()
			s.Expect("/hook", missedInGap...)
			testenv.Eventually(t, harness.Patience, "the incident to be resolved", func() (bool, string) {
				got := testenv.Psql(t, s.Store, "select kind from walhook.incident where resolved_at is null")
				return got == "", got
			})
			told := testenv.Psql(t, s.Store, "select detail from walhook.incident where kind = 'replica_identity'")
			// "was taken", and from the next check on "stays".
			if !strings.Contains(told, "out of publication") && !strings.Contains(told, "publishes no updates") {
				t.Errorf("the incident says: %s", told)
			}
		})
	}
}

// This also works while the store is unavailable and nothing can be streamed, even if the daemon has never reached it.
func TestReplicaIdentityLostWithoutStore(t *testing.T) {
	t.Parallel()
	store := testenv.NewServer(t, nil)
	s := harness.NewSite(t, harness.SampleSchema).WithStore(store)
	s.Exec(beforeGap)
	d := s.Run()
	s.Hooks()
	store.Kill()
	d.Readyz(503, "")
	for _, begun := range []bool{true, false} {
		if !begun {
			s.Exec("alter table respondent add primary key (id); alter publication walhook add table respondent")
			d.Stop()
			d = s.Start()
		}
		s.Exec("alter table respondent drop constraint respondent_pkey")
		s.WritesAgain()
	}
	s.Exec(gapHistory)
	s.Exec("alter table respondent add primary key (id)")
	s.Up(store)
	d.Ready()
	expectRecovered(s, "/hook", missedInGap...)
}

// A daemon with only the rights in the quick start does not own the publication. A function with the owner's rights
// lets it take a table out, and nothing else.
func TestReplicaIdentityLostWithoutOwnership(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Exec(beforeGap)
	s.Attach()
	s.Hooks()
	u, err := url.Parse(s.DB)
	if err != nil {
		t.Fatal(err)
	}
	role := "daemon_" + strings.Trim(u.Path, "/")
	for _, statement := range []string{
		"create role %s login replication password 'secret'", "grant usage on schema public to %s",
		"grant select (id, assessment_id, started_at, finished_at) on respondent to %s", "grant walhook_daemon to %s",
	} {
		s.Exec(fmt.Sprintf(statement, role))
	}
	t.Cleanup(func() {
		s.Exec(fmt.Sprintf("drop owned by %s", role))
		s.Exec(fmt.Sprintf("drop role %s", role))
	})
	u.User = url.UserPassword(role, "secret")
	s.With("DATABASE_URL", u.String())
	d := s.Start().Ready()

	// If the DBA has revoked that function, the daemon reports the statement to run.
	s.Exec("revoke execute on function walhook.unpublish(name, regclass) from walhook_daemon")
	s.Exec("alter table respondent drop constraint respondent_pkey")
	d.Readyz(503, `ALTER PUBLICATION "walhook" DROP TABLE "public"."respondent"`)
	if _, err := testenv.TryPsql(t, s.DB, "update respondent set page = page + 1"); err == nil {
		t.Error("the table is no longer published, though nobody had the right to change that")
	}
	s.Exec("grant execute on function walhook.unpublish(name, regclass) to walhook_daemon")
	s.WritesAgain()
	s.Exec(gapHistory)
	s.Exec("alter table respondent add primary key (id)")
	d.Readyz(503, `alter publication "walhook" set table "public"."respondent"`)
	s.Exec(`alter publication walhook set table respondent`)
	d.Ready()
	s.Expect("/hook", missedInGap...)
	for _, statement := range []string{"alter publication walhook drop table respondent", "alter publication walhook add table assessment", "drop publication walhook"} {
		if out, err := testenv.TryPsql(t, u.String(), statement); err == nil || !strings.Contains(out, "must be owner of publication") {
			t.Errorf("the daemon's role may: %s\n%s", statement, out)
		}
	}
	if status := d.Stop(); status != 0 {
		t.Errorf("stop: status %d", status)
	}

	// Such a role cannot detach either, and the attempt changes nothing.
	for _, args := range [][]string{{"detach"}, {"detach", "--drop-schema"}} {
		if _, errOut, status := s.Walhook(args...); status != 1 || !strings.Contains(errOut, "nothing was changed") {
			t.Errorf("%v: status %d, %s", args, status, errOut)
		}
	}
	if left := testenv.Psql(t, s.DB, "select count(*) from pg_replication_slots where slot_name = '"+s.Env["SLOT"]+"' union all select count(*) from pg_publication"); left != "1\n1" {
		t.Errorf("slots and publications are %q", left)
	}
}

// A daemon does not close a gap again that a manual comparison has closed: the stream has events that the rows no
// longer show.
func TestGapClosedByHand(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	s.Hooks()
	s.Exec("insert into respondent (id, assessment_id) values (5, 1)")
	s.Expect("/hook", "created 5")
	s.Exec("alter table respondent drop constraint respondent_pkey")
	testenv.Eventually(t, harness.Patience, "the daemon to have tried to close the gap", func() (bool, string) {
		return strings.Count(d.Log.String(), "the stream may have missed changes") > 1, d.Log.String()
	})
	s.Exec("alter table respondent add primary key (id)")
	if _, errOut, status := s.Walhook("reconcile"); status != 0 {
		t.Fatalf("reconcile: status %d: %s", status, errOut)
	}
	for range 3 {
		s.Exec("update respondent set finished_at = clock_timestamp() where id = 5")
	}
	s.Expect("/hook", "created 5", "completed 5", "changed 5", "changed 5")
}

func TestTableSwapped(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Exec(beforeGap)
	s.Run()
	s.Hooks()
	s.Exec(`begin; create table fresh (like respondent including all); insert into fresh select * from respondent;
		alter table respondent rename to old; alter table fresh rename to respondent; commit`)
	s.Exec(gapHistory)
	harness.WaitResolved(s, "table_replaced")
	s.Expect("/hook", missedInGap...)
}

// If a table with the same name has different rows with reused ids, a row with less progress than its response, or of
// another assessment, is a new response. Copied rows remain the same responses.
func TestTableSwappedReusesIDs(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Exec(`insert into respondent (id, assessment_id, started_at, finished_at) values
		(1, 1, now(), now()), (2, 1, now(), now()), (3, 2, null, null), (4, 1, now(), null), (5, 1, now(), null), (6, 1, null, null)`)
	s.Run()
	s.Hooks()
	s.Exec(`begin; create table fresh (like respondent including all); insert into fresh select * from respondent where id in (2, 4, 6);
		alter table respondent rename to old; alter table fresh rename to respondent;
		insert into respondent (id, assessment_id) values (1, 1), (3, 1), (5, 1);
		update respondent set finished_at = now() where id = 4; commit`)
	harness.WaitResolved(s, "table_replaced")
	s.Exec("update respondent set started_at = now(), finished_at = now() where id = 1")
	s.Exec("update respondent set page = page + 1, finished_at = finished_at + interval '1 s' where id = 2")
	s.Expect("/hook", "created 1", "created 3", "completed 4", "created 5", "started 1", "completed 1", "changed 2")
}

func TestMissingColumnStopsTheStream(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Exec(beforeGap)
	d := s.Run()
	s.Hooks()
	s.Exec("alter table respondent rename finished_at to done_at")
	s.Exec("update respondent set done_at = now() where id = 1")
	d.Readyz(503, "finished_at")
	if n := len(s.Receiver.Requests()); n != 0 {
		t.Errorf("%d requests came", n)
	}
	s.Exec("alter table respondent rename done_at to finished_at")
	d.Ready()
	s.Expect("/hook", "completed 1")
}

// A response that was finished and reopened in a gap finishes once afterwards, though its new stamp follows later.
func TestReopenedInAGap(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema+"alter table respondent add state text")
	s.With("FINISHED", "state=done", "FINISH_STAMP", "finished_at")
	s.Exec("insert into respondent (id, assessment_id, started_at) values (1, 1, now())")
	d := s.Run()
	s.Hooks()
	d.Stop()
	s.DropSlot()
	s.Exec("update respondent set state = 'done', finished_at = '2026-01-01'; update respondent set state = 'open'")
	s.Start().Ready()
	s.WaitStored()
	s.Exec("update respondent set state = 'done' where id = 1")
	s.Exec("update respondent set finished_at = '2026-01-02' where id = 1")
	s.Expect("/hook", "completed 1")
	s.Exec("update respondent set finished_at = '2026-01-03' where id = 1")
	s.Expect("/hook", "completed 1", "changed 1")
}

func TestReconcileCommand(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Exec(beforeGap)
	d := s.Run()
	s.Hooks()
	d.Stop()
	s.DropSlot()
	s.Exec(gapHistory)
	_, errOut, status := s.Walhook("reconcile")
	if status != 0 || !strings.Contains(errOut, "4 events fired") {
		t.Fatalf("reconcile: status %d, %s", status, errOut)
	}
	if _, errOut, status = s.Walhook("reconcile"); status != 0 || !strings.Contains(errOut, " 0 events fired") {
		t.Errorf("reconcile again: status %d, %s", status, errOut)
	}
	s.Start().Ready()
	expectRecovered(s, "/hook", missedInGap...)
}

// Changes in an intact slot fire as without the comparison: both finishes, and not marked as recovered.
func TestReconcileConsumesTheSlotFirst(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Exec(beforeGap)
	d := s.Run()
	s.Hooks()
	d.Stop()
	s.Exec("update respondent set finished_at = now() where id = 1")
	s.Exec("update respondent set finished_at = finished_at + interval '1 hour' where id = 1")
	_, errOut, status := s.Walhook("reconcile")
	if status != 0 || !strings.Contains(errOut, "0 differed, 0 were gone, 0 events fired") {
		t.Fatalf("reconcile: status %d, %s", status, errOut)
	}
	if queued := testenv.Psql(t, s.Store, "select event_type, recovered from walhook.delivery_log order by 1"); queued != "response.changed|f\nresponse.completed|f" {
		t.Errorf("queued is\n%s", queued)
	}
	s.Exec("update respondent set finished_at = finished_at + interval '2 hours' where id = 1")
	s.Start().Ready()
	s.Expect("/hook", "completed 1", "changed 1", "changed 1")
	if kinds := testenv.Psql(t, s.Store, "select kind from walhook.incident"); kinds != "reconcile" {
		t.Errorf("incidents: %s", kinds)
	}
}

// Daemons and application may keep running: the daemon that reads the slot yields, and nothing fires twice.
func TestReconcileBesideDaemons(t *testing.T) {
	t.Parallel()
	const n = 3000
	s := harness.NewSite(t, harness.SampleSchema)
	s.Exec("insert into respondent (id, assessment_id, finished_at) values (-1, 1, now()), (-2, 1, now())")
	reading := s.Run()
	standing := s.Start()
	standing.Readyz(200, "standing by")
	s.Hook("/hook", "created")
	s.Hook("/hook", "started")
	s.Hook("/missed", "completed")
	wait := writers(s, n)
	queued(s, 100)
	// As if these had never been in the stream.
	s.Exec("update walhook.response_state set flags = 0 where response_id in ('-1', '-2')")
	for _, fired := range []string{" 2 events fired", " 0 events fired"} {
		if _, errOut, status := s.Walhook("reconcile"); status != 0 || !strings.Contains(errOut, fired) {
			t.Errorf("reconcile: status %d, %s", status, errOut)
		}
	}
	wait()
	harness.CheckExactlyOnce(s, n, "created", "started")
	if missed := testenv.Psql(t, s.Store, "select response_id, recovered from walhook.delivery_log where event_type = 'response.completed' order by 1"); missed != "-1|t\n-2|t" {
		t.Errorf("what was missed is\n%s", missed)
	}
	for _, d := range []*harness.Daemon{reading, standing} {
		d.Ready()
		if strings.Contains(d.Log.String(), "level=ERROR") {
			t.Errorf("a daemon complains:\n%s", d.Log.String())
		}
	}
}

// Concurrent comparisons run one after the other: the one that has the slot does not yield.
func TestTwoReconcilesAtOnce(t *testing.T) {
	t.Parallel()
	const n = 150000
	s := harness.NewSite(t, harness.SampleSchema).Attach()
	s.Exec("insert into respondent (id, assessment_id) select g, 1 from generate_series(1, $1::int) g", n)
	both := []*harness.Daemon{s.Background("reconcile"), s.Background("reconcile")}
	for _, d := range both {
		select {
		case <-d.Exited:
		case <-time.After(4 * harness.Patience):
			t.Fatal("a comparison does not end")
		}
		if status := d.Cmd.ProcessState.ExitCode(); status != 0 || !strings.Contains(d.Log.String(), "0 differed") {
			t.Errorf("reconcile: status %d, %s", status, d.Log)
		}
	}
	if got := testenv.Psql(t, s.Store, "select count(*) from walhook.response_state"); got != fmt.Sprint(n) {
		t.Errorf("%s responses are recorded, not %d", got, n)
	}
}

// A long-running ALTER of the application's table does not keep the daemon from finding problems.
func TestWatchWaitsForNoLock(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	s.Hook("/hook", "created")
	alters := testenv.Connect(t, s.DB)
	if _, err := alters.Exec(t.Context(), "begin; lock table respondent in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	s.Exec("alter publication walhook set (publish = 'insert')")
	testenv.Eventually(t, harness.Patience, "the changed publication to be found", func() (bool, string) {
		text := d.Log.String()
		return strings.Contains(text, "the stream may have missed changes"), text
	})
	if _, err := alters.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	harness.WaitResolved(s, "publication_changed")
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/hook", "created 1")
}

// A precondition of attach that no longer holds opens an incident at once, and the stream continues.
func TestPreconditionLost(t *testing.T) {
	t.Parallel()
	const full = "alter table respondent replica identity full; alter table respondent drop constraint respondent_pkey"
	for name, c := range map[string]struct{ lose, giveBack, says string }{
		"inheritance":                {"create table heir () inherits (respondent)", "drop table heir", "other tables inherit from public.respondent.*NO INHERIT"},
		"inheritance of assessments": {"create table heir () inherits (assessment)", "drop table heir", "other tables inherit from public.assessment.*NO INHERIT"},
		"no key":                     {full, "alter table respondent add primary key (id)", "does not identify a row"},
		"no key of assessments": {
			strings.ReplaceAll(full, "respondent", "assessment"), "alter table assessment add primary key (id)", `"id" of public.assessment is not a primary key`,
		},
		"deferrable key": {full + ", add primary key (id) deferrable", "alter table respondent drop constraint respondent_pkey, add primary key (id)", "deferrable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema).With("ASSESSMENT_TABLE", "assessment")
			d := s.Run()
			s.Hook("/hook", "created")
			s.Exec(c.lose)
			harness.WaitIncident(s, "precondition_lost", c.says)
			s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
			s.Exec("update respondent set page = 1")
			s.Exec(c.giveBack)
			harness.WaitResolved(s, "precondition_lost")
			d.Ready()
			s.Expect("/hook", "created 1")
		})
	}
}
