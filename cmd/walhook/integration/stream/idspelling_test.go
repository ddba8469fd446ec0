package stream

import (
	"fmt"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// Ids match the way their columns compare them, however they are spelled: in the two tables, in a webhook created
// before or after attach, in a copy of webhooks, and in a comparison.
func TestIDsMatchAsTheirColumnsCompareThem(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                             string
		assessment, respondent           string // types of the assessment's key and of the column that names it
		id, copied                       string // SQL for an assessment as in the respondent's column, and for its copy
		organization, organizationID     string // type and SQL
		before, after, organizationAsked string // as spelled in the webhooks
		refused                          string
	}{
		{
			"an integer beside a numeric with a scale", "numeric(10,2)", "int", "17", "18", "int", "7", "17.00", " 17", "7.0", "17.5",
		},
		{
			"a numeric with a scale beside an integer", "bigint", "numeric(10,2)", "17", "18", "numeric(6,1)", "7", "017", "17.0", "7", "17.001",
		},
		{
			"numerics without a scale", "numeric", "numeric", "17.50", "18.0", "numeric", "7.0", "17.5000", "+17.5", "7.00", "seventeen",
		},
		{
			"smallint beside double precision", "smallint", "double precision", "17", "18", "real", "7.5", "17.0", "17", "7.50", "x",
		},
		{
			"uuid", "uuid", "uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "uuid", "'c0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
			"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc999c0b4ef8bb6d6bb9bd380a11}", "C0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "17",
		},
		{
			"char beside varchar", "char(8)", "varchar(8)", "'seven'", "'eight'", "char(3)", "'o'", "seven", "seven", "o  ", "seventeen",
		},
		{
			"varchar beside char", "varchar(8)", "char(8)", "'seven'", "'eight'", "text", "'o'", "seven   ", "seven", "o", "seventeen",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := harness.WithSentinel(harness.NewSite(t, fmt.Sprintf(`create table assessment (id %s primary key, external_id text, copied_from %[1]s);
				create table respondent (id bigint primary key, assessment_id %s, organization_id %s, page int default 0, started_at timestamptz, finished_at timestamptz);
				insert into assessment values (%s, 'EXT', null)`, c.assessment, c.respondent, c.organization, c.id)).
				With("ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_COPIED_FROM", "copied_from", "RESPONDENT_ORGANIZATION", "organization_id"), "insert into respondent (id) values (9%06d)", "9%06d")
			quoted := func(id string) string { return "'" + id + "'" }
			if _, stderr, status := s.Walhook("attach"); status != 0 {
				t.Fatal(stderr)
			}
			s.Walhook("detach") // leaves a store without column types
			before := s.Hook("/before", "created", "assessment_id", quoted(c.before))
			s.Hook("/impossible", "created", "assessment_id", quoted(c.refused))
			d := s.Run()
			s.Hook("/after", "created", "assessment_id", quoted(c.after))
			s.Hook("/organization", "created", "assessment_id", "null", "organization_id", quoted(c.organizationAsked))
			s.Hook("/all", "created", "assessment_id", "null")
			said, err := testenv.TryPsql(t, s.Store, fmt.Sprintf("insert into walhook.webhook (assessment_id, url, event_type) values ('%s', 'https://example.com/', 'response.created')", c.refused))
			if err == nil || !strings.Contains(said, "cannot be an id of the respondent table") {
				t.Errorf("a webhook for %s: %v: %s", c.refused, err, said)
			}
			if report, _, _ := s.Walhook("doctor"); !strings.Contains(report, "webhooks_impossible_id") {
				t.Errorf("doctor does not report the webhook that can never match:\n%s", report)
			}

			paths := []string{"/before", "/after", "/organization", "/all"}
			s.Exec(fmt.Sprintf("insert into respondent (id, assessment_id, organization_id) values (1, %s, %s)", c.id, c.organizationID))
			for _, path := range paths {
				s.Expect(path, "created 1")
			}
			if got := testenv.Value[int64](t, s.Store, fmt.Sprintf("select count(*) from walhook.explain('1') where webhook_id = %d and reason = 'delivered'", before)); got != 1 {
				t.Error("explain does not show the delivery")
			}
			testenv.Exec(t, s.Store, fmt.Sprintf("select walhook.test_webhook(%d)", before))
			s.Expect("/before", "created 1", "created 1")

			// Copies get the webhooks, from the stream and by hand.
			s.Exec(fmt.Sprintf("insert into assessment values (%s, 'COPY', %s)", c.copied, c.id))
			s.Exec(fmt.Sprintf("insert into respondent (id, assessment_id) values (2, %s)", c.copied))
			s.Expect("/after", "created 1", "created 2")
			if got := testenv.Value[int](t, s.Store, fmt.Sprintf("select walhook.copy_webhooks('%s', '%s')", c.before, c.after)); got != 0 {
				t.Errorf("%d webhooks were copied from an assessment to itself", got)
			}

			// A comparison finds the same.
			d.Kill()
			s.DropSlot()
			s.Exec(fmt.Sprintf("insert into respondent (id, assessment_id, organization_id) values (3, %s, %s)", c.id, c.organizationID))
			s.Start().Ready()
			s.Expect("/organization", "created 1", "created 3")
			s.Expect("/all", "created 1", "created 2", "created 3")
		})
	}
}

// When a column's type changes, webhooks for an assessment, an organization or all assessments match as before, in the
// stream and in a comparison, and spell their ids according to the new type.
func TestWebhooksFollowARetypedColumn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, alter                     string
		assessment, organization        string // ids before, in the rows and in the webhooks
		assessmentAfter, organizedAfter string // as the webhooks spell them afterwards
	}{
		{"the respondent's assessment becomes an integer", "alter table respondent alter assessment_id type bigint using assessment_id::bigint", "17", "07", "17", "07"},
		{"the assessment's key becomes an integer", "alter table assessment alter id type bigint using id::bigint", "17", "07", "17", "07"},
		{
			"both become numerics with a scale", `alter table assessment alter id type numeric(10,2) using id::numeric;
				alter table respondent alter assessment_id type numeric(10,2) using assessment_id::numeric`, "017", "07", "17", "07",
		},
		{"the organization becomes a numeric", "alter table respondent alter organization_id type numeric(6,1) using organization_id::numeric", "017", "07", "017", "7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := harness.WithSentinel(harness.NewSite(t, `create table assessment (id text primary key, external_id text, copied_from text);
				create table respondent (id bigint primary key, assessment_id text, organization_id text, page int default 0, started_at timestamptz, finished_at timestamptz);
				insert into assessment values ('`+c.assessment+`', 'EXT', null)`).
				With("ASSESSMENT_TABLE", "assessment", "ASSESSMENT_COPIED_FROM", "copied_from", "RESPONDENT_ORGANIZATION", "organization_id"),
				"insert into respondent (id) values (9%06d)", "9%06d")
			d := s.Run()
			s.Hook("/assessment", "created", "assessment_id", "'"+c.assessment+"'")
			s.Hook("/organization", "created", "assessment_id", "'"+c.assessment+"'", "organization_id", "'"+c.organization+"'")
			s.Hook("/all", "created", "assessment_id", "null")
			var want []string
			insert := func(id int) {
				t.Helper()
				s.Exec(fmt.Sprintf("insert into respondent (id, assessment_id, organization_id) values (%d, '%s', '%s')", id, c.assessment, c.organization))
				want = append(want, fmt.Sprint("created ", id))
			}
			all := func() {
				t.Helper()
				for _, path := range []string{"/assessment", "/organization", "/all"} {
					s.Expect(path, want...)
				}
			}
			insert(1)
			all()
			s.Exec(c.alter)
			harness.WaitResolved(s, "column_retyped")
			if got := testenv.Psql(t, s.Store, "select distinct assessment_id, organization_id from walhook.webhook where organization_id is not null"); got != c.assessmentAfter+"|"+c.organizedAfter {
				t.Errorf("the webhook is for %s, not %s|%s", got, c.assessmentAfter, c.organizedAfter)
			}
			insert(2)
			all()
			s.Exec("update respondent set page = 1")
			d.Kill()
			s.DropSlot()
			insert(3)
			s.Start().Ready()
			all()
		})
	}
}
