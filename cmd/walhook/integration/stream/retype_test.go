package stream

import (
	"fmt"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// A column with the same values in another type has not changed: no update of other columns, comparison, lost slot or
// swapped copy of the table fires anything for it, but a real change of the value does.
func TestRetypedFinishStamp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, value, alter string
		other              string // a different value, written afterwards
		lossy              bool   // a change before the comparison is indistinguishable from the conversion
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
			s := harness.NewSite(t, "create table respondent (id bigint primary key, assessment_id bigint, page int default 0, started_at timestamptz, done boolean, stamp "+c.from+")").
				With("FINISHED", "done", "FINISH_STAMP", "stamp")
			s.Exec("insert into respondent select i, 1, 0, now(), true, " + c.value + " from generate_series(1, 9) i")
			d := s.Run()
			s.Hooks()
			s.Exec("insert into respondent values (10, 1, 0, now(), true, " + c.value + ")")
			want := []string{"created 10", "started 10", "completed 10"}
			s.Expect("/hook", want...)

			s.Exec("alter table respondent alter stamp type " + c.alter)
			s.Exec("update respondent set page = page + 1 where id in (1, 10)")
			if !c.lossy {
				s.Exec("update respondent set stamp = " + c.other + " where id = 2")
				want = append(want, "changed 2")
			}
			s.Expect("/hook", want...)
			testenv.Eventually(t, harness.Patience, "the table to be compared", func() (bool, string) {
				details := testenv.Values[string](t, s.Store, "select detail from walhook.incident where kind = 'column_retyped' and resolved_at is not null")
				return len(details) == 1 && strings.Contains(details[0], "stamp"), fmt.Sprintf("%q", details)
			})
			d.Readyz(200, "")
			s.Exec("update respondent set page = page + 1 where id <> 4")
			s.Exec("update respondent set stamp = " + c.other + " where id = 3")
			want = append(want, "changed 3")
			s.Expect("/hook", want...)

			if out, errOut, status := s.Walhook("reconcile"); status != 0 {
				t.Fatalf("reconcile: status %d\n%s%s", status, out, errOut)
			}
			d.Kill()
			s.DropSlot()
			s.Start().Ready()
			s.Exec("update respondent set page = page + 1")
			s.Expect("/hook", want...)
		})
	}
}

// The type changes while no daemon runs, and the slot is lost as well: only real changes fire.
func TestRetypedWhileTheSlotIsLost(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, strings.ReplaceAll(harness.SampleSchema, "finished_at timestamptz", "finished_at timestamp"))
	s.Exec("insert into respondent (id, assessment_id, started_at, finished_at) select i, 1, now(), '2026-01-01 12:00' from generate_series(1, 5000) i")
	d := s.Run()
	s.Hooks()
	s.WaitStored()
	d.Kill()
	s.DropSlot()
	s.Exec("alter table respondent alter finished_at type timestamptz using finished_at at time zone 'UTC'")
	s.Exec("update respondent set finished_at = '2026-02-02 12:00:01Z' where id = 2")
	d = s.Start().Ready()
	s.Expect("/hook", "changed 2")

	// Copied and swapped, like an online migration.
	s.Exec(`begin; lock respondent;
		create table respondent_new (like respondent including all);
		alter table respondent_new alter finished_at type timestamp using finished_at at time zone 'UTC';
		insert into respondent_new (id, assessment_id, started_at, finished_at) select id, assessment_id, started_at, finished_at at time zone 'UTC' from respondent;
		update respondent_new set finished_at = '2026-03-03 12:00:01' where id = 3;
		alter table respondent rename to respondent_old; alter table respondent_new rename to respondent; commit`)
	harness.WaitResolved(s, "table_replaced")
	d.Readyz(200, "")
	s.Exec("update respondent set page = 9 where id < 100")
	s.Expect("/hook", "changed 2", "changed 3")
}

// No answer, however short, can be derived from the state.
func TestStampsAreStoredHashed(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, "create table respondent (id bigint primary key, assessment_id bigint, started_at timestamptz, answer text)").With("FINISHED", "answer")
	s.Exec("insert into respondent values (1, 1, now(), 'yes'), (2, 1, now(), repeat('no, never. ', 100))")
	d := s.Run()
	s.Hooks()
	s.Exec("insert into respondent values (3, 1, now(), 'maybe')")
	s.Expect("/hook", "created 3", "started 3", "completed 3")
	d.Kill()
	s.DropSlot()
	s.Exec("update respondent set answer = 'perhaps' where id = 1")
	s.Start().Ready()
	s.Expect("/hook", "created 3", "started 3", "completed 3", "changed 1")
	for _, row := range testenv.Values[string](t, s.Store, "select r::text from walhook.response_state r") {
		for _, answer := range []string{"yes", "no", "maybe", "perhaps"} {
			if strings.Contains(row, answer) {
				t.Errorf("the state holds the answer: %s", row)
			}
		}
	}
}

// When the key's type changes, the history follows the rows, whatever state the daemon is in, and ResponseId has the
// JSON type of the new type, in every process.
func TestRetypedKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to string
		id       func(n int) string // ResponseId before and after
		now      func(n int) string
		text     string // a key that only the new type can have; empty if there is none
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
			s := harness.WithSentinel(harness.NewSite(t, "create table respondent (id "+c.from+" primary key, assessment_id bigint, page int default 0, started_at timestamptz, finished_at timestamptz)"), "insert into respondent (id, assessment_id) values (9%03d, 999)", "9%03d")
			if c.from == "varchar(20)" {
				harness.WithSentinel(s, "insert into respondent (id, assessment_id) values ('9%03d', 999)", "9%03d")
			}
			if c.from == "numeric(12, 2)" {
				harness.WithSentinel(s, "insert into respondent (id, assessment_id) values (9%03d, 999)", "9%03d.00")
			}
			s.Exec("insert into respondent select i, 1, 0, now(), null from generate_series(1, 9) i")
			d := s.Run()
			s.Hooks()
			s.Exec("update respondent set finished_at = now() where id::text::numeric = 1")
			want := []string{"completed " + c.id(1)}
			s.Expect("/hook", want...)
			s.Exec("alter table respondent alter id type " + c.to)
			s.Exec("update respondent set page = 1, finished_at = case when id::text::numeric = 2 then now() end where id::text::numeric in (2, 3)")
			want = append(want, "completed "+c.now(2))
			if c.from == "varchar(20)" {
				harness.WithSentinel(s, "insert into respondent (id, assessment_id) values ('9%03d', 999)", "9%03d ")
			}
			if strings.HasPrefix(c.to, "bigint") {
				harness.WithSentinel(s, "insert into respondent (id, assessment_id) values (9%03d, 999)", "9%03d")
			}
			if strings.HasPrefix(c.to, "numeric") {
				harness.WithSentinel(s, "insert into respondent (id, assessment_id) values (9%03d, 999)", "9%03d.00")
			}
			s.Expect("/hook", want...)
			d.Kill()
			s.Start().Ready()
			s.Exec("update respondent set page = page + 1")
			s.Exec("update respondent set finished_at = now() where id::text::numeric = 4")
			want = append(want, "completed "+c.now(4))
			if c.text != "" {
				s.Exec("insert into respondent (id, assessment_id) values ('" + c.text + "', 1)")
				want = append(want, fmt.Sprintf("created %q", c.text))
			}
			s.Expect("/hook", want...)
			if out, errOut, status := s.Walhook("reconcile"); status != 0 {
				t.Fatalf("reconcile: status %d\n%s%s", status, out, errOut)
			}
			s.Expect("/hook", want...)
		})
	}
}

// If the key's new type does not show which recorded response belongs to which row, that is a gap: it is reported, and
// the table is compared. Rows with unrecorded keys fire nothing for the past, and everything from then on.
func TestRetypedKeyThatMatchesNothing(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, "create table respondent (id bigint primary key, assessment_id bigint, page int default 0, started_at timestamptz, finished_at timestamptz)")
	s.Exec("insert into respondent select i, 1, 0, now(), null from generate_series(1, 3) i")
	d := s.Run()
	s.Hooks()
	s.Exec("update respondent set finished_at = now() where id = 1")
	s.Expect("/hook", "completed 1")
	key := func(n int) string { return fmt.Sprintf("00000000-0000-0000-0000-%012d", n) }
	s.Exec(`alter table respondent alter id type uuid using lpad(id::text, 32, '0')::uuid; update respondent set page = page + 1`)
	harness.WithSentinel(s, "insert into respondent (id, assessment_id) values (lpad('9%03d', 32, '0')::uuid, 999)", "00000000-0000-0000-0000-00000000900%d")
	harness.WaitResolved(s, "key_retyped")
	d.Ready()
	s.Exec("update respondent set finished_at = now() where page = 1 and id = $1", key(2))
	s.Exec("insert into respondent (id, assessment_id) values ($1, 1)", key(4))
	s.Expect("/hook", "completed 1", fmt.Sprintf("completed %q", key(2)), fmt.Sprintf("created %q", key(4)))
}

// If a column gets its previous type back before the comparison, no incident stays open.
func TestRetypedForAWhile(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	s.WaitStored()
	d.Kill() // in the middle of the comparison
	testenv.Exec(t, s.Store, "insert into walhook.incident_log (kind, detail) values ('column_retyped', 'column finished_at of public.respondent has another type')")
	d = s.Start().Ready()
	harness.WaitResolved(s, "column_retyped")
	d.Ready()
}

// A column of an expression that gets a type which cannot be compared is reported; once it can be compared again, the
// table is compared and the stream continues.
func TestConditionOnARetypedColumn(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, "create table respondent (id bigint primary key, assessment_id bigint, fields jsonb, page int)").
		With("STARTED", "page > 0", "FINISHED", "fields <> '{}' and page > 1", "FINISH_STAMP", "page")
	d := s.Run()
	s.Hooks()
	s.Exec("insert into respondent values (1, 1, '{}', 0)")
	s.Expect("/hook", "created 1")
	s.Exec("alter table respondent alter fields type json")
	s.Exec(`update respondent set page = 2, fields = '{"a": 1}'`)
	d.Readyz(503, "WALHOOK_FINISHED cannot be evaluated")
	s.Exec("alter table respondent alter fields type jsonb")
	d.Readyz(200, "")
	s.Expect("/hook", "created 1", "started 1", "completed 1")
}
