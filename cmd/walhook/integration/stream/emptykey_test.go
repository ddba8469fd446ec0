package stream

import (
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
)

// An empty string is a value like any other, as a key, an assessment id or an organization.
func TestEmptyIsNotAbsent(t *testing.T) {
	t.Parallel()
	const schema = `create table assessment (id text primary key, external_id text);
		create table respondent (id text primary key, assessment_id text, organization_id text, page int default 0,
		  started_at timestamptz, finished_at timestamptz);
		insert into assessment values ('', 'EXT'), ('1', 'EXT-1');`
	for _, c := range []struct {
		name      string
		before    string
		sql, want []string
	}{
		{
			name: "an empty key through its whole life",
			sql: []string{
				"insert into respondent (id, assessment_id) values ('', '1')", "update respondent set page = 1", "update respondent set started_at = now()",
				"update respondent set page = 2", "update respondent set finished_at = now()", "update respondent set page = 3",
				"delete from respondent where id = ''", "insert into respondent (id, assessment_id) values ('', '1')",
			},
			want: []string{`created ""`, `started ""`, `completed ""`, `created ""`},
		},
		{
			name:   "an empty key that was there at attach",
			before: "insert into respondent (id, assessment_id, started_at) values ('', '1', now())",
			sql:    []string{"update respondent set page = 1", "update respondent set finished_at = now()"},
			want:   []string{`completed ""`},
		},
		{
			name: "a key that becomes empty, and another one afterwards",
			sql: []string{
				"insert into respondent (id, assessment_id, started_at) values ('a', '1', now())", "update respondent set id = ''", "update respondent set page = 1",
				"update respondent set id = 'b'", "update respondent set finished_at = now()",
				"insert into respondent (id, assessment_id) values ('', '1')",
			},
			want: []string{`created "a"`, `started "a"`, `completed "b"`, `created ""`},
		},
		{
			name: "a key that is empty for a moment in one transaction",
			sql: []string{
				`begin; insert into respondent (id, assessment_id) values ('', '1'), ('x', '1'); update respondent set id = 'y' where id = '';
				 update respondent set id = '' where id = 'x'; update respondent set id = 'x' where id = 'y'; commit`,
				"update respondent set started_at = now()",
			},
			want: []string{`created ""`, `created "x"`, `started ""`, `started "x"`},
		},
		{
			name: "an empty assessment id is an assessment, and NULL is none",
			sql: []string{
				"insert into respondent (id, assessment_id) values ('a', ''), ('b', null)", "update respondent set page = 1",
				"update respondent set assessment_id = null, started_at = now() where id = 'a'", "update respondent set assessment_id = '', started_at = now() where id = 'b'",
			},
			want: []string{`all created "a"`, `all started "b"`},
		},
		{
			name: "an empty organization is none of the named ones",
			sql: []string{
				"insert into respondent (id, assessment_id, organization_id) values ('a', '1', ''), ('b', '1', 'O')", "update respondent set organization_id = 'O', started_at = now()",
			},
			want: []string{`created "a"`, `created "b"`, `started "a"`, `started "b"`, `O created "b"`, `O started "a"`, `O started "b"`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := harness.WithSentinel(harness.NewSite(t, schema).With("ASSESSMENT_TABLE", "public.assessment", "RESPONDENT_ORGANIZATION", "organization_id"), "insert into respondent (id, assessment_id) values ('s%d', 'none')", "s%d")
			if c.before != "" {
				s.Exec(c.before)
			}
			s.Run()
			s.Hooks()
			for _, event := range []string{"created", "started"} {
				s.Hook("/all", event, "assessment_id", "null")
				s.Hook("/O", event, "organization_id", "'O'")
			}
			for _, statement := range c.sql {
				s.Exec(statement)
			}
			paths := map[string][]string{"/hook": {}}
			for _, want := range c.want {
				path, event := "/hook", want
				for _, prefix := range []string{"all", "O"} {
					if rest, ok := strings.CutPrefix(want, prefix+" "); ok {
						path, event = "/"+prefix, rest
					}
				}
				paths[path] = append(paths[path], event)
			}
			for path, want := range paths {
				s.Expect(path, want...)
			}
		})
	}
}
