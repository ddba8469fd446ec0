package integration

import (
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// attach --remap moves to another mapping: the past fires nothing, and nothing in between is lost.
func TestMovingToAnotherMapping(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema+"alter table respondent add state text")
	s.Exec("insert into respondent (id, assessment_id, state) values (1, 1, 'done'), (2, 1, 'open')")
	d := s.Run()
	s.Hooks()
	s.Exec("insert into respondent (id, assessment_id, state) values (3, 1, 'done')")
	s.Exec("update respondent set finished_at = now() where id = 2")
	s.Expect("/hook", "created 3", "completed 2")

	before := map[string]string{"FINISHED": "finished_at", "ASSESSMENT_TABLE": "", "ASSESSMENT_ORGANIZATION": ""}
	after := map[string]string{"FINISHED": "state=done", "ASSESSMENT_TABLE": "public.assessment", "ASSESSMENT_ORGANIZATION": "title"}
	set := func(to map[string]string) {
		for variable, value := range to {
			s.With(variable, value)
		}
	}
	set(after)
	mustFail(s, "attach", `WALHOOK_FINISHED                 "finished_at"  "state=done"`, "walhook attach --remap")

	// Interrupted at its last statement, it has no effect on the attached mapping.
	holder := testenv.Connect(t, s.Store)
	if _, err := holder.Exec(t.Context(), "begin; lock table walhook.attachment in share mode"); err != nil {
		t.Fatal(err)
	}
	interrupted := s.Background("attach", "--remap")
	waitsForALock(s, "update walhook.attachment")
	interrupted.Kill()
	if _, err := holder.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	set(before)
	s.Exec("update respondent set finished_at = now() where id = 3")
	s.Expect("/hook", "created 3", "completed 2", "completed 3")

	set(after)
	remap := func() string {
		out, errOut, status := s.Walhook("attach", "--remap")
		if status != cli.ExitOK {
			t.Fatalf("attach --remap: %d\n%s%s", status, out, errOut)
		}
		return errOut
	}
	s.Exec("insert into respondent (id, assessment_id, finished_at, state) values (4, 1, now(), 'open')") // fires as before
	if text := remap(); !strings.Contains(text, `WALHOOK_ASSESSMENT_ORGANIZATION  ""             "title"`) {
		t.Errorf("attach --remap prints:\n%s", text)
	}
	if status := d.Wait(); status != cli.ExitFailed || !strings.Contains(d.Log.String(), "not the one that was attached") {
		t.Errorf("the daemon exits with %d", status)
	}
	if text := remap(); !strings.Contains(text, "this mapping is the attached one") {
		t.Errorf("a second time it prints:\n%s", text)
	}
	s.Hook("/organization", "created", "organization_id", "'two'")
	s.Exec("update assessment set title = 'two' where id = 1")
	s.Exec("update respondent set state = 'done' where id = 2") // completed before
	s.Exec("insert into respondent (id, assessment_id) values (5, 1)")
	s.Exec("update respondent set finished_at = now(), state = 'done' where id = 5")
	s.Start().Ready()
	s.Expect("/hook", "created 3", "completed 2", "completed 3", "created 4", "completed 4", "changed 2", "created 5", "completed 5")
	s.Expect("/organization", "created 5")
	s.Exec("update respondent set state = 'open'; update respondent set state = 'done' where id in (1, 4)")
	s.Expect("/hook", "created 3", "completed 2", "completed 3", "created 4", "completed 4", "changed 2", "created 5", "completed 5", "changed 1", "changed 4")

	s.With("RESPONDENT_ID", "page")
	if _, errOut, status := s.Walhook("attach", "--remap"); status != cli.ExitFailed || !strings.Contains(errOut, "cannot move to another WALHOOK_RESPONDENT_ID") {
		t.Errorf("another key: %d\n%s", status, errOut)
	}
}

// waitsForALock waits until a statement in the store waits for a lock.
func waitsForALock(s *harness.Site, statement string) {
	s.T.Helper()
	testenv.Eventually(s.T, harness.Patience, "a statement that waits for a lock", func() (bool, string) {
		n := testenv.Value[int](s.T, s.Store, "select count(*)::int from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database() and query like $1", statement+"%")
		return n > 0, statement
	})
}
