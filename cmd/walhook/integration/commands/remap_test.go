package commands

import (
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// attach --remap moves to another mapping: the past fires nothing, and nothing in between is lost, although it is killed
// at every step while the daemon runs.
func TestMovingToAnotherMapping(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema+"alter table respondent add state text")
	s.Exec("insert into respondent (id, assessment_id, state) values (1, 1, 'done'), (2, 1, 'open')")
	d := s.Run()
	standby := s.Start().Ready()
	s.Hooks()
	want := expectation{site: s}
	s.Exec("insert into respondent (id, assessment_id, state) values (3, 1, 'done')")
	s.Exec("update respondent set finished_at = now() where id = 2")
	want.more("created 3", "completed 2")

	after := map[string]string{"FINISHED": "state=done", "ASSESSMENT_TABLE": "public.assessment", "ASSESSMENT_ORGANIZATION": "title"}
	before := set(s, after)
	harness.MustFail(s, "attach", `WALHOOK_FINISHED                 "finished_at"  "state=done"`, "walhook attach --remap")
	harness.MustFail(s, "plan", "walhook attach --remap")
	harness.MustFail(s, "doctor", "walhook attach --remap")
	for _, instant := range []struct{ holds, waits string }{
		{"lock table assessment in share update exclusive mode", "alter publication"},
		{"select pg_current_xact_id()", "CREATE_REPLICATION_SLOT"},
		{"lock table walhook.response_state in share mode", "delete from walhook.response_state"},
		{"lock table walhook.attachment in share mode", "update walhook.attachment set mapping"},
	} {
		set(s, after)
		killedAt(s, instant.holds, instant.waits)
		set(s, before)
		s.Exec("update respondent set finished_at = clock_timestamp() where id = 2")
		want.more("changed 2")
	}

	s.Exec("insert into respondent (id, assessment_id, finished_at, state) values (4, 1, now(), 'open')") // fires as before
	set(s, after)
	release := hold(s, "lock table walhook.attachment in share mode")
	moving := s.Background("attach", "--remap")
	waitsForALock(s, "update walhook.attachment set mapping")
	next := s.Start()
	next.Readyz(503, "an attach is in progress")
	release()
	if status := moving.Wait(); status != cli.ExitOK || !strings.Contains(moving.Log.String(), `WALHOOK_ASSESSMENT_ORGANIZATION  ""             "title"`) {
		t.Errorf("attach --remap exits with %d:\n%s", status, moving.Log)
	}
	for _, former := range []*harness.Daemon{d, standby} {
		if status := former.Wait(); status != cli.ExitFailed || !strings.Contains(former.Log.String(), "not the one that was attached") {
			t.Errorf("a daemon of the former mapping exits with %d", status)
		}
	}
	if text := remap(s); !strings.Contains(text, "this mapping is the attached one") {
		t.Errorf("a second time it prints:\n%s", text)
	}
	next.Ready()
	s.Hook("/organization", "created", "organization_id", "'two'")
	s.Exec("update assessment set title = 'two' where id = 1")
	s.Exec("update respondent set state = 'done' where id = 2") // completed before
	s.Exec("insert into respondent (id, assessment_id) values (5, 1)")
	s.Exec("update respondent set finished_at = now(), state = 'done' where id = 5")
	want.more("created 4", "completed 4", "changed 2", "created 5", "completed 5")
	s.Expect("/organization", "created 5")
	s.Exec("update respondent set state = 'open'; update respondent set state = 'done' where id in (1, 4)")
	want.more("changed 1", "changed 4")

	// What the mapping no longer needs leaves the publication, if need be at the next attempt.
	set(s, map[string]string{"ASSESSMENT_TABLE": "", "ASSESSMENT_ORGANIZATION": ""})
	killedAt(s, "lock table assessment in share update exclusive mode", "alter publication")
	s.Start().Ready()
	remap(s)
	const published = "select string_agg(tablename, ' ') from pg_publication_tables where pubname = 'walhook'"
	if tables := testenv.Value[string](t, s.DB, published); tables != "respondent" {
		t.Errorf("published are %s", tables)
	}
	s.Exec("update respondent set state = 'open' where id = 1; update respondent set state = 'done' where id = 1")
	want.more("changed 1")
	if gaps := testenv.Value[int](t, s.Store, "select count(*)::int from walhook.incident where kind not in ('reconcile', 'takeover')"); gaps > 0 {
		t.Errorf("%d incidents", gaps)
	}

	s.With("RESPONDENT_ID", "page")
	harness.MustFail(s, "attach --remap", "cannot move to another WALHOOK_RESPONDENT_ID")
}

// While the application writes, each change fires by the former mapping or by the new one, and never by both.
func TestMovingUnderLoad(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("FINISH_STAMP", "finished_at")
	s.Exec("insert into respondent (id, assessment_id, finished_at) values (0, 1, now())")
	s.Run()
	s.Hooks()
	endInserts := s.Meanwhile(s.DB, "insert into respondent (id, assessment_id, finished_at) select $1, 1, now() from pg_sleep(0.02)")
	endUpdates := s.Meanwhile(s.DB, "update respondent set finished_at = clock_timestamp(), page = $1 from pg_sleep(0.02) where id = 0")
	for _, equivalent := range []string{"(finished_at is not null)", "finished_at", "(id >= 0 and finished_at is not null)"} {
		s.With("FINISHED", equivalent)
		remap(s)
		s.Start().Ready()
	}
	endInserts()
	endUpdates()
	s.WaitStored()
	want := testenv.Value[string](t, s.DB, `select format('%1$s created, %1$s completed, %2$s changed', (select count(*) from respondent where id > 0 and assessment_id = 1),
		(select page from respondent where id = 0))`)
	testenv.Eventually(t, harness.Patience, want, func() (bool, string) {
		got := testenv.Value[string](t, s.Store, `select format('%s created, %s completed, %s changed', count(*) filter (where event_type = 'response.created'),
			count(*) filter (where event_type = 'response.completed'), count(*) filter (where event_type = 'response.changed')) from walhook.delivery_log`)
		return got == want, got
	})
}

// With WALHOOK_PUBLISH=mapped, the column lists follow the mapping, which is no gap for any daemon.
func TestMovingColumnLists(t *testing.T) {
	t.Parallel()
	testenv.NeedsVersion(t, testenv.Postgres(t), 150000, "column lists")
	s := harness.NewSite(t, harness.SampleSchema+"alter table respondent add state text")
	s.With("PUBLISH", "mapped", "ASSESSMENT_TABLE", "public.assessment")
	d := s.Run()
	s.Hooks()
	want := expectation{site: s}
	after := map[string]string{"FINISHED": "state=done", "FINISH_STAMP": "page", "ASSESSMENT_NAME": "title"}
	before := set(s, after)
	killedAt(s, "select pg_current_xact_id()", "CREATE_REPLICATION_SLOT")
	set(s, before)
	s.Exec("insert into respondent (id, assessment_id) values (1, 1); update respondent set finished_at = now()")
	want.more("created 1", "completed 1")
	set(s, after)
	remap(s)
	d.Wait()
	s.Start().Ready()
	s.Exec("update respondent set state = 'done', page = 7")
	want.more("changed 1")
	const published = `select string_agg(tablename || ' ' || attnames::text, '; ' order by tablename) from pg_publication_tables where pubname = 'walhook'`
	if got := testenv.Value[string](t, s.DB, published); got != "assessment {id,title,external_id}; respondent {id,assessment_id,page,started_at,state}" {
		t.Errorf("published are %s", got)
	}
	if gaps := testenv.Value[int](t, s.Store, "select count(*)::int from walhook.incident where kind not in ('reconcile', 'takeover')"); gaps > 0 {
		t.Errorf("%d incidents", gaps)
	}
}

// expectation is what has arrived at /hook so far.
type expectation struct {
	site   *harness.Site
	events []string
}

func (e *expectation) more(events ...string) {
	e.site.T.Helper()
	e.events = append(e.events, events...)
	e.site.Expect("/hook", e.events...)
}

// set sets variables and returns their former values.
func set(s *harness.Site, to map[string]string) map[string]string {
	before := map[string]string{}
	for variable, value := range to {
		before[variable] = s.Env[variable]
		if s.Env[variable] = value; value == "" {
			delete(s.Env, variable)
		}
	}
	return before
}

// remap runs attach --remap and returns what it prints.
func remap(s *harness.Site) string {
	s.T.Helper()
	out, errOut, status := s.Walhook("attach", "--remap")
	if status != cli.ExitOK {
		s.T.Fatalf("attach --remap: %d\n%s%s", status, out, errOut)
	}
	return errOut
}

// hold runs a statement in a transaction that is open until the returned function is called.
func hold(s *harness.Site, statement string) (release func()) {
	s.T.Helper()
	holder := testenv.Connect(s.T, s.DB)
	if _, err := holder.Exec(s.T.Context(), "begin; "+statement); err != nil {
		s.T.Fatal(err)
	}
	return func() {
		s.T.Helper()
		if _, err := holder.Exec(s.T.Context(), "commit"); err != nil {
			s.T.Fatal(err)
		}
	}
}

// killedAt kills attach --remap while a statement of it waits for what another session holds.
func killedAt(s *harness.Site, holds, waits string) {
	s.T.Helper()
	release := hold(s, holds)
	interrupted := s.Background("attach", "--remap")
	waitsForALock(s, waits)
	interrupted.Kill()
	release()
}

// waitsForALock waits until a statement waits for a lock.
func waitsForALock(s *harness.Site, statement string) {
	s.T.Helper()
	testenv.Eventually(s.T, harness.Patience, "a statement that waits for a lock", func() (bool, string) {
		n := testenv.Value[int](s.T, s.Store, "select count(*)::int from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database() and query like $1", "%"+statement+"%")
		return n > 0, statement
	})
}
