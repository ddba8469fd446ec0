package stream

import (
	"fmt"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// textSchema has ids of type text, which may contain values that a store cannot accept.
const textSchema = `create table assessment (id text primary key, external_id text, copied_from text);
	create table respondent (id text primary key, assessment_id text, organization_id text, page int default 0, essay text,
	  started_at timestamptz, finished_at timestamptz);
	insert into assessment values ('1', 'EXT-1', null);`

// longKey returns SQL for an incompressible text of the given length in bytes.
func longKey(bytes int) string {
	return fmt.Sprintf("(select left(string_agg(md5(i::text), '' order by i), %d) from generate_series(1, %d) i)", bytes, bytes/32+1)
}

// A change that the store can never accept is set aside, whatever the reason: an incident names it, and everything
// before it, after it and in the same transaction is sent exactly once.
func TestChangeThatCanNeverBeTaken(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		source, store  string // encodings; an empty store is the same database
		bad            string // the statement in the middle of a transaction
		key            string // in the incident; empty for any
		table          string // empty: public.respondent
		check          string // run in the store after attach
		before         string // run in the source before attach
		alsoSent       []string
		recover        string // makes the row acceptable
		sentAfterwards []string
	}{
		{
			name: "a key longer than an index can hold",
			bad:  "insert into respondent (id, assessment_id, started_at) values (" + longKey(2680) + ", '1', now())", key: "c4ca4238a0b923820dcc509a6f75849bc81e728d",
			recover: "update respondent set id = 'short' where length(id) > 100", sentAfterwards: []string{`created "short"`, `started "short"`},
		},
		{
			name: "a check of the store's tables",
			bad:  "insert into respondent (id, assessment_id) values ('bad', '1')", key: "bad", check: "alter table walhook.response_state add check (response_id <> 'bad')",
		},
		{
			name: "a check of the queue",
			bad:  "insert into respondent (id, assessment_id) values ('bad', '1')", key: "bad", check: "alter table walhook.queue add check (response_id <> 'bad')",
		},
		{
			name: "a value out of range", // from whatever source
			bad:  "insert into respondent (id, assessment_id) values ('bad', '1')", key: "bad",
			check: `create function public.overflow() returns trigger language plpgsql as $$ begin if new.response_id = 'bad' then perform 2147483647 + length(new.response_id); end if; return new; end $$;
				create trigger overflow before insert on walhook.response_state for each row execute function public.overflow()`,
		},
		{
			name: "an assessment that the store refuses",
			bad:  "insert into assessment values ('bad', 'EXT')", key: "bad", table: "public.assessment", check: "alter table walhook.assessment add check (assessment_id <> 'bad')",
		},
		{
			name: "a key that the store's encoding has no letters for", store: "LATIN1",
			bad: "insert into respondent (id, assessment_id) values ('日本', '1')", key: `\u65e5\u672c`,
			recover: "update respondent set id = 'Zoë' where id = '日本'", sentAfterwards: []string{`created "Zoë"`},
		},
		{
			name: "an assessment id that the store's encoding has no letters for", store: "LATIN1",
			bad: "insert into respondent (id, assessment_id) values ('a1', '日本')", key: "a1",
			recover: "update respondent set assessment_id = '1' where id = 'a1'", sentAfterwards: []string{`created "a1"`},
		},
		{
			name: "an organization that the store's encoding has no letters for", store: "LATIN1",
			bad: "insert into respondent (id, assessment_id, organization_id) values ('a1', '1', '日本')", key: "a1",
			recover: "update respondent set organization_id = 'O' where id = 'a1'", sentAfterwards: []string{`created "a1"`},
		},
		{
			name: "an external id that the store's encoding has no letters for", store: "LATIN1",
			bad: "insert into assessment values ('7', '日本')", key: "7", table: "public.assessment",
		},
		{
			name: "an update of a row whose key stays", store: "LATIN1", before: "insert into respondent (id, assessment_id) values ('old', '1')",
			bad: "update respondent set assessment_id = '日本', started_at = now() where id = 'old'", key: "old",
			recover: "update respondent set assessment_id = '1' where id = 'old'", sentAfterwards: []string{`started "old"`},
		},
		{
			name: "bytes that are no UTF-8 in a key", source: "SQL_ASCII", store: "UTF8",
			bad: `insert into respondent (id, assessment_id) values (E'k\xff', '1')`, key: `k\xff`,
			recover: `update respondent set id = 'k' where id = E'k\xff'`, sentAfterwards: []string{`created "k"`},
		},
		{
			name: "bytes that are no UTF-8 in an assessment id", source: "SQL_ASCII", store: "UTF8",
			bad: `insert into respondent (id, assessment_id) values ('a1', E'\xff')`, key: "a1",
		},
		{
			name: "bytes that are no UTF-8 in an external id", source: "SQL_ASCII", store: "UTF8",
			bad: `insert into assessment values ('7', E'\xff')`, key: "7", table: "public.assessment",
		},
		{
			name: "bytes that are no UTF-8, where the store keeps any", source: "SQL_ASCII",
			bad: `insert into respondent (id, assessment_id) values (E'k\xff', '1')`, key: `k\xff`,
		},
		{
			name: "bytes that are no UTF-8 in a column that is not mapped", source: "SQL_ASCII", store: "UTF8",
			bad: `insert into respondent (id, assessment_id, essay) values ('fine', '1', E'\xff\xfe')`, alsoSent: []string{`created "fine"`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, textSchema)
			if c.source != "" {
				s.DB = testenv.EncodedDatabase(t, testenv.Postgres(t), c.source, textSchema)
				s.Store = s.DB
				s.With("DATABASE_URL", s.DB)
			}
			if c.store != "" {
				s.Store = testenv.EncodedDatabase(t, testenv.Postgres(t), c.store, "")
				s.With("STORE_URL", s.Store)
			}
			harness.WithSentinel(s.With("ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_COPIED_FROM", "copied_from", "RESPONDENT_ORGANIZATION", "organization_id"), "insert into respondent (id, assessment_id) values ('s%d', 'none')", "s%d")
			if c.before != "" {
				s.Exec(c.before)
			}
			d := s.Run()
			s.Hooks()
			if c.check != "" {
				testenv.Exec(t, s.Store, c.check)
			}
			s.Exec("insert into respondent (id, assessment_id) values ('first', '1')")
			s.Exec("begin; insert into respondent (id, assessment_id) values ('before', '1'); " + c.bad +
				"; insert into respondent (id, assessment_id) values ('beside', '1'); commit")
			s.Exec("insert into respondent (id, assessment_id) values ('after', '1')")
			want := append([]string{`created "first"`, `created "before"`, `created "beside"`, `created "after"`}, c.alsoSent...)
			s.Expect("/hook", want...)
			d.Readyz(200, "")

			// Another daemon does not process it again.
			d.Kill()
			s.Start().Ready()
			s.Exec("update respondent set page = page + 1 where id = 'first'")
			s.Expect("/hook", want...)

			incidents := testenv.Values[string](t, s.Store, "select detail from walhook.incident where kind = 'set_aside' and resolved_at is null")
			if len(c.alsoSent) > 0 {
				if len(incidents) > 0 {
					t.Errorf("nothing had to be set aside: %q", incidents)
				}
				return
			}
			table := c.table
			if table == "" {
				table = "public.respondent"
			}
			if len(incidents) != 1 || !strings.Contains(incidents[0], c.key) || !strings.Contains(incidents[0], table) || !strings.Contains(incidents[0], "0/") {
				t.Errorf("one incident must name %s, key %s and an LSN: %q", table, c.key, incidents)
			}
			if c.recover == "" {
				return
			}
			s.Exec(c.recover)
			want = append(want, c.sentAfterwards...)
			s.Expect("/hook", want...)
			open := func() int {
				return testenv.Value[int](t, s.Store, "select count(*) from walhook.incident where kind = 'set_aside' and resolved_at is null")
			}
			if open() != 0 {
				t.Errorf("%d incidents are open although the row's next change was accepted", open())
			}

			// A comparison finds no problem either.
			if out, errOut, status := s.Walhook("reconcile"); status != 0 {
				t.Fatalf("reconcile: status %d\n%s%s", status, out, errOut)
			}
			s.Expect("/hook", want...)
			if open() != 0 {
				t.Errorf("%d incidents are open although a comparison accepted every row", open())
			}
		})
	}
}

// A row that the store cannot accept stops neither attach nor a comparison: each reports it, accepts all others, and
// keeps its recorded state.
func TestRowsThatCannotBeTakenInASnapshot(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	s := harness.NewSite(t, textSchema)
	s.Store = testenv.EncodedDatabase(t, server, "LATIN1", "")
	harness.WithSentinel(s.With("STORE_URL", s.Store, "ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_COPIED_FROM", "copied_from"), "insert into respondent (id, assessment_id) values ('s%d', 'none')", "s%d")
	s.Exec(`insert into assessment values ('日本', 'EXT', null), ('2', 'EXT-2', null);
		insert into respondent (id, assessment_id) select 'r' || i, '1' from generate_series(1, 30000) i;
		insert into respondent (id, assessment_id) values ('日本', '1'), ('old', '1');
		insert into respondent (id, assessment_id) select 'q' || i, '2' from generate_series(1, 100) i`)
	d := s.Run()
	s.Hooks()
	open := func(want ...string) {
		t.Helper()
		incidents := testenv.Values[string](t, s.Store, "select detail from walhook.incident where kind = 'set_aside' and resolved_at is null")
		for _, text := range want {
			if !strings.Contains(strings.Join(incidents, "\n"), text) {
				t.Errorf("no open incident names %s: %q", text, incidents)
			}
		}
		if len(incidents) != len(want) {
			t.Errorf("%d incidents are open, not %d: %q", len(incidents), len(want), incidents)
		}
	}
	open(`public.assessment with key "\u65e5\u672c"`, `public.respondent with key "\u65e5\u672c"`)
	s.Exec("update respondent set started_at = now() where id in ('r1', 'q7', 'old')")
	s.Hook("/two", "started", "assessment_id", "'2'")
	s.Exec("update respondent set finished_at = now() where id = 'old'")
	s.Expect("/hook", `started "r1"`, `started "old"`, `completed "old"`)

	// One more can no longer be accepted; its state is kept.
	s.Exec("update respondent set assessment_id = '日本' where id = 'old'")
	s.WaitStored()
	for _, lost := range []bool{false, true} {
		if lost {
			d.Kill()
			s.DropSlot()
			s.Exec("insert into respondent (id, assessment_id) values ('missed', '1'), ('日', '1'), ('missed too', '1')")
			s.Start().Ready()
		} else if out, errOut, status := s.Walhook("reconcile"); status != 0 {
			t.Fatalf("reconcile: status %d\n%s%s", status, out, errOut)
		}
		want := []string{`assessment with key "\u65e5\u672c"`, `respondent with key "\u65e5\u672c"`, `respondent with key "old"`}
		if lost {
			want = append(want, `respondent with key "\u65e5"`)
		}
		testenv.Eventually(t, harness.Patience, "a comparison", func() (bool, string) {
			n := testenv.Value[int](t, s.Store, "select count(*) from walhook.incident where kind = 'reconcile'")
			return n == len(want)-2, fmt.Sprint(n)
		})
		open(want...)
	}
	s.Exec("update respondent set assessment_id = '1', finished_at = now() + interval '1 s' where id = 'old'")
	s.Expect("/hook", `started "r1"`, `started "old"`, `completed "old"`, `created "missed"`, `created "missed too"`, `changed "old"`)

	s.Exec("delete from respondent where id in ('日本', '日'); delete from assessment where id = '日本'")
	if out, errOut, status := s.Walhook("reconcile"); status != 0 {
		t.Fatalf("reconcile: status %d\n%s%s", status, out, errOut)
	}
	open()
}

// Many unacceptable rows among many acceptable ones, with kills: each of the acceptable ones is queued once.
func TestRowsThatCannotBeTakenThroughKills(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	hook := s.Hook("/hook", "created")
	testenv.Exec(t, s.Store, "alter table walhook.response_state add check (response_id::bigint % 3000 <> 17)")
	const rows = 30000
	s.Exec("insert into respondent (id, assessment_id) select i, 1 from generate_series(1, 15000) i")
	s.Exec("do $$ begin for i in 15001..30000 loop insert into respondent (id, assessment_id) values (i, 1); if i % 500 = 0 then commit; end if; end loop; end $$")
	for n := 5000; n < rows; n += 10000 {
		testenv.Eventually(t, 4*harness.Patience, fmt.Sprintf("%d responses", n), func() (bool, string) {
			got := testenv.Value[int](t, s.Store, "select count(*) from walhook.response_state")
			return got >= n, fmt.Sprint(got)
		})
		d.Kill()
		d = s.Start()
	}
	s.WaitStored()
	set := testenv.Value[int](t, s.Store, "select count(*) from walhook.incident where kind = 'set_aside'")
	got := testenv.Value[int](t, s.Store, "select count(distinct response_id) from (select response_id from walhook.queue union all select response_id from walhook.log) x")
	all := testenv.Value[int](t, s.Store, "select count(*) from (select response_id from walhook.queue where webhook_id = $1 union all select response_id from walhook.log) x", hook)
	if want := rows - rows/3000; got != want || all != want || set != rows/3000 {
		t.Errorf("%d deliveries of %d responses, not %d; %d rows set aside, not %d", all, got, want, set, rows/3000)
	}
}

// An assessment whose webhooks cannot be copied is stored all the same. The incident says so and how to copy them, and no later change or
// comparison claims to have made up for it before somebody has. Where the original can have no webhooks there is nothing to report.
func TestCopiesThatCanNeverBeMade(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, textSchema)
	s.Store = testenv.EncodedDatabase(t, testenv.Postgres(t), "LATIN1", "")
	s.With("STORE_URL", s.Store, "ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_COPIED_FROM", "copied_from")
	harness.WithSentinel(s, "insert into respondent (id, assessment_id) values ('s%d', 'none')", "s%d")
	s.Exec("insert into assessment values ('it''s', 'EXT', null)")
	d := s.Run()
	s.Hook("/hook", "created", "assessment_id", "'it''s'")
	open := func() string {
		t.Helper()
		return testenv.Psql(t, s.Store, "select detail from walhook.incident where kind = 'set_aside' and resolved_at is null order by at")
	}
	copies := func(want string) {
		t.Helper()
		if got := testenv.Psql(t, s.Store, "select string_agg(assessment_id, ' ' order by assessment_id) from walhook.webhook"); got != want {
			t.Errorf("there are webhooks of %s instead of %s", got, want)
		}
	}
	s.Exec("insert into assessment values ('from nowhere', 'EXT', '日本')")
	s.WaitStored()
	if got := open(); got != "" {
		t.Errorf("no webhook can be for the original, and yet: %s", got)
	}
	testenv.Exec(t, s.Store, "alter table walhook.webhook add constraint original check (assessment_id = 'it''s')")
	s.Exec("insert into assessment values ('2', 'EXT-2', 'it''s')")
	s.WaitStored()
	d.Kill()
	s.Exec("insert into assessment values ('3', 'EXT-3', 'it''s')")
	s.DropSlot()
	d = s.Start().Ready() // and compares
	s.Exec("update assessment set external_id = 'EXT-2b' where id = '2'")
	s.WaitStored()
	if got := testenv.Psql(t, s.Store, "select string_agg(external_id, ' ' order by assessment_id) from walhook.assessment where assessment_id in ('2', '3', 'from nowhere')"); got != "EXT-2b EXT-3 EXT" {
		t.Errorf("the assessments are stored with the external ids %q", got)
	}
	testenv.Exec(t, s.Store, "alter table walhook.webhook drop constraint original")
	s.WaitLog("select count(*) from walhook.incident where kind = 'set_aside' and resolved_at is null", "2")
	for _, id := range []string{"2", "3"} {
		detail := testenv.Psql(t, s.Store, "select detail from walhook.incident where kind = 'set_aside' and resolved_at is null and position('key \"' || '"+id+"' in detail) > 0")
		if !strings.Contains(detail, `the row of public.assessment with key "`+id+`" was stored, but the webhooks of its original could not be copied to it`) ||
			!strings.Contains(detail, "constraint") {
			t.Errorf("the incident says %s", detail)
		}
		_, statement, _ := strings.Cut(detail, "then ")
		statement, _, _ = strings.Cut(statement, ";")
		if !strings.HasPrefix(statement, "SELECT walhook.copy_webhooks(") {
			t.Fatalf("there is no statement in %s", detail)
		}
		testenv.Psql(t, s.Store, statement)
	}
	copies("2 3 it's")
	if got := open(); got != "" {
		t.Errorf("this is still open: %s", got)
	}
	d.Stop()
}
