package stream

import (
	"fmt"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// Each case has its own site, so the events are exactly those of its statements.
func TestEvents(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		before string // committed before attach
		sql    []string
		want   []string
	}{
		{
			name: "a life, step by step",
			sql: []string{
				"insert into respondent (id, assessment_id) values (1, 1)",
				"update respondent set started_at = now() where id = 1",
				"update respondent set page = 5, name = 'x' where id = 1",
				"update respondent set finished_at = now() where id = 1",
				"update respondent set finished_at = now() where id = 1",
			},
			want: []string{"created 1", "started 1", "completed 1", "changed 1"},
		},
		{
			name: "all events in one insert",
			sql:  []string{"insert into respondent (id, assessment_id, started_at, finished_at) values (1, 1, now(), now())"},
			want: []string{"created 1", "started 1", "completed 1"},
		},
		{
			name: "a life in one transaction",
			sql: []string{`begin; insert into respondent (id, assessment_id) values (1, 1); update respondent set started_at = now();
				update respondent set finished_at = now(); update respondent set finished_at = now() + interval '1 s'; commit`},
			want: []string{"created 1", "started 1", "completed 1", "changed 1"},
		},
		{
			name: "rollback and savepoint",
			sql: []string{
				"begin; insert into respondent (id, assessment_id) values (1, 1); rollback",
				"begin; insert into respondent (id, assessment_id) values (2, 1); savepoint a; update respondent set started_at = now(); rollback to a; commit",
			},
			want: []string{"created 2"},
		},
		{
			name: "upsert",
			sql: []string{
				"insert into respondent (id, assessment_id, started_at) values (1, 1, now()) on conflict (id) do update set started_at = excluded.started_at",
				"insert into respondent (id, assessment_id, finished_at) values (1, 1, now()) on conflict (id) do update set finished_at = excluded.finished_at",
			},
			want: []string{"created 1", "started 1", "completed 1"},
		},
		{
			name: "a changed key takes the history along",
			sql: []string{
				"insert into respondent (id, assessment_id, started_at, finished_at) values (1, 1, now(), now())",
				"update respondent set id = 2 where id = 1",
				"update respondent set finished_at = now() where id = 2",
				"insert into respondent (id, assessment_id) values (1, 1)",
			},
			want: []string{"created 1", "started 1", "completed 1", "changed 2", "created 1"},
		},
		{
			name: "delete forgets",
			sql: []string{
				"insert into respondent (id, assessment_id, started_at) values (1, 1, now())",
				"delete from respondent where id = 1",
				"insert into respondent (id, assessment_id, started_at) values (1, 1, now())",
				"begin; delete from respondent where id = 1; insert into respondent (id, assessment_id) values (1, 1); commit",
			},
			want: []string{"created 1", "started 1", "created 1", "started 1", "created 1"},
		},
		{
			name:   "truncate forgets",
			before: "insert into respondent (id, assessment_id, started_at) values (1, 1, now()), (2, 1, now())",
			sql: []string{
				"begin; update respondent set finished_at = now() where id = 1; truncate respondent; insert into respondent (id, assessment_id) values (2, 1); commit",
				"update respondent set started_at = now()",
			},
			want: []string{"completed 1", "created 2", "started 2"},
		},
		{
			name: "rows that exist fire nothing for what had happened, and move on",
			before: `insert into respondent (id, assessment_id, started_at, finished_at) values
				(1, 1, null, null), (2, 1, now(), null), (3, 1, now(), now()), (4, 1, null, now())`,
			sql: []string{
				"update respondent set started_at = now() where id = 1",
				"update respondent set finished_at = now() where id = 2",
				"update respondent set finished_at = now() where id = 3",
				"update respondent set started_at = now() where id = 4",
			},
			want: []string{"started 1", "completed 2", "changed 3", "started 4"},
		},
		{
			name: "the marker cleared and set again",
			sql: []string{
				"insert into respondent (id, assessment_id, finished_at) values (1, 1, '2026-01-01')",
				"update respondent set finished_at = null",
				"update respondent set finished_at = '2026-01-01'",
				"update respondent set finished_at = null",
				"update respondent set finished_at = '2026-01-02'",
			},
			want: []string{"created 1", "completed 1", "changed 1", "changed 1"},
		},
		{
			name: "large values beside, kept out of line",
			sql: []string{
				"alter table respondent alter essay set storage external",
				"insert into respondent (id, assessment_id, essay) values (1, 1, repeat('x', 100000))",
				"update respondent set started_at = now()",
				"update respondent set essay = repeat('y', 200000)",
				"update respondent set finished_at = now()",
			},
			want: []string{"created 1", "started 1", "completed 1"},
		},
		{
			name: "silence",
			sql: []string{
				"begin; select walhook.silence(); insert into respondent (id, assessment_id, started_at) values (1, 1, now()); commit",
				"begin; insert into respondent (id, assessment_id) values (2, 1); select walhook.silence(); update respondent set started_at = now(); commit",
				"update respondent set finished_at = now() where id = 1",
				"begin; savepoint a; select walhook.silence(); rollback to a; update respondent set finished_at = now() where id = 2; commit",
			},
			want: []string{"created 2", "completed 1", "completed 2"},
		},
		{
			name: "ids beyond 2^53",
			sql:  []string{"insert into respondent (id, assessment_id) values (9223372036854775807, 1), (-5, 1)"},
			want: []string{"created 9223372036854775807", "created -5"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema)
			if c.before != "" {
				s.Exec(c.before)
			}
			s.Run()
			s.Hooks()
			for _, statement := range c.sql {
				s.Exec(statement)
			}
			s.Expect("/hook", c.want...)
		})
	}
}

func TestBulkChanges(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Run()
	s.Hooks()
	s.Exec("insert into respondent (id, assessment_id) select n, 1 from generate_series(1, 3000) n")
	s.Exec("update respondent set started_at = now()")
	testenv.Psql(t, s.DB, "\\copy respondent (id, assessment_id, started_at) from stdin\n"+copyLines(3001, 4000)+"\\.\n")
	s.Fence()
	got := map[string]int{}
	for _, event := range s.Events("/hook") {
		got[event]++
	}
	for id := 1; id <= 4000; id++ {
		for _, event := range []string{"created", "started"} {
			if n := got[fmt.Sprintf("%s %d", event, id)]; n != 1 {
				t.Fatalf("%s of response %d arrived %d times", event, id, n)
			}
		}
	}
	if len(got) != 8000 {
		t.Errorf("%d different events arrived, not 8000", len(got))
	}
	if n := testenv.Value[int64](t, s.Store, "select count(*) from walhook.delivery_log where status = 'success'"); n != 8000 {
		t.Errorf("the log has %d successes, not 8000", n)
	}
}

func copyLines(from, to int) string {
	var b strings.Builder
	for id := from; id <= to; id++ {
		fmt.Fprintf(&b, "%d\t1\t2026-01-01\n", id)
	}
	return b.String()
}
