package commands

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"walhook/cdc/catalog"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// The statements that doctor advises for a replica identity work as they are, and the application can write afterwards.
func TestReplicaIdentityAdvice(t *testing.T) {
	t.Parallel()
	const columns = "(id bigint, assessment_id bigint, started_at timestamptz, finished_at timestamptz"
	statements := regexp.MustCompile(`(?:ALTER TABLE|CREATE UNIQUE INDEX)[^;]*;`)
	for name, c := range map[string]struct {
		schema    string
		variables []string
	}{
		"an index that nobody uses":        {schema: "create table respondent " + columns + ", unique (id)); alter table respondent alter id set not null"},
		"nothing, and no primary key":      {schema: "create table respondent " + columns + ", unique (id)); alter table respondent alter id set not null, replica identity nothing"},
		"nothing, and a primary key":       {schema: "create table respondent " + columns + ", primary key (id)); alter table respondent replica identity nothing"},
		"a column that may be NULL":        {schema: "create table respondent " + columns + ", unique (id))"},
		"full, mapped, and no primary key": {schema: "create table respondent " + columns + ", unique (id)); alter table respondent replica identity full", variables: []string{"PUBLISH", "mapped"}},
		"full, mapped, and a primary key":  {schema: "create table respondent " + columns + ", primary key (id)); alter table respondent replica identity full", variables: []string{"PUBLISH", "mapped"}},
		"partitions with an identity of theirs": {schema: "create table respondent " + columns + ", primary key (id)) partition by range (id);" +
			"create table low partition of respondent for values from (0) to (10); create table high partition of respondent for values from (10) to (20);" +
			"alter table low replica identity nothing; alter table high replica identity nothing"},
		"long values": {
			schema: "create table respondent " + columns + ", primary key (id)) partition by range (id); alter table respondent add status text, add notes text;" +
				"create table low partition of respondent for values from (0) to (10); create table high partition of respondent for values from (10) to (20)",
			variables: []string{"FINISHED", "(status = notes)", "FINISH_STAMP", "finished_at"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.Postgres(t)
			if len(c.variables) == 2 {
				testenv.NeedsVersion(t, server, 150000, "column lists")
			}
			s := harness.NewSite(t, c.schema+";insert into respondent (id) values (1), (11)").With(c.variables...)
			advised := func() (advice []string) {
				out, errOut, _ := s.Walhook("doctor", "--json")
				var report struct{ Findings []catalog.Finding }
				if err := json.Unmarshal([]byte(out), &report); err != nil {
					t.Fatalf("%v: %s%s", err, out, errOut)
				}
				for _, f := range report.Findings {
					if f.Level != catalog.OK && (f.Check == "replica_identity" || f.Check == "primary_key" || f.Check == "condition_values") {
						advice = append(advice, statements.FindAllString(f.Remedy, -1)...)
					}
				}
				return advice
			}
			advice := advised()
			if len(advice) == 0 {
				t.Error("doctor advises nothing")
			}
			for _, statement := range advice {
				testenv.Exec(t, s.DB, statement) // each by itself, since an index is created concurrently
			}
			if left := advised(); len(left) > 0 && !strings.Contains(strings.Join(left, ""), "FULL") {
				t.Errorf("after\n%s\ndoctor advises\n%s", strings.Join(advice, "\n"), strings.Join(left, "\n"))
			}
			s.Attach()
			s.Exec("update respondent set started_at = now(); delete from respondent")
		})
	}
}

// doctor does not advise what would make the application's updates fail with a column list.
func TestFullIdentityIsNotAdvisedWithAColumnList(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("FINISHED", "(name = essay)", "FINISH_STAMP", "finished_at", "PUBLISH", "mapped")
	out, _, _ := s.Walhook("doctor")
	if !strings.Contains(out, "condition_values") || strings.Contains(out, "IDENTITY FULL") {
		t.Errorf("doctor prints\n%s", out)
	}
}
