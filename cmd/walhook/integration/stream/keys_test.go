package stream

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// responseIDs returns what follows "ResponseId": in each body at a path, as it was on the wire.
func responseIDs(s *harness.Site, path string) []string {
	s.T.Helper()
	var ids []string
	for _, event := range s.Events(path) {
		_, id, _ := strings.Cut(event, " ")
		ids = append(ids, id)
	}
	return ids
}

// The key is a JSON number if the column is an integer, otherwise a string.
func TestKeyTypes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		column, sentinel, sentinelKey string
		ids                           []string // as SQL literals
		want                          []string // on the wire
	}{
		{"integer", "%d", "%d", []string{"2147483647", "-2147483648", "0"}, []string{"2147483647", "-2147483648", "0"}},
		{"smallint", "%d", "%d", []string{"-32768", "32767"}, []string{"-32768", "32767"}},
		{"bigint", "%d", "%d", []string{"9007199254740993", "9223372036854775807"}, []string{"9007199254740993", "9223372036854775807"}},
		{
			"uuid", "'00000000-0000-0000-0000-%012d'", "00000000-0000-0000-0000-%012d",
			[]string{"'6F9619FF-8B86-D011-B42D-00CF4FC964FF'"},
			[]string{`"6f9619ff-8b86-d011-b42d-00cf4fc964ff"`},
		},
		{"numeric", "%d", "%d", []string{"1.50"}, []string{`"1.50"`}},
		{
			"text", "'s%d'", "s%d",
			[]string{`'a"b'`, `'a\b'`, `'<&>'`, `'Zoë 日本 🎉'`, `'42'`, `'it''s'`, `E'tab\tline\n'`, `' '`, `'/'`},
			nil, // held by decoding
		},
	} {
		t.Run(c.column, func(t *testing.T) {
			t.Parallel()
			s := harness.WithSentinel(harness.NewSite(t, "create table respondent (id "+c.column+" primary key, assessment_id text, started_at timestamptz, finished_at timestamptz)"), "insert into respondent (id, assessment_id) values ("+strings.ReplaceAll(c.sentinel, "%d", "1%03d")+", 'x')", strings.ReplaceAll(c.sentinelKey, "%d", "1%03d"))
			s.Run()
			s.Hook("/hook", "created")
			for _, id := range c.ids {
				s.Exec("insert into respondent (id, assessment_id) values (" + id + ", '1')")
			}
			s.WaitRequests("/hook", len(c.ids))
			s.Fence()
			if c.want != nil {
				if diff := cmp.Diff(byKey(c.want), byKey(responseIDs(s, "/hook"))); diff != "" {
					t.Errorf("ids (-want +got):\n%s", diff)
				}
				return
			}
			want := testenv.Values[string](t, s.DB, "select id from respondent where assessment_id = '1'")
			var got []string
			for _, id := range responseIDs(s, "/hook") {
				var decoded string
				if err := json.Unmarshal([]byte(id), &decoded); err != nil {
					t.Errorf("%s is no JSON string: %v", id, err)
				}
				got = append(got, decoded)
			}
			if diff := cmp.Diff(byKey(want), byKey(got)); diff != "" {
				t.Errorf("ids (-want +got):\n%s", diff)
			}
		})
	}
}

func byKey(ids []string) map[string]int {
	counts := map[string]int{}
	for _, id := range ids {
		counts[id]++
	}
	return counts
}

// Names are used exactly as the catalog spells them.
func TestQuotedNames(t *testing.T) {
	t.Parallel()
	s := harness.WithSentinel(harness.NewSite(t, `create schema "Survey Data";
		create table "Survey Data"."Respondent.v2" ("Response Id" bigint primary key, "Assessment.Id" bigint, "Org ""X""" text,
		  "Started=At" timestamptz, "Finished At" timestamptz, "select" text);
		create table "Survey Data"."Assess ment" ("Id" bigint primary key, "External Id" text);
		insert into "Survey Data"."Assess ment" values (1, 'E');
		insert into "Survey Data"."Respondent.v2" values (1, 1, 'A', now(), now());`).With(
		"RESPONDENT_TABLE", `"Survey Data"."Respondent.v2"`, "RESPONDENT_ID", "Response Id", "RESPONDENT_ASSESSMENT", "Assessment.Id",
		"RESPONDENT_ORGANIZATION", `"Org ""X"""`, "STARTED", `"Started=At"`, "FINISHED", "Finished At",
		"ASSESSMENT_TABLE", "Survey Data.Assess ment", "ASSESSMENT_ID", "Id", "ASSESSMENT_EXTERNAL_ID", "External Id"), `insert into "Survey Data"."Respondent.v2" values (9%03d, 999)`, "9%03d")
	s.Run()
	s.Hooks()
	s.Hook("/all", "completed", "assessment_id", "null", "organization_id", "'A'")
	s.Exec(`insert into "Survey Data"."Respondent.v2" values (2, 1, 'A')`)
	s.Exec(`update "Survey Data"."Respondent.v2" set "Started=At" = now() where "Response Id" = 2`)
	s.Exec(`update "Survey Data"."Respondent.v2" set "Finished At" = now(), "select" = 'x'`)
	s.Expect("/hook", "created 2", "started 2", "changed 1", "completed 2")
	s.Expect("/all", "completed 2")
}

// A partitioned table is one table: a row that moves to another partition is the same response.
func TestPartitionedTable(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, `
		create table respondent (id bigint, assessment_id bigint, started_at timestamptz, finished_at timestamptz, primary key (id, assessment_id))
		  partition by list (assessment_id);
		create table respondent_1 partition of respondent for values in (1);
		create table respondent_2 partition of respondent for values in (2) partition by list (assessment_id);
		create table respondent_2a partition of respondent_2 for values in (2);
		create table respondent_rest partition of respondent default;
		insert into respondent values (1, 1, now(), null), (2, 2, now(), now());`)
	s.Run()
	s.Hooks()
	s.Hook("/two", "started", "assessment_id", "'2'")
	s.Hook("/two", "completed", "assessment_id", "'2'")
	s.Hook("/two", "created", "assessment_id", "'2'")
	for _, statement := range []string{
		"update respondent set finished_at = now() where id = 1",
		"insert into respondent (id, assessment_id) values (3, 1), (4, 2)",
		"update respondent set started_at = now() where id in (3, 4)",
		"update respondent set assessment_id = 2 where id = 3", // moves: nothing fires
		"update respondent set finished_at = now() where id = 3",
		"insert into respondent_1 (id, assessment_id) values (5, 1)",
		"create table respondent_7 partition of respondent for values in (7)",
		"insert into respondent (id, assessment_id) values (6, 7)",
		"update respondent set assessment_id = 1, started_at = now() where id = 6", // moves and starts
		"delete from respondent where id = 5",
		"insert into respondent (id, assessment_id) values (5, 1)",
	} {
		s.Exec(statement)
	}
	s.Expect("/hook", "completed 1", "created 3", "started 3", "created 5", "started 6", "created 5")
	s.Expect("/two", "created 4", "started 4", "completed 3")
}

// PUBLISH=mapped lists the mapped columns, if the server supports it.
func TestPublishMapped(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	s := harness.NewSite(t, harness.SampleSchema).With("PUBLISH", "mapped", "ASSESSMENT_TABLE", "public.assessment", "RESPONDENT_ORGANIZATION", "organization_id")
	if server.Version() < 150000 {
		harness.MustFail(s, "attach", "PUBLISH", "PostgreSQL 15")
		return
	}
	s.Run()
	s.Hooks()
	s.Hook("/all", "completed", "assessment_id", "null")
	got := testenv.Psql(t, s.DB, "select tablename, attnames from pg_publication_tables order by 1")
	if want := "assessment|{id,external_id}\nrespondent|{id,assessment_id,organization_id,started_at,finished_at}"; got != want {
		t.Errorf("published are\n%s\ninstead of\n%s", got, want)
	}
	s.Exec("insert into respondent (id, assessment_id, essay) values (1, 1, 'x')")
	s.Exec("update respondent set started_at = now(), page = 2")
	s.Exec("update respondent set finished_at = now()")
	s.Exec("alter table respondent drop column essay") // an unmapped column can be dropped
	s.Exec("update respondent set finished_at = now()")
	s.Expect("/hook", "created 1", "started 1", "completed 1", "changed 1")
	s.Expect("/all", "completed 1")
}

// PUBLISH=mapped is refused if all columns are published.
func TestPublishMappedAfterAll(t *testing.T) {
	t.Parallel()
	testenv.NeedsVersion(t, testenv.Postgres(t), 150000, "column lists")
	s := harness.NewSite(t, harness.SampleSchema)
	s.Attach()
	s.With("PUBLISH", "mapped")
	for _, command := range []string{"run", "attach", "plan", "doctor", "reconcile"} {
		harness.MustFail(s, command, "variable         attached  now\n", `WALHOOK_PUBLISH  "all"     "mapped"`)
	}
	s.With("PUBLISH", "all").Start().Ready()
}

// Markers of every kind: values with a stamp, boolean, numeric, text.
func TestMarkers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, columns string
		variables     []string
		sql, want     []string
	}{
		{
			"values and a stamp", "status text, finishes int",
			[]string{"STARTED", "status=in progress|done|archived", "FINISHED", "status=done|archived", "FINISH_STAMP", "finishes"},
			[]string{
				"insert into respondent values (1, 1, 'new', 0)",
				"update respondent set status = 'in progress'",
				"update respondent set status = 'done', finishes = 1",
				"update respondent set status = 'archived'",               // still finished, the same finish
				"update respondent set finishes = 2",                      // another
				"update respondent set status = 'reopened', finishes = 3", // cleared
				"update respondent set status = 'done'",                   // set again
				"update respondent set finishes = null",                   // no stamp is no finish
				"insert into respondent values (2, 1, 'archived', null)",  // both at once
				"update respondent set status = 'Done' where id = 2",      // case counts: cleared
			},
			[]string{"created 1", "started 1", "completed 1", "changed 1", "changed 1", "created 2", "started 2", "completed 2"},
		},
		{
			"boolean", "begun boolean, done boolean",
			[]string{"STARTED", "begun", "FINISHED", "done"},
			[]string{
				"insert into respondent values (1, 1, false, null)", "update respondent set begun = true", "update respondent set done = false",
				"update respondent set done = true", "update respondent set done = false", "update respondent set done = true",
			},
			[]string{"created 1", "started 1", "completed 1", "changed 1"},
		},
		{
			"numeric and text", "pages numeric, result text",
			[]string{"STARTED", "pages", "FINISHED", "result"},
			[]string{
				"insert into respondent values (1, 1, 0.00, '')", "update respondent set pages = 0.5", "update respondent set pages = 3",
				"update respondent set result = 'A'", "update respondent set result = 'B'", "update respondent set result = ''", "update respondent set result = 'B'",
			},
			[]string{"created 1", "started 1", "completed 1", "changed 1", "changed 1"},
		},
		{
			"expressions", "state text, made timestamp, modified timestamp, fields jsonb, page int",
			[]string{
				"STARTED", "modified > made and not fields in ('{}', 'null')",
				"FINISHED", "state in ('finished', 'it''s over') or page >= 9", "FINISH_STAMP", "modified",
			},
			[]string{
				"insert into respondent values (1, 1, 'new', '2026-01-01 12:00', null, '{}', 0)",
				"update respondent set modified = '2026-01-01 12:00:00.0'",                   // not after made
				"update respondent set modified = '2026-01-01 12:00:00.1'",                   // no fields
				"update respondent set fields = '{\"a\": 1}', page = 8",                      // started
				"update respondent set state = 'finish'",                                     // another text
				"update respondent set state = 'it''s over', modified = '2026-01-02'",        // finished
				"update respondent set state = 'new', page = 10",                             // still
				"update respondent set page = null",                                          // cleared
				"update respondent set page = 9, modified = '2026-01-03'",                    // again
				"update respondent set state = 'finished', page = 0",                         // still
				"update respondent set modified = '2026-01-04'",                              // again
				"insert into respondent values (2, 1, null, 'infinity', '2026-01-01', null)", // nothing is known to be so
			},
			[]string{"created 1", "started 1", "completed 1", "changed 1", "changed 1", "created 2"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, "create table respondent (id bigint primary key, assessment_id bigint, "+c.columns+")").With(c.variables...)
			s.Run()
			s.Hooks()
			for _, statement := range c.sql {
				s.Exec(statement)
			}
			s.Expect("/hook", c.want...)
		})
	}
}
