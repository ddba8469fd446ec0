package commands

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/setup"
	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// previewOf runs walhook preview --json.
func previewOf(s *harness.Site, pairs ...string) (p setup.Preview) {
	s.T.Helper()
	one := *s
	one.Env = map[string]string{}
	for name, value := range s.Env {
		one.Env[name] = value
	}
	one.With(pairs...)
	out, errOut, status := one.Walhook("preview", "--json")
	if status != cli.ExitOK {
		s.T.Fatalf("preview exits with %d: %s", status, errOut)
	}
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		s.T.Fatalf("%v in\n%s", err, out)
	}
	return p
}

// What preview counts is what attach then records.
func TestPreviewCountsWhatAttachRecords(t *testing.T) {
	t.Parallel()
	const schema = harness.SampleSchema + `
		alter table respondent add status text, add answers jsonb, add draft boolean, add score numeric;
		insert into respondent (id, assessment_id, status, answers, draft, score, page, started_at, finished_at)
		select g, nullif(g % 5, 0), (array['open', 'done', 'closed', '', null])[1 + g % 5], (array['{}', '[]', 'null', '{"a": 1}', null])[1 + g % 5]::jsonb,
		       (array[true, false, null])[1 + g % 3], (array['NaN', '0', '0.00', '7', null])[1 + g % 5]::numeric, g % 4,
		       case when g % 7 > 1 then now() - interval '1 hour' end, case when g % 7 > 3 then now() - g * interval '1 second' end
		  from generate_series(1, 1000) g;`
	for name, variables := range map[string][]string{
		"the default": nil,
		"values":      {"STARTED", "page", "FINISHED", "status=done|closed", "FINISH_STAMP", "finished_at,score"},
		"documents":   {"STARTED", "answers", "FINISHED", "score"},
		"expressions": {
			"RESPONDENT_WHERE", "not draft", "STARTED", "page > 1 or answers is not null", "FINISHED", "status in ('done', 'closed') and finished_at > started_at",
			"FINISH_STAMP", "score",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, schema).With(variables...)
			p := previewOf(s)
			s.Attach()
			count := func(mask, want int16) int64 {
				return testenv.Value[int64](t, s.Store, "select count(*) from walhook.response_state where flags & $1 = $2", mask, want)
			}
			const all = cdc.FlagExcluded | cdc.FlagStartedNow | cdc.FlagFinishedNow
			recorded := setup.PreviewCounts{
				NoResponse:  count(cdc.FlagExcluded, cdc.FlagExcluded),
				CreatedOnly: count(all, 0),
				Started:     count(all, cdc.FlagStartedNow),
				Finished:    count(cdc.FlagExcluded|cdc.FlagFinishedNow, cdc.FlagFinishedNow),
			}
			if diff := cmp.Diff(recorded, p.Counts); diff != "" {
				t.Errorf("recorded (-) and previewed (+):\n%s", diff)
			}
			const finished = "from walhook.response_state where flags & $1 = $2"
			if want := testenv.Value[int64](t, s.Store, "select count(*) - count(stamp) "+finished, cdc.FlagExcluded|cdc.FlagFinishedNow, cdc.FlagFinishedNow); p.Stamp.Null != want {
				t.Errorf("%d finished responses have no stamp, and %d are previewed", want, p.Stamp.Null)
			}
			if want := testenv.Value[int64](t, s.Store, "select count(distinct stamp) "+finished, cdc.FlagExcluded|cdc.FlagFinishedNow, cdc.FlagFinishedNow); p.Stamp.Distinct != want {
				t.Errorf("there are %d different stamps, and %d are previewed", want, p.Stamp.Distinct)
			}
			if p.Read.Rows != 1000 || p.Read.Method != catalog.SampleAll || p.Read.EstimatedRows != 1000 {
				t.Errorf("read %+v", p.Read)
			}
			for _, marker := range p.Markers {
				for _, column := range marker.Columns {
					rows, set := column.OtherRows, column.OtherSet
					for _, v := range column.Values {
						rows, set = rows+v.Rows, set+v.Set
					}
					whole, want := p.Counts.Responses(), map[string]int64{"WALHOOK_STARTED": count(cdc.FlagExcluded|cdc.FlagStartedNow, cdc.FlagStartedNow), "WALHOOK_FINISHED": p.Counts.Finished}[marker.Variable]
					if marker.Variable == "WALHOOK_RESPONDENT_WHERE" {
						whole, want = 1000, whole
					}
					if rows != whole || set != want {
						t.Errorf("%s: the values of %s add up to %d rows of %d, and are set in %d of %d", marker.Variable, column.Column, rows, whole, set, want)
					}
				}
			}
		})
	}
}

// preview shows where organizations and names of assessments come from, and how many responses have none.
func TestPreviewOfAssessments(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.With("ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_NAME", "title", "ASSESSMENT_ORGANIZATION", "external_id", "RESPONDENT_ORGANIZATION", "organization_id")
	if out, _, _ := s.Walhook("preview"); out != "Table public.respondent: it has no rows.\n" {
		t.Errorf("of an empty table preview prints\n%s", out)
	}
	s.Exec(`insert into assessment values (3, ' ', 'EXT-3');
		insert into respondent (id, assessment_id, organization_id) values (1, 1, 'own'), (2, 1, null), (3, 2, null), (4, 3, null), (5, 99, null), (6, null, 'x')`)
	p := previewOf(s)
	if want := (setup.PreviewAssessments{Table: "public.assessment", Rows: 3, Unknown: 1, NoExternalID: 1, NoName: 1}); p.Assessments != want {
		t.Errorf("of the assessments: %+v", p.Assessments)
	}
	if want := (setup.PreviewOrganizations{Mapped: true, Own: 2, OfAssessment: 2, None: 2}); p.Organizations != want {
		t.Errorf("of the organizations: %+v", p.Organizations)
	}
	out, _, _ := s.Walhook("preview")
	for _, text := range []string{`1: assessment_id '1', organization_id 'own', started_at NULL, finished_at NULL, organization 'own', assessment's name 'one'`, "organization 'EXT-1'"} {
		if !strings.Contains(out, text) {
			t.Errorf("preview lacks %q:\n%s", text, out)
		}
	}
}

// A role that may only read the mapped columns can preview, without a store.
func TestPreviewNeedsOnlySelect(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, map[string]string{"wal_level": "minimal", "max_wal_senders": "0"})
	s := harness.NewSiteOn(t, server, harness.SampleSchema+`
		create role reader login;
		grant select (id, assessment_id, started_at, finished_at) on respondent to reader;
		insert into respondent (id, assessment_id, name, started_at, finished_at) values
			(1, 17, 'Ada', null, null), (2, 17, 'Bob', '2026-01-02 10:00Z', null), (3, 17, 'Cyd', '2026-01-02 11:00Z', '2026-01-02 10:00Z'), (4, null, 'Dan', null, '2026-01-02 10:00Z')`)
	s.With("DATABASE_URL", harness.UserOf(t, s.DB, "reader"), "STORE_URL", "postgres://127.0.0.1:1/nowhere")
	before := catalogs(t, s.DB)
	p := previewOf(s)
	unchanged(t, "preview", before, catalogs(t, s.DB))
	if want := (setup.PreviewCounts{CreatedOnly: 1, Started: 1, Finished: 2}); p.Counts != want {
		t.Errorf("counts are %+v", p.Counts)
	}
	if diff := cmp.Diff([]setup.PreviewOdd{
		{What: "finished_before_started", Rows: 1, IDs: []string{"3"}},
		{What: "finished_not_started", Rows: 1, IDs: []string{"4"}},
		{What: "no_assessment", Rows: 1, IDs: []string{"4"}},
	}, p.Odd); diff != "" {
		t.Errorf("odd rows (-want +got):\n%s", diff)
	}
	fires := map[string]string{}
	for _, next := range p.Next {
		fires[next.Kind+": "+next.Write] = strings.Join(next.Fires, " ")
	}
	if diff := cmp.Diff(map[string]string{
		"created_only: moves no marker and no stamp":               "",
		"created_only: the started marker is set":                  "response.started",
		"created_only: the finished marker is set":                 "response.completed",
		"started: moves no marker and no stamp":                    "",
		"started: the finished marker is set":                      "response.completed",
		"finished: moves no marker and no stamp":                   "",
		"finished: the finish stamp changes":                       "response.changed",
		"finished: the finished marker is cleared":                 "",
		"finished: the finished marker is cleared, then set again": "response.changed",
	}, fires); diff != "" {
		t.Errorf("the next writes (-want +got):\n%s", diff)
	}
	out, errOut, status := s.Walhook("preview")
	for _, text := range []string{
		"Table public.respondent: all 4 rows were read.\n", "  finished      2  50.0 %\n", "WALHOOK_STARTED=started_at, values of started_at (timestamp with time zone) of the responses:\n",
		"  NULL                      2  not set\n", "  1 finished before started (3)\n",
		"  created only  1: assessment_id '17', started_at NULL, finished_at NULL\n",
	} {
		if !strings.Contains(out, text) {
			t.Errorf("preview lacks %q", text)
		}
	}
	if status != cli.ExitOK || errOut != "" || t.Failed() {
		t.Errorf("preview exits with %d and prints\n%s%s", status, out, errOut)
	}
	s.With("STARTED", "page")
	harness.MustFail(s, "preview", "this role may not read page of public.respondent", "GRANT USAGE")
}

// A large table is sampled, without running functions of its owner.
func TestPreviewOfALargeTable(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, `create table respondent (id bigint, assessment_id bigint, started_at timestamptz, finished_at timestamptz, primary key (id)) partition by range (id);
		create table first partition of respondent for values from (0) to (100000); create table second partition of respondent for values from (100000) to (1000000);
		insert into respondent select g, 1, case when g % 4 > 0 then now() end, case when g % 4 = 3 then now() end from generate_series(1, 300000) g;
		analyze respondent`)
	p := previewOf(s)
	if p.Read.Method != catalog.SamplePages || p.Read.Rows < 50_000 || p.Read.Rows > 200_000 || p.Read.EstimatedRows < 250_000 || p.Read.EstimatedRows > 350_000 {
		t.Errorf("read %+v", p.Read)
	}
	if share := float64(p.Counts.Started) / float64(p.Read.Rows); share < 0.45 || share > 0.55 {
		t.Errorf("half of the rows are started, and %.2f of the sample are", share)
	}
	out, _, _ := s.Walhook("preview")
	if !strings.HasPrefix(out, "Table public.respondent: a sample of ") {
		t.Errorf("preview prints\n%s", out)
	}
	s.Exec(`create function one(bigint) returns bigint immutable language plpgsql as 'begin return 1; end';
		create index on second ((one(1)));
		create or replace function one(bigint) returns bigint immutable language plpgsql as 'begin raise exception ''it ran''; end'`)
	if p := previewOf(s); p.Read.Method != catalog.SampleBeginning || p.Read.Rows != 100_000 || p.Read.Stopped == "" {
		t.Errorf("read %+v", p.Read)
	}
}

// Somebody interrupts a preview that waits.
func TestPreviewIsInterrupted(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	testenv.Exec(t, s.DB, "insert into respondent (id) select generate_series(1, 10)")
	holder := testenv.Connect(t, s.DB)
	if _, err := holder.Exec(t.Context(), "begin; lock table respondent"); err != nil {
		t.Fatal(err)
	}
	cmd := s.Command("preview")
	var errOut harness.LogBuffer
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waiting := func() bool {
		return testenv.Value[bool](t, s.DB, "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')")
	}
	testenv.Eventually(t, harness.Patience, "preview to wait", func() (bool, string) { return waiting(), errOut.String() })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != cli.ExitFailed || errOut.String() != "walhook: interrupted\n" {
		t.Errorf("preview: %v: %s", err, errOut.String())
	}
	harness.MustFail(s, "preview", "somebody has locked the table")
}
