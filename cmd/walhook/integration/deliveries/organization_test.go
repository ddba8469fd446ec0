package deliveries

import (
	"fmt"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// A response has its own organization or, if that is NULL, that of its assessment at that point of the transaction.
func TestOrganizationOfTheAssessment(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema+`
		alter table assessment add organization text;
		update assessment set organization = 'A' where id = 1`).With(
		"ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_ORGANIZATION", "organization", "ASSESSMENT_NAME", "title",
		"ASSESSMENT_COPIED_FROM", "copied_from", "RESPONDENT_ORGANIZATION", "organization_id")
	s.Run()
	s.Hook("/a", "created", "organization_id", "'A'", "assessment_id", "null")
	s.Hook("/a1", "created", "organization_id", "'A'", "assessment_id", "'1'")
	s.Hook("/b", "created", "organization_id", "'B'", "assessment_id", "null")
	for _, statement := range []string{
		"insert into respondent (id, assessment_id) values (1, 1), (2, 2), (3, null)",
		"insert into respondent (id, assessment_id, organization_id) values (4, 1, 'B'), (5, 1, '')", // their own
		`begin; insert into respondent (id, assessment_id) values (6, 1); update assessment set organization = 'B' where id = 1;
			insert into respondent (id, assessment_id) values (7, 1); update assessment set organization = null where id = 1;
			insert into respondent (id, assessment_id) values (8, 1); update assessment set organization = 'A' where id = 1; commit`,
		"begin; update assessment set organization = 'B' where id = 1; rollback",
		"insert into respondent (id, assessment_id) values (9, 1)",
		"alter table assessment alter organization set storage external, alter title set storage external",
		"update assessment set external_id = 'EXT-1b' where id = 1",
		"insert into respondent (id, assessment_id) values (10, 1)",
		"insert into assessment (id, title, external_id, copied_from, organization) values (3, 'copy', 'EXT-3', 1, 'B')",
		"insert into respondent (id, assessment_id) values (11, 3)", // has the webhooks of 1, for another organization
		"update assessment set id = 4 where id = 3",
		"insert into respondent (id, assessment_id) values (12, 4), (13, 3)",
		"begin; delete from assessment where id = 4; insert into respondent (id, assessment_id) values (14, 4); commit",
		"truncate assessment",
		"insert into respondent (id, assessment_id) values (15, 1)",
		"insert into respondent (id, assessment_id, organization_id) values (16, 1, 'A')", // has no external id, but /a1 names it
	} {
		s.Exec(statement)
	}
	s.Expect("/a", "created 1", "created 6", "created 9", "created 10")
	s.Expect("/a1", "created 1", "created 6", "created 9", "created 10", "created 16")
	s.Expect("/b", "created 4", "created 7", "created 11", "created 12")
}

// Values that the WAL omits, because they are out of line and unchanged, stay as they were.
func TestOmittedOrganizationAndName(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema+`
		alter table assessment add organization text, add other int;
		alter table assessment alter organization set storage external, alter title set storage external;
		update assessment set title = repeat('name ', 2000), organization = repeat('org', 2000) where id = 1`).With(
		"ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_ORGANIZATION", "organization", "ASSESSMENT_NAME", "title")
	s.Attach().Run()
	s.Hook("/a", "created", "organization_id", "repeat('org', 2000)", "assessment_id", "null")
	s.Exec("update assessment set other = 1 where id = 1")
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Exec(`begin; update assessment set title = repeat('other ', 2000) where id = 1; update assessment set external_id = 'new', other = 2 where id = 1;
		insert into respondent (id, assessment_id) values (2, 1); commit`)
	s.Exec("update assessment set id = 5 where id = 1")
	s.Exec("insert into respondent (id, assessment_id) values (3, 5), (4, 1)")
	s.Expect("/a", "created 1", "created 2", "created 3")
	const stored = "select external_id || ' ' || left(name, 11) || length(name) from walhook.assessment where assessment_id = '5'"
	for _, when := range []string{"stream", "comparison"} {
		if got := testenv.Psql(t, s.Store, stored); got != "new other other200" {
			t.Errorf("after the %s the store has %q", when, got)
		}
		if out, errOut, status := s.Walhook("reconcile"); status != 0 {
			t.Fatalf("reconcile: %d\n%s%s", status, out, errOut)
		}
	}
}

// Commands and functions know where the organization and the name of a response come from.
func TestAssessmentForAdministrators(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema+`
		alter table assessment add organization int;
		update assessment set organization = id + 6, title = case id when 1 then 'Algebra' else 'Früher Test' end`).With(
		"ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_ORGANIZATION", "organization", "ASSESSMENT_NAME", "title")
	s.Exec("insert into respondent (id, assessment_id) values (1, 1), (2, 2), (3, 2)")
	s.Attach().Run()

	hook := s.Hook("/seven", "created", "organization_id", "'007'", "assessment_id", "null")
	testenv.Psql(t, s.Store, fmt.Sprintf("select walhook.test_webhook(%d)", hook))
	s.Expect("/seven", "created 1") // the newest of organization 7

	out, err := testenv.TryPsql(t, s.Store, "insert into walhook.webhook (url, event_type, organization_id) values ('http://x/', 'response.created', 'seven')")
	if err == nil || !strings.Contains(out, `organization_id "seven" of a webhook cannot be an id of the assessment table, whose column for it is of type integer`) {
		t.Errorf("a webhook for an organization that cannot be: %v\n%s", err, out)
	}

	nobody := s.Hook("/nobody", "created", "organization_id", "'99'")
	if out, _, _ := s.Walhook("doctor"); !strings.Contains(out, fmt.Sprintf("no assessment is of their organization, so they match nothing: webhooks %d\n", nobody)) {
		t.Errorf("doctor reports:\n%s", out)
	}
	s.Hook("/other", "created", "assessment_id", "'1'")
	s.Exec("insert into respondent (id, assessment_id) values (4, 2)")
	s.Fence()
	reasons := testenv.Psql(t, s.Store, "select string_agg(reason, '; ' order by webhook_id) from walhook.explain('4') where event_type = 'response.created'")
	for _, want := range []string{
		"other organization: the webhook is for 7, the response is of 8",
		"assessment differs: the webhook is for 1 (Algebra), the response is of 2 (Früher Test)",
	} {
		if !strings.Contains(reasons, want) {
			t.Errorf("explain says %q, without %q", reasons, want)
		}
	}
	if got := testenv.Psql(t, s.Store, "select string_agg(assessment_name, ',') from walhook.webhook_overview"); got != "Algebra,Algebra" {
		t.Errorf("the overview shows the names %q", got)
	}
}

// A comparison fires what was missed for the organization that the assessment has by then.
func TestOrganizationAfterAGap(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema+"alter table assessment add organization text").With(
		"ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_ORGANIZATION", "organization")
	s.Exec("update assessment set organization = 'A'")
	s.Run().Stop()
	s.Hook("/a", "created", "organization_id", "'A'")
	s.Hook("/b", "created", "organization_id", "'B'")
	s.DropSlot()
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Exec("update assessment set organization = 'B'")
	s.Start().Ready()
	s.Expect("/b", "created 1")
	s.Expect("/a")
}
