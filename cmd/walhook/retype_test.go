package main

import (
	"fmt"
	"strings"
	"testing"

	"walhook/testenv"
)

// A column that holds the same values in another type has not changed: neither an update of other columns, a comparison, a lost slot nor
// a table that was copied and swapped fires anything for it; a value that really changes does.
func TestRetypedFinishStamp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, value, alter string
		other              string // another value afterwards
		lossy              bool   // a change before the table was compared cannot be told from the conversion
	}{
		{"timestamp", "'2026-03-18 18:44:09.5'", "timestamptz using stamp at time zone 'UTC'", "'2026-03-19 18:44:10Z'", false},
		{"timestamp", "'2026-03-18 18:44:09.5'", "timestamptz using stamp at time zone 'Asia/Kathmandu'", "'2026-03-19 18:44:10Z'", false},
		{"timestamptz", "'2026-07-18 18:44:09Z'", "timestamp using stamp at time zone 'America/New_York'", "'2026-03-19 18:44:10'", false},
		{"timestamptz", "'2026-07-18 18:44:09.123456Z'", "timestamptz(0)", "'2026-03-19 18:44:10Z'", true},
		{"date", "'2026-07-18'", "timestamptz", "'2026-03-19 18:44:10Z'", false},
		{"timestamptz", "'2026-07-18 18:44:09Z'", "date using stamp::date", "'2026-03-19'", true},
		{"integer", "17", "bigint", "18", false},
		{"integer", "17", "numeric(12, 2)", "17.01", false},
		{"numeric(12, 4)", "17.1234", "numeric(12, 2)", "18", true},
		{"numeric", "17.50", "numeric(12, 4)", "17.5001", true},
		{"real", "0.1", "double precision", "0.2", false},
		{"varchar(20)", "'a'", "text", "'b'", false},
		{"text", "'a'", "char(8)", "'b'", false},
		{"text", "'2026-07-18T18:44:09Z'", "timestamptz using stamp::timestamptz", "'2026-03-19 18:44:10Z'", true},
		{"bigint", "1784400000", "timestamptz using to_timestamp(stamp)", "'2026-03-19 18:44:10Z'", true},
		{"json", `'{"a": 1, "b": [1.0]}'`, "jsonb using stamp::jsonb", `'{"a": 2}'`, false},
		{"boolean", "true", "integer using stamp::int", "2", false},
	} {
		t.Run(c.from+" to "+strings.ReplaceAll(c.alter, "/", " "), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "create table respondent (id bigint primary key, assessment_id bigint, page int default 0, started_at timestamptz, done boolean, stamp "+c.from+")").
				with("FINISHED", "done", "FINISH_STAMP", "stamp")
			s.exec("insert into respondent select i, 1, 0, now(), true, " + c.value + " from generate_series(1, 9) i")
			d := s.run()
			s.hooks()
			s.exec("insert into respondent values (10, 1, 0, now(), true, " + c.value + ")")
			want := []string{"created 10", "started 10", "completed 10"}
			s.expect("/hook", want...)

			s.exec("alter table respondent alter stamp type " + c.alter)
			s.exec("update respondent set page = page + 1 where id in (1, 10)")
			if !c.lossy {
				s.exec("update respondent set stamp = " + c.other + " where id = 2")
				want = append(want, "changed 2")
			}
			s.expect("/hook", want...)
			testenv.Eventually(t, patience, "the table to be compared", func() (bool, string) {
				details := testenv.Values[string](t, s.store, "select detail from walhook.incident where kind = 'column_retyped' and resolved_at is not null")
				return len(details) == 1 && strings.Contains(details[0], "stamp"), fmt.Sprintf("%q", details)
			})
			d.readyz(200, "")
			s.exec("update respondent set page = page + 1 where id <> 4")
			s.exec("update respondent set stamp = " + c.other + " where id = 3")
			want = append(want, "changed 3")
			s.expect("/hook", want...)

			if out, errOut, status := s.walhook("reconcile"); status != 0 {
				t.Fatalf("reconcile: status %d\n%s%s", status, out, errOut)
			}
			d.kill()
			s.dropSlot()
			s.start().ready()
			s.exec("update respondent set page = page + 1")
			s.expect("/hook", want...)
		})
	}
}

// The type changes while no daemon runs, and the slot is lost as well: only what has really changed fires.
func TestRetypedWhileTheSlotIsLost(t *testing.T) {
	t.Parallel()
	s := newSite(t, strings.ReplaceAll(sampleSchema, "finished_at timestamptz", "finished_at timestamp"))
	s.exec("insert into respondent (id, assessment_id, started_at, finished_at) select i, 1, now(), '2026-01-01 12:00' from generate_series(1, 5000) i")
	d := s.run()
	s.hooks()
	s.waitStored()
	d.kill()
	s.dropSlot()
	s.exec("alter table respondent alter finished_at type timestamptz using finished_at at time zone 'UTC'")
	s.exec("update respondent set finished_at = '2026-02-02 12:00:01Z' where id = 2")
	d = s.start().ready()
	s.expect("/hook", "changed 2")

	// Copied and swapped, as migrations without locks do it.
	s.exec(`begin; lock respondent;
		create table respondent_new (like respondent including all);
		alter table respondent_new alter finished_at type timestamp using finished_at at time zone 'UTC';
		insert into respondent_new (id, assessment_id, started_at, finished_at) select id, assessment_id, started_at, finished_at at time zone 'UTC' from respondent;
		update respondent_new set finished_at = '2026-03-03 12:00:01' where id = 3;
		alter table respondent rename to respondent_old; alter table respondent_new rename to respondent; commit`)
	testenv.Eventually(t, patience, "the swapped table to be compared", func() (bool, string) {
		n := testenv.Value[int](t, s.store, "select count(*) from walhook.incident where kind = 'table_replaced' and resolved_at is not null")
		return n > 0, fmt.Sprint(n)
	})
	d.readyz(200, "")
	s.exec("update respondent set page = 9 where id < 100")
	s.expect("/hook", "changed 2", "changed 3")
}

// Nobody who reads the state reads an answer, however short it is.
func TestStampsAreStoredHashed(t *testing.T) {
	t.Parallel()
	s := newSite(t, "create table respondent (id bigint primary key, assessment_id bigint, started_at timestamptz, answer text)").with("FINISHED", "answer")
	s.exec("insert into respondent values (1, 1, now(), 'yes'), (2, 1, now(), repeat('no, never. ', 100))")
	d := s.run()
	s.hooks()
	s.exec("insert into respondent values (3, 1, now(), 'maybe')")
	s.expect("/hook", "created 3", "started 3", "completed 3")
	d.kill()
	s.dropSlot()
	s.exec("update respondent set answer = 'perhaps' where id = 1")
	s.start().ready()
	s.expect("/hook", "created 3", "started 3", "completed 3", "changed 1")
	for _, row := range testenv.Values[string](t, s.store, "select r::text from walhook.response_state r") {
		for _, answer := range []string{"yes", "no", "maybe", "perhaps"} {
			if strings.Contains(row, answer) {
				t.Errorf("the state holds the answer: %s", row)
			}
		}
	}
}

// The history follows the rows where the key gets another type, in whatever state the daemon is, and ResponseId has the JSON type of the
// column as it is now, for every process.
func TestRetypedKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to string
		id       func(n int) string // as ResponseId was written before, and is now
		now      func(n int) string
		text     string // a key that only the new type can have; empty: none
	}{
		{"bigint", "text", func(n int) string { return fmt.Sprint(n) }, func(n int) string { return fmt.Sprintf("%q", fmt.Sprint(n)) }, "x7"},
		{"integer", "bigint", func(n int) string { return fmt.Sprint(n) }, func(n int) string { return fmt.Sprint(n) }, ""},
		{"numeric(10)", "numeric(12, 2)", func(n int) string { return fmt.Sprintf(`"%d"`, n) }, func(n int) string { return fmt.Sprintf(`"%d.00"`, n) }, ""},
		{"numeric(12, 2)", "bigint using id::bigint", func(n int) string { return fmt.Sprintf(`"%d.00"`, n) }, func(n int) string { return fmt.Sprint(n) }, ""},
		{"varchar(20)", "char(5)", func(n int) string { return fmt.Sprintf(`"%d"`, n) }, func(n int) string { return fmt.Sprintf(`"%-5d"`, n) }, ""},
		{"text", "bigint using id::bigint", func(n int) string { return fmt.Sprintf(`"%d"`, n) }, func(n int) string { return fmt.Sprint(n) }, ""},
	} {
		t.Run(c.from+" to "+c.to, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "create table respondent (id "+c.from+" primary key, assessment_id bigint, page int default 0, started_at timestamptz, finished_at timestamptz)").
				sentinelOf("insert into respondent (id, assessment_id) values (9%03d, 999)", "9%03d")
			if c.from == "varchar(20)" {
				s.sentinelOf("insert into respondent (id, assessment_id) values ('9%03d', 999)", "9%03d")
			}
			if c.from == "numeric(12, 2)" {
				s.sentinelOf("insert into respondent (id, assessment_id) values (9%03d, 999)", "9%03d.00")
			}
			s.exec("insert into respondent select i, 1, 0, now(), null from generate_series(1, 9) i")
			d := s.run()
			s.hooks()
			s.exec("update respondent set finished_at = now() where id::text::numeric = 1")
			want := []string{"completed " + c.id(1)}
			s.expect("/hook", want...)
			s.exec("alter table respondent alter id type " + c.to)
			s.exec("update respondent set page = 1, finished_at = case when id::text::numeric = 2 then now() end where id::text::numeric in (2, 3)")
			want = append(want, "completed "+c.now(2))
			if c.from == "varchar(20)" {
				s.sentinelOf("insert into respondent (id, assessment_id) values ('9%03d', 999)", "9%03d ")
			}
			if strings.HasPrefix(c.to, "bigint") {
				s.sentinelOf("insert into respondent (id, assessment_id) values (9%03d, 999)", "9%03d")
			}
			if strings.HasPrefix(c.to, "numeric") {
				s.sentinelOf("insert into respondent (id, assessment_id) values (9%03d, 999)", "9%03d.00")
			}
			s.expect("/hook", want...)
			d.kill()
			s.start().ready()
			s.exec("update respondent set page = page + 1")
			s.exec("update respondent set finished_at = now() where id::text::numeric = 4")
			want = append(want, "completed "+c.now(4))
			if c.text != "" {
				s.exec("insert into respondent (id, assessment_id) values ('" + c.text + "', 1)")
				want = append(want, fmt.Sprintf("created %q", c.text))
			}
			s.expect("/hook", want...)
			if out, errOut, status := s.walhook("reconcile"); status != 0 {
				t.Fatalf("reconcile: status %d\n%s%s", status, out, errOut)
			}
			s.expect("/hook", want...)
		})
	}
}

// A key whose new type does not tell which recorded response is which row is a gap: it is said, and the table is compared. Rows under keys that
// were not recorded fire nothing for what had happened to them, and everything from then on.
func TestRetypedKeyThatMatchesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, "create table respondent (id bigint primary key, assessment_id bigint, page int default 0, started_at timestamptz, finished_at timestamptz)")
	s.exec("insert into respondent select i, 1, 0, now(), null from generate_series(1, 3) i")
	d := s.run()
	s.hooks()
	s.exec("update respondent set finished_at = now() where id = 1")
	s.expect("/hook", "completed 1")
	key := func(n int) string { return fmt.Sprintf("00000000-0000-0000-0000-%012d", n) }
	s.exec(`alter table respondent alter id type uuid using lpad(id::text, 32, '0')::uuid; update respondent set page = page + 1`)
	s.sentinelOf("insert into respondent (id, assessment_id) values (lpad('9%03d', 32, '0')::uuid, 999)", "00000000-0000-0000-0000-00000000900%d")
	s.resolved("key_retyped")
	d.ready()
	s.exec("update respondent set finished_at = now() where page = 1 and id = $1", key(2))
	s.exec("insert into respondent (id, assessment_id) values ($1, 1)", key(4))
	s.expect("/hook", "completed 1", fmt.Sprintf("completed %q", key(2)), fmt.Sprintf("created %q", key(4)))
}

// A column that gets its former type back before the table was compared leaves no incident open.
func TestRetypedForAWhile(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema)
	d := s.run()
	s.waitStored()
	d.kill() // in the middle of the comparison
	testenv.Exec(t, s.store, "insert into walhook.incident_log (kind, detail) values ('column_retyped', 'column finished_at of public.respondent has another type')")
	d = s.start().ready()
	s.resolved("column_retyped")
	d.ready()
}
