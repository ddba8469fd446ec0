package stream

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// Changes other than single inserts and updates. Each case has its own site.
func TestOddChanges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		schema    string // empty: SampleSchema
		variables []string
		since     int    // version of PostgreSQL that can do it
		before    string // committed before attach
		sql       []string
		want      []string
	}{
		{
			name: "a chain of keys in one transaction",
			sql: []string{
				"insert into respondent (id, assessment_id, started_at) values (1, 1, now())",
				"insert into respondent (id, assessment_id, started_at, finished_at) values (2, 1, now(), now())",
				"begin; update respondent set id = 3 where id = 2; update respondent set id = 2 where id = 1; commit",
				"update respondent set finished_at = now() where id = 2",
				"update respondent set finished_at = now() where id = 3",
				"insert into respondent (id, assessment_id) values (1, 1)",
			},
			want: []string{"created 1", "started 1", "created 2", "started 2", "completed 2", "completed 2", "changed 3", "created 1"},
		},
		{
			name:   "two keys change places",
			before: "insert into respondent (id, assessment_id, started_at, finished_at) values (1, 1, now(), null), (2, 1, now(), now())",
			sql: []string{
				"begin; update respondent set id = -1 where id = 1; update respondent set id = 1 where id = 2; update respondent set id = 2 where id = -1; commit",
				"update respondent set finished_at = now() where id = 1",
				"update respondent set finished_at = now() where id = 2",
			},
			want: []string{"changed 1", "completed 2"},
		},
		{
			name: "a key that changes with its markers, and back",
			sql: []string{
				"begin; insert into respondent (id, assessment_id) values (1, 1); update respondent set id = 2, started_at = now(); update respondent set id = 1, finished_at = now(); commit",
				"update respondent set id = 5, finished_at = now() + interval '1 s'",
			},
			want: []string{"created 1", "started 2", "completed 1", "changed 5"},
		},
		{
			name: "inserted and deleted in one transaction",
			sql: []string{
				"begin; insert into respondent (id, assessment_id) values (1, 1); delete from respondent; commit",
				"begin; insert into respondent (id, assessment_id) values (2, 1); delete from respondent; insert into respondent (id, assessment_id, started_at) values (2, 1, now()); commit",
			},
			want: []string{"created 1", "created 2", "created 2", "started 2"},
		},
		{
			name:   "truncate by way of another table",
			schema: harness.SampleSchema + "create table team (name text primary key); insert into team values ('a'); alter table respondent add foreign key (name) references team;",
			before: "insert into respondent (id, assessment_id, started_at) values (1, 1, now())",
			sql: []string{
				"begin; insert into respondent (id, assessment_id) values (2, 1); truncate team cascade; insert into respondent (id, assessment_id, started_at) values (1, 1, now()); commit",
				"update respondent set finished_at = now()",
			},
			want: []string{"created 2", "created 1", "started 1", "completed 1"},
		},
		{
			name:  "merge",
			since: 150000,
			sql: []string{
				`merge into respondent r using (values (1, null::timestamptz), (2, now())) v (id, started) on r.id = v.id
				when matched then update set started_at = v.started when not matched then insert (id, assessment_id, started_at) values (v.id, 1, v.started)`,
				`merge into respondent r using (values (1, now()), (3, now())) v (id, started) on r.id = v.id
				when matched then update set started_at = v.started when not matched then insert (id, assessment_id) values (v.id, 1)`,
				"merge into respondent r using (values (2)) v (id) on r.id = v.id when matched then delete",
				"insert into respondent (id, assessment_id) values (2, 1)",
			},
			want: []string{"created 1", "created 2", "started 2", "started 1", "created 3", "created 2"},
		},
		{
			name: "savepoints, some of them rolled back",
			sql: []string{
				`begin; insert into respondent (id, assessment_id) values (1, 1);
				savepoint a; update respondent set id = 9, started_at = now(); savepoint b; delete from respondent; release b; rollback to a;
				savepoint c; update respondent set started_at = now(); release c;
				do $$ begin update respondent set finished_at = now(); raise division_by_zero; exception when division_by_zero then null; end $$; commit`,
				"update respondent set finished_at = now()",
			},
			want: []string{"created 1", "started 1", "completed 1"},
		},
		{
			name: "silence in a savepoint that is rolled back, in one that is not, and before one",
			sql: []string{
				`begin; savepoint a; select walhook.silence(); insert into respondent (id, assessment_id) values (7, 1); rollback to a;
				insert into respondent (id, assessment_id) values (1, 1); savepoint b; select walhook.silence(); release b; update respondent set started_at = now(); commit`,
				"update respondent set finished_at = now()",
				"begin; select walhook.silence(); savepoint a; insert into respondent (id, assessment_id) values (2, 1); release a; update respondent set started_at = now(); commit",
				"begin; insert into respondent (id, assessment_id) values (3, 1); savepoint a; savepoint b; select walhook.silence(); release b; insert into respondent (id, assessment_id) values (4, 1); release a; commit",
			},
			want: []string{"created 1", "completed 1", "created 3"},
		},
		{
			name:      "markers and stamp kept out of line",
			schema:    "create table respondent (id bigint primary key, assessment_id bigint, answers text, result text, page int); alter table respondent alter answers set storage external, alter result set storage external;",
			variables: []string{"STARTED", "answers", "FINISHED", "result"},
			sql: []string{
				"insert into respondent values (1, 1)",
				"update respondent set answers = repeat('a', 10000)",
				"update respondent set page = 1",
				"update respondent set result = repeat('r', 10000)",
				"update respondent set page = 2",
				"update respondent set result = repeat('s', 10000)",
				"update respondent set page = 3, id = 2",
				"update respondent set result = repeat('s', 10000) where id = 2",
				"update respondent set result = null",
				"update respondent set result = repeat('s', 10000) where id = 2",
			},
			want: []string{"created 1", "started 1", "completed 1", "changed 1", "changed 2"},
		},
		{
			name: "expressions over values kept out of line",
			schema: `create table respondent (id bigint primary key, assessment_id bigint, answers text, state text collate "C", page int);
				alter table respondent alter answers set storage external, alter state set storage external;`,
			variables: []string{"STARTED", "answers <> '' and page > 0", "FINISHED", "state = 'done' and answers is not null", "FINISH_STAMP", "page"},
			before:    "insert into respondent values (5, 1, repeat('a', 10000), 'open', 0)",
			sql: []string{
				"insert into respondent values (1, 1, repeat('a', 10000), 'open', 0)",
				"update respondent set page = 1", // the answers are not in the WAL
				"update respondent set state = repeat('done', 3000) where id = 1",
				"update respondent set state = 'done' where id = 1",
				"update respondent set page = 2 where id = 1",
				"update respondent set answers = '' where id = 1",
				"update respondent set page = 0, answers = null where id = 1",
			},
			want: []string{"created 1", "started 1", "started 5", "completed 1", "changed 1"},
		},
		{
			name: "domains and enums",
			schema: `create domain flag as boolean; create domain stage_flag as flag not null default false; create type status as enum ('new', 'in progress', 'done');
				create domain tally as numeric(10, 2);
				create table respondent (id bigint primary key, assessment_id bigint, begun stage_flag, status status, tally tally);`,
			variables: []string{"STARTED", "begun", "FINISHED", "status=done", "FINISH_STAMP", "tally"},
			before:    "insert into respondent values (5, 1, true, 'done', 1)",
			sql: []string{
				"insert into respondent values (1, 1, false, 'new', 0)", "update respondent set begun = true where id = 1",
				"update respondent set status = 'done' where id = 1", "update respondent set tally = 0.00 where id = 1",
				"update respondent set tally = 1 where id = 1", "alter type status rename value 'new' to 'fresh'",
				"update respondent set tally = 2 where id = 5",
			},
			want: []string{"created 1", "started 1", "completed 1", "changed 1", "changed 5"},
		},
		{
			name:      "numbers that are none, times without end, and blanks",
			schema:    "create table respondent (id bigint primary key, assessment_id bigint, score double precision, code char(8), at timestamptz);",
			variables: []string{"STARTED", "score", "FINISHED", "code=done", "FINISH_STAMP", "at"},
			sql: []string{
				"insert into respondent values (1, 1, -0.0, 'x', '-infinity')", "update respondent set score = 'NaN'",
				"update respondent set code = 'done'", "update respondent set at = 'infinity'", "update respondent set code = 'done    '",
				"update respondent set at = 'infinity'", "update respondent set at = '2026-01-01 00:00 BC'",
			},
			want: []string{"created 1", "started 1", "completed 1", "changed 1", "changed 1"},
		},
		{
			name:      "documents and lists as markers",
			schema:    "create table respondent (id bigint primary key, assessment_id bigint, pages int[], result jsonb);",
			variables: []string{"STARTED", "pages", "FINISHED", "result"},
			sql: []string{
				"insert into respondent values (1, 1, null, 'null')", "update respondent set pages = '{1}'", "update respondent set result = '{\"a\": 1}'",
				"update respondent set result = '{\"a\":1 }'", "update respondent set result = '{\"a\": 2}'",
			},
			want: []string{"created 1", "started 1", "completed 1", "changed 1"},
		},
		{
			name: "triggers of the application move the markers, and replication roles do not matter",
			schema: harness.SampleSchema + `create function stamp() returns trigger language plpgsql as
				$$ begin if new.page > 0 and new.started_at is null then new.started_at := now(); end if; return new; end $$;
				create trigger stamp before insert or update on respondent for each row execute function stamp();
				create function follow() returns trigger language plpgsql as
				$$ begin update respondent set finished_at = now() where id = new.id and finished_at is null; return null; end $$;
				create trigger follow after update of page on respondent for each row when (new.page > 9) execute function follow();`,
			sql: []string{
				"insert into respondent (id, assessment_id) values (1, 1)", "update respondent set page = 1", "update respondent set page = 10",
				"set session_replication_role = replica; update respondent set finished_at = now()",
			},
			want: []string{"created 1", "started 1", "completed 1", "changed 1"},
		},
		{
			name: "a row that moves to another partition and changes its key is another response",
			schema: `create table respondent (id bigint, assessment_id bigint, started_at timestamptz, finished_at timestamptz, shard int, primary key (id, shard)) partition by list (shard);
				create table r1 partition of respondent for values in (1); create table r2 partition of respondent for values in (2);`,
			sql: []string{
				"insert into respondent values (1, 1, now(), null, 1)", "update respondent set shard = 2", "update respondent set id = 2",
				"update respondent set finished_at = now()",
				"begin; update respondent set shard = 1; update respondent set shard = 2; update respondent set finished_at = now() + interval '1 s'; commit",
				"update respondent set id = 3, shard = 1",
			},
			want: []string{"created 1", "started 1", "completed 2", "changed 2", "created 3", "started 3", "completed 3"},
		},
		{
			name:   "one partition is the table",
			schema: "create table everyone (id bigint, assessment_id bigint, started_at timestamptz, finished_at timestamptz, primary key (id)) partition by range (id); create table respondent partition of everyone for values from (100) to (maxvalue); create table r2 partition of everyone for values from (0) to (100);",
			sql: []string{
				"insert into everyone values (100, 1), (2, 1)", "update everyone set started_at = now()", "update everyone set finished_at = now() where id = 100",
				"truncate everyone",
			},
			want: []string{"created 100", "started 100", "completed 100"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testenv.NeedsVersion(t, testenv.Postgres(t), c.since, c.name)
			schema := c.schema
			if schema == "" {
				schema = harness.SampleSchema
			}
			s := harness.NewSite(t, schema).With(c.variables...)
			if strings.Contains(schema, "shard int") {
				harness.WithSentinel(s, "insert into respondent (id, assessment_id, shard) values (9%03d, 999, 1)", "9%03d")
			}
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

// A prepared transaction fires when it is committed, even if another daemon ran when it was prepared; one that is
// rolled back fires nothing. Its Timestamp is that of the commit.
func TestPreparedTransactions(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	s.Hooks()
	gid := strings.Trim(s.Env["SLOT"], "_")
	s.Exec("begin; insert into respondent (id, assessment_id) values (1, 1); prepare transaction '" + gid + "a'")
	s.Exec("begin; select walhook.silence(); insert into respondent (id, assessment_id) values (2, 1); prepare transaction '" + gid + "b'")
	s.Exec("begin; insert into respondent (id, assessment_id) values (3, 1); prepare transaction '" + gid + "c'")
	s.Exec("insert into respondent (id, assessment_id) values (4, 1)")
	s.Expect("/hook", "created 4")
	d.Stop()
	prepared := testenv.Value[time.Time](t, s.DB, "select clock_timestamp()")
	nextSecond(s, prepared)
	s.Start().Ready()
	s.Expect("/hook", "created 4")
	s.Exec("commit prepared '" + gid + "a'")
	s.Exec("commit prepared '" + gid + "b'")
	s.Exec("rollback prepared '" + gid + "c'")
	s.Exec("update respondent set started_at = now()")
	s.Expect("/hook", "created 4", "created 1", "started 1", "started 2", "started 4")
	for _, body := range s.Receiver.Bodies("/hook") {
		if strings.Contains(body, `created`) && strings.Contains(body, `:1}`) && timestampOf(t, body) <= prepared.Unix() {
			t.Errorf("%s has the time at which it was prepared, %d or before", body, prepared.Unix())
		}
	}
}

// Timestamp is when the transaction committed, however long ago its statements ran.
func TestTimestampIsThatOfTheCommit(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Run()
	s.Hooks()
	long := testenv.Connect(t, s.DB)
	if _, err := long.Exec(t.Context(), "begin; insert into respondent (id, assessment_id, started_at, finished_at) values (1, 1, now(), now())"); err != nil {
		t.Fatal(err)
	}
	inserted := testenv.Value[time.Time](t, s.DB, "select clock_timestamp()")
	s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
	nextSecond(s, inserted)
	var committing time.Time
	if err := long.QueryRow(t.Context(), "select clock_timestamp()").Scan(&committing); err != nil {
		t.Fatal(err)
	}
	if _, err := long.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	committed := testenv.Value[time.Time](t, s.DB, "select clock_timestamp()")
	s.Expect("/hook", "created 1", "started 1", "completed 1", "created 2")
	for _, body := range s.Receiver.Bodies("/hook") {
		at := timestampOf(t, body)
		if about2 := strings.Contains(body, ":2}"); about2 && at > inserted.Unix()+1 || !about2 && (at < committing.Unix() || at > committed.Unix()) {
			t.Errorf("%s: the statements ran before %d, and the commit was between %d and %d", body, inserted.Unix(), committing.Unix(), committed.Unix())
		}
	}
}

// nextSecond waits until the server's clock shows another second than the given time.
func nextSecond(s *harness.Site, after time.Time) {
	s.T.Helper()
	testenv.Eventually(s.T, harness.Patience, "the next second", func() (bool, string) {
		now := testenv.Value[time.Time](s.T, s.DB, "select clock_timestamp()")
		return now.Unix() > after.Unix()+1, now.String()
	})
}

func timestampOf(t *testing.T, body string) int64 {
	t.Helper()
	_, rest, _ := strings.Cut(body, `"Timestamp":`)
	digits, _, _ := strings.Cut(rest, ",")
	at, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		t.Fatal(fmt.Errorf("read the Timestamp of %s: %w", body, err))
	}
	return at
}
