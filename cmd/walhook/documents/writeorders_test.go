package documents

import (
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// Write orders of applications beyond those of the cookbooks, and what each statement fires: c, s, f and h stand for
// created, started, completed (finished) and changed.
func TestWriteOrders(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	names := map[rune]string{'c': "created", 's': "started", 'f': "completed", 'h': "changed"}
	for name, c := range map[string]struct {
		schema string
		env    []string
		writes [][2]string
	}{
		"status and two stamps": {
			`create table respondent (id int primary key, assessment_id int, started_at timestamptz, status text not null default 'new',
				submitted_at timestamptz(0), edited_at timestamptz, note text)`,
			[]string{"FINISHED", "status=done", "FINISH_STAMP", "submitted_at,edited_at"},
			[][2]string{
				{"insert into respondent values (1, 1)", "c"},
				{"update respondent set status = 'DONE' where id = 1", ""},
				{"update respondent set status = ' done' where id = 1", ""},
				{"update respondent set status = 'done' where id = 1", "f"},
				{"update respondent set note = 'autosave' where id = 1", ""},
				{"update respondent set submitted_at = '2026-01-01 10:00+00' where id = 1", ""},
				{"update respondent set submitted_at = '2026-01-01 11:00+01' where id = 1", ""}, // the same instant
				{"update respondent set edited_at = '2026-01-02' where id = 1", "h"},
				{"update respondent set edited_at = null where id = 1", ""},
				{"update respondent set edited_at = '2026-01-02' where id = 1", ""},
				{"update respondent set submitted_at = '2026-01-03', edited_at = '2026-01-03' where id = 1", "h"},
				{"update respondent set status = 'new' where id = 1", ""},
				{"update respondent set note = 'again' where id = 1", ""},
				{"begin; update respondent set status = 'done' where id = 1; update respondent set submitted_at = '2026-01-04' where id = 1; commit", "h"},
				{"update respondent set status = 'new' where id = 1", ""},
				{"update respondent set status = 'done' where id = 1", "h"},
				{"update respondent set note = 'x' where id = 1", ""},
				{"update respondent set edited_at = '2026-01-05' where id = 1", ""},
				{"update respondent set edited_at = '2026-01-06' where id = 1", "h"},
				{"update respondent set status = 'new', submitted_at = null, edited_at = null where id = 1", ""},
				{"update respondent set submitted_at = '2026-01-06' where id = 1", ""}, // the stamp first
				{"update respondent set status = 'done' where id = 1", "h"},
				{"update respondent set submitted_at = '2026-01-07' where id = 1", "h"},
				{"delete from respondent where id = 1; insert into respondent values (1, 1, now(), 'done', '2026-01-07')", "csf"},
				{"begin; delete from respondent; insert into respondent values (1, 1, null, 'done'); commit", "cf"},
				{"update respondent set submitted_at = '2026-01-08' where id = 1", ""},
				{"insert into respondent values (1, 1, now(), 'done', '2026-01-09') on conflict (id) do update set submitted_at = excluded.submitted_at", "h"},
				{"insert into respondent values (1, 1) on conflict do nothing", ""},
				{"insert into respondent values (2, 1, now(), 'done', '2026-01-09') on conflict (id) do update set submitted_at = excluded.submitted_at", "csf"},
				{"begin; update respondent set id = 3 where id = 2; update respondent set submitted_at = '2026-01-10' where id = 3; commit", "h"},
				{"update respondent set id = id + 100, submitted_at = '2026-01-11'", "hh"},
				{"begin; savepoint a; update respondent set submitted_at = '2026-01-12' where id = 101; rollback to a; commit", ""},
				{"truncate respondent; insert into respondent values (101, 1, null, 'done')", "cf"},
			},
		},
		"JSON that is stored outside the row": {
			`create table respondent (id uuid primary key, assessment_id int, answers jsonb, result json, n int);
			 alter table respondent alter answers set storage external, alter result set storage external`,
			[]string{"STARTED", "answers", "FINISHED", "result", "FINISH_STAMP", "result"},
			[][2]string{
				{"insert into respondent values ('11111111-1111-1111-1111-111111111111', 1, '{}', '[]')", "c"},
				{"update respondent set answers = '[]'", ""},
				{"update respondent set answers = (select jsonb_object_agg(n, md5(n::text)) from generate_series(1, 1000) n)", "s"},
				{"update respondent set n = 1", ""},
				{"update respondent set result = (select json_agg(md5(n::text)) from generate_series(1, 1000) n)", "f"},
				{"update respondent set n = 2", ""},
				{"update respondent set answers = '{}'", ""},
				{"update respondent set result = '[ ]'", ""},
				{"update respondent set result = '[1]'", "h"},
				{"update respondent set result = '[1 ]'", ""},
				{"update respondent set result = '[2]'", "h"},
			},
		},
		"numbers": {
			`create table respondent (id bigint primary key, assessment_id int, progress numeric(5,2), tries int not null default 0, score real)`,
			[]string{"STARTED", "progress", "FINISHED", "progress >= 100", "FINISH_STAMP", "tries"},
			[][2]string{
				{"insert into respondent values (1, 1, 0.00)", "c"},
				{"update respondent set progress = 0.01", "s"},
				{"update respondent set progress = 99.99", ""},
				{"update respondent set progress = 100.00, tries = 1", "f"},
				{"update respondent set progress = 100, score = 5", ""},
				{"update respondent set tries = 2", "h"},
				{"update respondent set progress = 50", ""},
				{"update respondent set progress = 100, tries = 3", "h"},
				{"update respondent set progress = 'NaN'", ""},
			},
		},
		"enumeration, domain and citext": {
			`create extension citext; create type stage as enum ('open', 'review', 'closed'); create domain flag as boolean default false; create domain word as citext;
			 create table respondent (id int primary key, assessment_id int, stage stage not null default 'open', begun flag, state word default 'ok', at time)`,
			[]string{"STARTED", "begun", "FINISHED", "stage=closed", "RESPONDENT_WHERE", "state=ok|OK", "FINISH_STAMP", "at"},
			[][2]string{
				{"insert into respondent values (1, 1)", "c"},
				{"update respondent set begun = true", "s"},
				{"update respondent set stage = 'review', state = 'OK'", ""},
				{"update respondent set stage = 'closed', at = '00:00'", "f"},
				{"update respondent set at = '00:00:01'", "h"},
				{"update respondent set state = 'spam'", ""},
				{"update respondent set stage = 'open'", ""},
				{"update respondent set state = 'ok'", "cs"},
				{"update respondent set stage = 'closed'", "f"},
			},
		},
		"arrays and intervals": {
			`create table respondent (id int primary key, assessment_id int, pages int[] not null default '{}', spent interval, revision bigint)`,
			[]string{"STARTED", "pages", "FINISHED", "spent", "FINISH_STAMP", "revision"},
			[][2]string{
				{"insert into respondent values (1, 1, '{}', '0')", "c"},
				{"update respondent set pages = array[1]", "s"},
				{"update respondent set spent = '00:05'", "f"},
				{"update respondent set revision = 1", ""},
				{"update respondent set revision = 2", "h"},
				{"update respondent set spent = '00:06'", ""},
				{"update respondent set spent = null", ""},
				{"update respondent set spent = '00:07'", "h"},
				{"update respondent set revision = 3", ""},
			},
		},
		"partitions and soft deletion": {
			`create table respondent (id int, assessment_id int, deleted_at timestamptz, started_at timestamptz, finished_at timestamptz, primary key (id, assessment_id)) partition by list (assessment_id);
			 create table r1 partition of respondent for values in (1); create table r2 partition of respondent for values in (2)`,
			[]string{"RESPONDENT_WHERE", "deleted_at is null"},
			[][2]string{
				{"insert into respondent values (1, 1, null, now())", "cs"},
				{"update respondent set assessment_id = 2", ""},
				{"update respondent set finished_at = '2026-01-01', assessment_id = 1", "f"},
				{"update respondent set deleted_at = now()", ""},
				{"update respondent set finished_at = '2026-01-02'", ""},
				{"update respondent set deleted_at = null", "csf"},
				{"update respondent set assessment_id = 2, finished_at = '2026-01-03'", "h"},
				{"update respondent set finished_at = null", ""},
				{"update respondent set finished_at = '2026-01-03'", "h"},
				{"update respondent set finished_at = '2026-01-03'", ""},
			},
		},
		"padded text and a late start": {
			`create table respondent (id int primary key, assessment_id int, state char(10) not null default 'new', ready bool, finished_at date)`,
			[]string{"STARTED", "state=open|done", "FINISHED", "state = 'done' and ready", "FINISH_STAMP", "finished_at"},
			[][2]string{
				{"insert into respondent values (1, 1)", "c"},
				{"update respondent set state = 'done'", "s"},
				{"update respondent set ready = true", "f"},
				{"update respondent set ready = null", ""},
				{"update respondent set ready = true, finished_at = '2026-01-01'", "h"},
				{"update respondent set finished_at = '2026-01-02'", "h"},
				{"insert into respondent values (2, 1, 'done', true, '2026-01-01')", "csf"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSiteOn(t, server, c.schema).With(c.env...)
			s.Run()
			for _, event := range names {
				s.Hook("/hook", event, "assessment_id", "null")
			}
			var writes [][]string
			for _, w := range c.writes {
				fires := "nothing"
				if w[1] != "" {
					fires = ""
				}
				for _, letter := range w[1] {
					fires += "`response." + names[letter] + "` "
				}
				writes = append(writes, []string{"", w[0], fires})
			}
			followMapping(s, writes)
		})
	}
}
