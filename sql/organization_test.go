package sql

import (
	"testing"

	"walhook/testenv"
)

// attachWithOrganizations records an attachment whose organizations come from a bigint column of the assessment table.
func attachWithOrganizations(t *testing.T, database string) {
	t.Helper()
	testenv.Psql(t, database, `
		insert into walhook.attachment (phase, system_identifier, database, slot, publication, publish, mapping, respondent_oid, assessment_oid, numeric_id, column_types)
		values ('attached', '1', 'd', 's', 'p', 'all', '{}', 1, 2, true, '{"assessment_organization": {"oid": 20, "modifier": -1}}')`)
}

// A webhook that is created twice is one, also if its organization comes from the assessment table and is spelled in
// another way.
func TestCreateWebhookOnceForOrganizationOfAssessment(t *testing.T) {
	t.Parallel()
	database := installed(t)
	attachWithOrganizations(t, database)
	for _, organization := range []string{"42", "042", " 42"} {
		got := testenv.Psql(t, database, "select id from walhook.create_webhook('https://example.com/', 'response.created', organization_id => '"+organization+"')")
		if got != "1" {
			t.Errorf("for organization %q it is webhook %s, not 1", organization, got)
		}
	}
}

// An API key that is older than the attachment sees the webhooks of its organization.
func TestOrganizationOfAPIKeyFollowsTheColumn(t *testing.T) {
	t.Parallel()
	database := installed(t)
	admin := as(t, database, "walhook_admin")
	key := testenv.Psql(t, admin, "select walhook.create_api_key('ours', '042')")
	attachWithOrganizations(t, database)
	testenv.Psql(t, database, "select walhook.respell_webhooks(); insert into walhook.webhook (url, event_type, organization_id) values ('https://example.com/', 'response.created', '042')")
	if got := testenv.Psql(t, admin, under(key, "select id, organization_id from walhook.api_webhook")); got != "ours|42|webhooks\n1|42" {
		t.Errorf("the key and its webhooks are %s", got)
	}
}
