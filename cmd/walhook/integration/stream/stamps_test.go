package stream

import (
	"strings"
	"testing"

	"walhook/cdc"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

const stampSchema = harness.SampleSchema + "alter table respondent add version int, add edited_at timestamp"

func severalStamps(t *testing.T) *harness.Site {
	t.Helper()
	return harness.NewSite(t, stampSchema).With("FINISH_STAMP", "version, edited_at")
}

// A finish stamp of several columns changes if one of them does.
func TestSeveralFinishStamps(t *testing.T) {
	t.Parallel()
	s := severalStamps(t)
	s.Exec(`insert into respondent (id, assessment_id, finished_at, version, edited_at) values (1, 1, now(), 1, null), (2, 1, now(), null, null)`)
	d := s.Run()
	s.Hooks()
	for _, statement := range []string{
		"update respondent set edited_at = now() where id = 1", // the first edit
		"update respondent set version = 2 where id = 1",
		"update respondent set version = 3, edited_at = clock_timestamp() where id = 1",
		"update respondent set version = null, edited_at = null where id = 1",
		"update respondent set version = 3 where id = 1", // as before
		"update respondent set page = page + 1, started_at = null",
		"update respondent set version = 1 where id = 2", // the stamp of its finish
		"update respondent set finished_at = now(), edited_at = now() where id = 2",
		"insert into respondent (id, assessment_id, finished_at) values (3, 1, now())",
		"begin; update respondent set finished_at = null where id = 2; update respondent set finished_at = now() where id = 2; update respondent set version = 9 where id = 2; commit",
	} {
		s.Exec(statement)
	}
	happened := []string{"changed 1", "changed 1", "changed 1", "changed 2", "created 3", "completed 3", "changed 2"}
	s.Expect("/hook", happened...)

	// One column gets another type, which is no finish. Nor is it one while nobody reads the stream.
	s.Exec("alter table respondent alter edited_at type timestamptz using edited_at at time zone 'UTC'; update respondent set page = page + 1")
	harness.WaitResolved(s, "column_retyped")
	d.Stop()
	s.DropSlot()
	s.Exec("alter table respondent alter version type bigint; update respondent set version = 4 where id = 1; update respondent set edited_at = now() where id = 3")
	s.Start().Ready()
	s.Exec("update respondent set version = 10 where id = 2")
	s.Expect("/hook", append(happened, "changed 1", "changed 2")...)
}

// The state has no hash that a guess could be compared with, and each attachment has other ones.
func TestStampsAreKeyed(t *testing.T) {
	t.Parallel()
	const stamps = "select string_agg(stamp, ' ' order by response_id) from walhook.response_state"
	s := harness.NewSite(t, harness.SampleSchema).With("FINISHED", "finished_at", "FINISH_STAMP", "essay")
	s.Exec("insert into respondent (id, assessment_id, finished_at, essay) values (1, 1, now(), 'yes')")
	d := s.Run()
	s.Exec("insert into respondent (id, assessment_id, finished_at, essay) values (2, 1, now(), 'yes'), (3, 1, now(), 'no')")
	s.WaitStored()
	first := strings.Fields(testenv.Psql(t, s.Store, stamps))
	if len(first) != 3 || first[0] != first[1] || first[0] == first[2] || strings.Contains(first[0], cdc.HashValue("yes")) {
		t.Errorf("the stamps are %q", first)
	}
	d.Stop()
	if _, errOut, status := s.Walhook("detach"); status != 0 {
		t.Fatalf("detach: status %d, %s", status, errOut)
	}
	s.Attach()
	if again := strings.Fields(testenv.Psql(t, s.Store, stamps)); len(again) != 3 || again[0] == first[0] || again[0] != again[1] {
		t.Errorf("attached again, they are %q, and were %q", again, first)
	}
	for _, role := range []string{"walhook_admin", "walhook_viewer"} {
		url := s.As(role)
		for _, column := range []string{"stamp_key from walhook.attachment", "stamp from walhook.response_state"} {
			if out, err := testenv.TryPsql(t, url, "select "+column); err == nil {
				t.Errorf("%s reads the %s: %s", role, column, out)
			}
		}
	}
}
