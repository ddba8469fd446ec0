package stream

import (
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// With RESPONDENT_WHERE, rows become responses and cease to be responses.
func TestRespondentWhere(t *testing.T) {
	t.Parallel()
	const notes = "not this is a preview of an administrator" // longer than a pointer to a value that is stored out of line
	for _, c := range []struct {
		name, where string
		started     string // marker; empty: the default
		before      string // committed before attach
		sql         []string
		want        []string
	}{
		{
			name:  "enters and leaves",
			where: "not draft and deleted_at is null",
			sql: []string{
				"insert into respondent (id, assessment_id, draft) values (1, 1, true)",
				"update respondent set started_at = now()",
				"update respondent set finished_at = now()",
				"update respondent set finished_at = now()",
				"update respondent set draft = false", // what has happened fires
				"update respondent set finished_at = now()",
				"update respondent set deleted_at = now()", // forgotten
				"update respondent set finished_at = now()",
				"update respondent set deleted_at = null, finished_at = null",
				"update respondent set finished_at = now()", // the first finish of a new response
				"update respondent set draft = null",        // NULL is not true
				"delete from respondent",
			},
			want: []string{"created 1", "started 1", "completed 1", "changed 1", "created 1", "started 1", "completed 1"},
		},
		{
			name:  "other rows are not affected",
			where: "draft=false",
			sql: []string{
				"insert into respondent (id, assessment_id, draft, started_at) values (1, 1, false, now()), (2, 1, true, now()), (3, 1, null, now())",
				"update respondent set finished_at = now()",
				"begin; update respondent set draft = false where id = 2; update respondent set draft = true where id = 2; commit",
			},
			want: []string{"created 1", "started 1", "completed 1", "created 2", "started 2", "completed 2"},
		},
		{
			name:  "rows that existed at attach",
			where: "not draft",
			before: `insert into respondent (id, assessment_id, draft, started_at, finished_at) values
				(1, 1, true, null, null), (2, 1, true, now(), now()), (3, 1, false, now(), now())`,
			sql: []string{"update respondent set draft = not draft", "update respondent set draft = not draft"},
			want: []string{
				"created 1", "created 2", "started 2", "completed 2", "created 3", "started 3", "completed 3",
			},
		},
		{
			name:  "the key changes outside, inside, and on the way",
			where: "not draft",
			sql: []string{
				"insert into respondent (id, assessment_id, draft, started_at) values (1, 1, true, now())",
				"update respondent set id = 2",
				"update respondent set id = 3, draft = false",
				"update respondent set id = 4, finished_at = now()",
				"update respondent set id = 5, draft = true",
				"update respondent set id = 6",
				"update respondent set draft = false",
			},
			want: []string{"created 3", "started 3", "completed 4", "created 6", "started 6", "completed 6"},
		},
		{
			name:  "long values that the WAL omits",
			where: "not draft and notes <> '" + notes + "'", started: "essay",
			sql: []string{
				"alter table respondent alter essay set storage external, alter notes set storage external",
				`insert into respondent (id, assessment_id, draft, notes, essay) values
					(1, 1, true, repeat('x', 5000), repeat('y', 5000)), (2, 1, false, repeat('x', 5000), null)`,
				"update respondent set draft = false, page = 1 where id = 1", // whether it is a response depends on the notes
				"update respondent set page = 2",
				"update respondent set finished_at = now()",
				"update respondent set notes = repeat('z', 5000) where id = 1", // the essay, which has started it, is omitted
				"update respondent set page = 3",
				"update respondent set notes = '" + notes + "' where id = 2",
				"update respondent set notes = null, essay = repeat('a', 6000) where id = 2",
			},
			want: []string{"created 2", "completed 2", "created 1", "started 1", "completed 1"},
		},
		{
			name:  "silence and upserts",
			where: "not draft",
			sql: []string{
				"insert into respondent (id, assessment_id, draft) values (1, 1, true)",
				"begin; select walhook.silence(); update respondent set draft = false; commit",
				"insert into respondent (id, assessment_id, draft) values (1, 1, true) on conflict (id) do update set started_at = now()",
			},
			want: []string{"started 1"},
		},
		{
			name:  "truncate",
			where: "not draft",
			sql: []string{
				"insert into respondent (id, assessment_id, draft) values (1, 1, true), (2, 1, false)",
				"begin; truncate respondent; insert into respondent (id, assessment_id, draft) values (1, 1, false), (2, 1, true); commit",
			},
			want: []string{"created 2", "created 1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := whereSite(t, c.where)
			if c.started != "" {
				s.With("STARTED", c.started)
			}
			s.Exec(c.before)
			s.Run()
			s.Hooks()
			for _, statement := range c.sql {
				s.Exec(statement)
			}
			s.Expect("/hook", c.want...)
		})
	}
}

func whereSite(t *testing.T, where string) *harness.Site {
	t.Helper()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Exec("alter table respondent add draft boolean, add deleted_at timestamptz, add notes text")
	return s.With("RESPONDENT_WHERE", where)
}

// A comparison lets rows enter and leave.
func TestRespondentWhereAfterALostSlot(t *testing.T) {
	t.Parallel()
	s := whereSite(t, "not draft")
	s.Exec(`insert into respondent (id, assessment_id, draft, started_at, finished_at) values
		(1, 1, true, now(), now()), (2, 1, false, now(), now()), (3, 1, true, null, null), (4, 1, true, null, null),
		(5, 1, false, now(), null), (6, 1, true, now(), now())`)
	d := s.Run()
	s.Hooks()
	d.Stop()
	s.DropSlot()
	s.Exec(`insert into respondent (id, assessment_id, draft) values (7, 1, true), (8, 1, false);
		update respondent set draft = false where id in (1, 4);
		update respondent set draft = true where id = 2;
		update respondent set started_at = now(), finished_at = now() where id = 3;
		update respondent set finished_at = now() where id = 5`)
	s.Start().Ready()
	missed := []string{"created 1", "started 1", "completed 1", "created 4", "completed 5", "created 8"}
	expectRecovered(s, "/hook", missed...)
	s.Exec("update respondent set draft = false")
	s.Expect("/hook", append(missed, "created 2", "started 2", "completed 2", "created 3", "started 3", "completed 3",
		"created 6", "started 6", "completed 6", "created 7")...)
}

func TestRespondentWhereInAPartitionedTable(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, `
		create table respondent (id bigint, assessment_id bigint, state text default 'open', started_at timestamptz,
		  finished_at timestamptz, primary key (id, state))
		  partition by list (state);
		create table respondent_open partition of respondent for values in ('open');
		create table respondent_rest partition of respondent default;`).With("RESPONDENT_WHERE", "state <> 'preview'")
	s.Run()
	s.Hooks()
	for _, statement := range []string{
		"insert into respondent values (1, 1, 'preview', now(), null)",
		"update respondent set state = 'open'", // moves and enters
		"update respondent set state = 'done', finished_at = now()",
		"update respondent set state = 'preview'", // leaves within its partition
		"update respondent set state = 'open'",
	} {
		s.Exec(statement)
	}
	s.Expect("/hook", "created 1", "started 1", "completed 1", "created 1", "started 1", "completed 1")
}

// A row that is no response is unknown to administrators.
func TestExcludedRowsAreNoResponses(t *testing.T) {
	t.Parallel()
	s := whereSite(t, "not draft")
	s.Exec("insert into respondent (id, assessment_id, draft) values (1, 1, false), (9, 1, true)")
	s.Run()
	hook := s.Hook("/hook", "created")
	s.Exec("insert into respondent (id, assessment_id, draft) values (2, 1, false)")
	s.Expect("/hook", "created 2")
	s.Exec("insert into respondent (id, assessment_id, draft) values (3, 1, true)")
	s.WaitStored()
	testenv.Exec(t, s.Store, "select walhook.test_webhook($1)", hook)
	s.Expect("/hook", "created 2", "created 2")
	s.Exec("update respondent set draft = true where id = 2")
	s.WaitStored()
	testenv.Exec(t, s.Store, "select walhook.test_webhook($1)", hook)
	s.Expect("/hook", "created 2", "created 2", "created 1")
	const reason = "its row does not meet WALHOOK_RESPONDENT_WHERE, so it is no response"
	for response, want := range map[string]string{"3": "not known|" + reason, "2": "yes|delivered", "1": "before attach|it happened before walhook attached, and fires nothing"} {
		query := "select happened, reason from walhook.explain(" + response + ") where coalesce(event_type, 'response.created') = 'response.created'"
		if got := testenv.Psql(t, s.Store, query); got != want {
			t.Errorf("explain(%s) is %q, not %q", response, got, want)
		}
	}
}
