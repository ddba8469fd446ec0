package stream

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// Migrations of the application while the stream runs. Each case begins with beforeGap's rows.
func TestSchemaDrift(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		drift    string
		reason   string // in /readyz while the stream is stopped; "" if it is not
		mend     string
		incident string // kind that is resolved at the end
		after    string
		want     []string
	}{
		{
			name: "a column is added", drift: "alter table respondent add column extra text default 'x'",
			after: "insert into respondent (id, assessment_id, extra) values (9, 1, 'y'); update respondent set finished_at = now() where id = 1",
			want:  []string{"created 9", "completed 1"},
		},
		{
			name: "an unmapped column is dropped", drift: "alter table respondent drop column essay, drop column page",
			after: "insert into respondent (id, assessment_id) values (9, 1); update respondent set finished_at = now() where id = 1",
			want:  []string{"created 9", "completed 1"},
		},
		{
			name: "an unmapped column is renamed and another retyped", drift: "alter table respondent rename name to title; alter table respondent alter page type text",
			after: "insert into respondent (id, assessment_id) values (9, 1); update respondent set finished_at = now() where id = 1",
			want:  []string{"created 9", "completed 1"},
		},
		{
			name: "the key becomes wider", drift: "alter table respondent alter assessment_id type int using assessment_id::int; alter table respondent alter id type numeric; alter table respondent alter id type bigint",
			after: "insert into respondent (id, assessment_id) values (9, 1); update respondent set finished_at = now() where id = 1",
			want:  []string{"created 9", "completed 1"},
		},
		{
			name: "the stamp gets another type", drift: "alter table respondent alter finished_at type text using finished_at::text",
			after: "update respondent set finished_at = 'at noon' where id = 1", want: []string{"completed 1"},
		},
		{
			name: "a mapped column is dropped", drift: "alter table respondent drop column started_at; insert into respondent (id, assessment_id) values (9, 1)",
			reason: `"started_at"`, mend: "alter table respondent add column started_at timestamptz", incident: "column_missing",
			after: "update respondent set started_at = now() where id = 9", want: []string{"created 9", "started 9"},
		},
		{
			name: "the table is renamed", drift: "alter table respondent rename to answerer; insert into answerer (id, assessment_id) values (9, 1)",
			reason: "public.respondent", mend: "alter table answerer rename to respondent", incident: "table_replaced",
			after: "update respondent set started_at = now() where id = 9", want: []string{"created 9", "started 9"},
		},
		{
			name: "the table moves to another schema", drift: "create schema archive; alter table respondent set schema archive",
			reason: "public.respondent", mend: "alter table archive.respondent set schema public", incident: "table_replaced",
			after: "insert into respondent (id, assessment_id) values (9, 1)", want: []string{"created 9"},
		},
		{
			name: "the table is dropped and made again",
			drift: `create table kept as table respondent; drop table respondent cascade;
				create table respondent (id bigint primary key, assessment_id bigint, started_at timestamptz, finished_at timestamptz);
				insert into respondent select id, assessment_id, started_at, finished_at from kept where id <> 3; insert into respondent (id, assessment_id) values (9, 1)`,
			incident: "table_replaced", after: "update respondent set finished_at = now() where id = 1", want: []string{"created 9", "completed 1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema)
			s.Exec(beforeGap)
			d := s.Run()
			s.Hooks()
			for _, statement := range strings.Split(c.drift, ";") {
				s.Exec(statement)
			}
			if c.reason != "" {
				d.Readyz(503, c.reason)
				s.Exec(c.mend)
			}
			if c.incident != "" {
				harness.WaitResolved(s, c.incident)
			}
			d.Ready()
			s.Exec(c.after)
			s.Expect("/hook", c.want...)
			testenv.Eventually(t, harness.Patience, "all incidents to be resolved", func() (bool, string) {
				got := testenv.Psql(t, s.Store, "select kind, detail from walhook.incident where resolved_at is null")
				return got == "", got
			})
		})
	}
}

// The stream does not contain the truncation of a single partition. It is detected, and the partition's responses are
// forgotten. Rewriting a partition changes nothing.
func TestPartitionTruncated(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, `
		create table respondent (id bigint, assessment_id bigint, started_at timestamptz, finished_at timestamptz, primary key (id, assessment_id))
		  partition by list (assessment_id);
		create table respondent_1 partition of respondent for values in (1);
		create table respondent_rest partition of respondent default;
		insert into respondent values (1, 1, now(), now()), (2, 2, now(), now())`)
	d := s.Run()
	s.Hooks()
	s.Exec("vacuum full respondent_rest")
	s.Exec("begin; insert into respondent values (3, 1); truncate respondent_1; insert into respondent values (4, 1, now()); commit")
	harness.WaitResolved(s, "partition_emptied")
	if got := testenv.Values[string](t, s.Store, "select response_id from walhook.response_state order by 1"); !slices.Equal(got, []string{"2", "4"}) {
		t.Errorf("the recorded responses are %q", got)
	}
	d.Ready()
	s.Exec("truncate respondent_rest")
	testenv.Eventually(t, harness.Patience, "the other partition's responses to be forgotten", func() (bool, string) {
		got := testenv.Values[string](t, s.Store, "select response_id from walhook.response_state")
		return slices.Equal(got, []string{"4"}), fmt.Sprint(got)
	})
	s.Exec("insert into respondent values (2, 2, now(), now()), (1, 1, null, null)")
	s.Expect("/hook", "created 3", "created 4", "started 4", "created 1")
	if got := testenv.Value[int](t, s.Store, "select count(*) from walhook.incident where kind = 'partition_emptied'"); got != 2 {
		t.Errorf("%d incidents report two partitions", got)
	}
}

// An attached partition adds rows without a change in the stream: the first change of each row fires its events.
// Changes in a detached partition are ignored.
func TestPartitionsComeAndGo(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, `
		create table respondent (id bigint, assessment_id bigint, started_at timestamptz, finished_at timestamptz, primary key (id, assessment_id))
		  partition by list (assessment_id);
		create table respondent_1 partition of respondent for values in (1);
		create table respondent_rest partition of respondent default;
		insert into respondent values (1, 1, now(), null);`)
	d := s.Run()
	s.Hooks()
	s.Hook("/two", "created", "assessment_id", "'2'")
	s.Hook("/two", "started", "assessment_id", "'2'")
	s.Exec("create table respondent_2 (like respondent including all)")
	s.Exec("insert into respondent_2 (id, assessment_id) values (5, 2)")
	s.Exec("alter table respondent attach partition respondent_2 for values in (2)")
	s.Exec("update respondent set started_at = now() where id = 5")
	s.Exec("insert into respondent (id, assessment_id) values (6, 2)")
	s.Expect("/two", "created 5", "started 5", "created 6")

	s.Exec("alter table respondent detach partition respondent_2")
	s.Exec("update respondent_2 set started_at = now() where id = 6") // ignored
	s.Exec("insert into respondent_2 (id, assessment_id) values (7, 2)")
	s.Exec("update respondent set finished_at = now() where id = 1")
	s.Expect("/hook", "completed 1")
	s.Expect("/two", "created 5", "started 5", "created 6")
	d.Ready()
}

// The changes of an unlogged partition are not in the WAL. attach refuses one. The daemon reports one that comes later,
// and compares the table once it is logged.
func TestUnloggedPartition(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, `
		create table respondent (id bigint, assessment_id bigint, started_at timestamptz, finished_at timestamptz, primary key (id, assessment_id))
		  partition by list (assessment_id);
		create table respondent_1 partition of respondent default;
		create unlogged table respondent_2 partition of respondent for values in (2)`)
	for _, command := range []string{"attach", "plan", "doctor"} {
		harness.MustFail(s, command, "table public.respondent_2 is unlogged", "ALTER TABLE public.respondent_2 SET LOGGED")
	}
	s.Exec("alter table respondent_2 set logged")
	d := s.Run()
	s.Hooks()
	s.Hook("/three", "created", "assessment_id", "'3'")
	s.Exec("create unlogged table respondent_3 partition of respondent for values in (3)")
	harness.WaitIncident(s, "table_unlogged", "public.respondent_3 is unlogged.*ALTER TABLE public.respondent_3 SET LOGGED")
	s.Exec("insert into respondent (id, assessment_id) values (3, 3), (1, 1)")
	s.Expect("/hook", "created 1")
	d.Readyz(200, "streaming")
	s.Exec("alter table respondent_3 set logged")
	harness.WaitResolved(s, "table_unlogged")
	s.Expect("/three", "created 3")
	s.Exec("alter table respondent_2 set unlogged")
	harness.WaitIncident(s, "table_unlogged", "public.respondent_2 is unlogged")
}

// A publication that publishes via the partition root publishes no change of a mapped partition under its own name if it
// includes the partitioned table as well.
func TestMappedPartitionOfAPublishedTable(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, `
		create table whole (id bigint, assessment_id bigint, started_at timestamptz, finished_at timestamptz, primary key (id, assessment_id))
		  partition by list (assessment_id);
		create table respondent partition of whole (unique (id)) default;
		create publication theirs for all tables with (publish_via_partition_root = true)`).With("PUBLICATION", "theirs")
	harness.MustFail(s, "attach", `publication "theirs" publishes changes of public.respondent as those of public.whole`, "WALHOOK_PUBLICATION")
	s.Exec("alter publication theirs set (publish_via_partition_root = false)")
	d := s.Run()
	s.Hooks()
	s.Exec("insert into whole (id, assessment_id) values (1, 1)")
	s.Expect("/hook", "created 1")
	s.Exec("alter publication theirs set (publish_via_partition_root = true)")
	s.Exec("insert into whole (id, assessment_id) values (2, 1)")
	harness.WaitResolved(s, "publication_changed")
	s.Expect("/hook", "created 1", "created 2")
	d.Ready()
}

// Partitions of the assessment table are like those of the respondent table: an assessment that moves to another one is
// no copy, and truncating one is noticed.
func TestPartitionedAssessmentTable(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, `
		create table respondent (id bigint primary key, assessment_id bigint, started_at timestamptz, finished_at timestamptz);
		create table assessment (id bigint, external_id text, copied_from bigint, year int, primary key (id, year)) partition by list (year);
		create table assessment_2026 partition of assessment for values in (2026);
		create table assessment_2027 partition of assessment for values in (2027);
		insert into assessment values (1, 'one', null, 2026)`).With("ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_COPIED_FROM", "copied_from")
	s.Run()
	s.Hook("/hook", "created", "assessment_id", "'1'")
	s.Hook("/all", "created", "assessment_id", "null")
	s.Exec("insert into assessment values (2, 'two', 1, 2026), (3, 'three', null, 2026)")
	s.WaitLog("select count(*) > 0 from walhook.webhook where assessment_id = '2'", "t")
	testenv.Exec(t, s.Store, "delete from walhook.webhook where assessment_id = '2'")
	s.Exec("update assessment set year = 2027 where id = 2")
	s.Exec("insert into respondent values (1, 1), (2, 2)")
	s.Expect("/hook", "created 1")
	s.Expect("/all", "created 1", "created 2")
	s.Exec("truncate assessment_2026")
	harness.WaitResolved(s, "partition_emptied")
	if got := testenv.Values[string](t, s.Store, "select assessment_id from walhook.assessment"); !slices.Equal(got, []string{"2"}) {
		t.Errorf("the recorded assessments are %q", got)
	}
}
