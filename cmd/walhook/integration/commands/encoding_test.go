package commands

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// The application's database may have any encoding that the server can convert to UTF8: names and values mean the same
// as in SQL, in stream, attach and comparison. A value that the server cannot convert stops nothing: in an unmapped
// column it does not matter, in a marker or a stamp it counts as a value, and a row with such a key or assessment is
// set aside.
func TestSourceInAnotherEncoding(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		encoding, store string // an empty store is the same database
		word            string
		odd, odder      string // literals that the server cannot convert; empty if there are none
		named           string // the row that the incident names
	}{
		{encoding: "EUC_JP", store: "UTF8", word: "回答", odd: `E'\xa9\xa1'`, odder: `E'\xa9\xa2'`, named: `"\xa9\xa1"`},
		{encoding: "WIN1252", word: "réponse", odd: `E'\x81'`, odder: `E'\x8d'`, named: `"\x81"`},
		{encoding: "LATIN1", word: "réponse"},
	} {
		t.Run(c.encoding, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, "")
			db := testenv.EncodedDatabase(t, testenv.Postgres(t), c.encoding, "")
			s.DB = db + "&client_encoding=UTF8"
			s.Store = s.DB
			s.Exec(fmt.Sprintf(`create table "%[1]s" (id text primary key, "%[1]s_a" text, page int default 0, essay text, status text, stamp text);
				insert into "%[1]s" values ('%[1]s0', '%[1]s', 0, null, '%[1]s', null)`, c.word))
			if c.store != "" {
				s.WithStore(testenv.Postgres(t))
			}
			harness.WithSentinel(s.With("DATABASE_URL", db, "RESPONDENT_TABLE", "public."+c.word, "RESPONDENT_ASSESSMENT", c.word+"_a", "PUBLICATION", c.word,
				"STARTED", "status="+c.word+"|done", "FINISHED", "status=done", "FINISH_STAMP", "stamp"), `insert into "`+c.word+`" values ('s%d', 'none')`, "s%d")
			run := func(statement string) {
				t.Helper()
				s.Exec(strings.NewReplacer("TABLE", `"`+c.word+`"`, "WORD", c.word, "ODDER", c.odder, "ODD", c.odd).Replace(statement))
			}
			setAside := func(want ...string) {
				t.Helper()
				incidents := testenv.Values[string](t, s.Store, "select detail from walhook.incident where kind = 'set_aside' and resolved_at is null order by at")
				if len(incidents) != len(want) || slices.ContainsFunc(want, func(key string) bool { return !strings.Contains(strings.Join(incidents, "\n"), "key "+key+" ") }) {
					t.Errorf("open incidents should name %q: %q", want, incidents)
				}
			}
			var aside []string
			if c.odd != "" {
				run("insert into TABLE values (ODD, 'WORD', 0, null, null), ('old', 'WORD', 0, ODD, ODD)")
				aside = []string{c.named}
			}
			d := s.Run()
			for _, event := range []string{"created", "started", "completed", "changed"} {
				s.Hook("/hook", event, "assessment_id", "'"+c.word+"'")
			}
			setAside(aside...)

			run("insert into TABLE values ('WORD1', 'WORD'); update TABLE set status = 'WORD' where id = 'WORD1'; update TABLE set status = 'done', stamp = 'WORD' where id = 'WORD1'")
			run("update TABLE set page = page + 1 where id in ('old', 'WORD0', 'WORD1')")
			want := []string{`created "` + c.word + `1"`, `started "` + c.word + `1"`, `completed "` + c.word + `1"`}
			if c.odd != "" {
				run(`begin; insert into TABLE values ('a', 'WORD', 0, ODD, ODD); insert into TABLE values ('b', ODD), ('c', 'WORD'); commit;
					update TABLE set status = 'done', stamp = ODD where id = 'a'; update TABLE set stamp = ODDER where id = 'a'; update TABLE set page = page + 1`)
				want = append(want, `created "a"`, `created "c"`, `started "a"`, `completed "a"`, `changed "a"`)
				aside = append(aside, `"b"`)
			}
			s.Expect("/hook", want...)
			setAside(aside...)

			d.Kill()
			s.DropSlot()
			run("insert into TABLE values ('WORD2', 'WORD')")
			s.Start().Ready()
			want = append(want, `created "`+c.word+`2"`)
			s.Expect("/hook", want...)
			if out, errOut, status := s.Walhook("reconcile"); status != 0 {
				t.Fatalf("reconcile: status %d\n%s%s", status, out, errOut)
			}
			s.Expect("/hook", want...)
			setAside(aside...)

			if c.odd != "" { // a deleted row has nothing left to set aside
				run("update TABLE set id = 'd' where id = ODD; delete from TABLE where id = 'b'")
				s.Expect("/hook", append(want, `created "d"`)...)
				setAside()
			}
		})
	}
}

// A database with an encoding that cannot be converted to UTF8 at all is refused, with the reason.
func TestEncodingThatCannotBeConverted(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, "")
	s.With("DATABASE_URL", testenv.EncodedDatabase(t, testenv.Postgres(t), "MULE_INTERNAL", harness.SampleSchema), "STORE_URL", s.DB)
	out, errOut, status := s.Walhook("attach")
	if status != 1 || !strings.Contains(errOut, "MULE_INTERNAL") || !strings.Contains(errOut, "UTF8") || strings.Count(errOut, "\n") != 1 {
		t.Errorf("attach: status %d\n%s%s", status, out, errOut)
	}
}
