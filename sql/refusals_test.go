package sql

import (
	"testing"

	"walhook/testenv"
)

// What an administrator gets wrong is refused in a sentence, with a hint, and without the row, whose URL is a secret.
func TestMistakesAreRefusedInSentences(t *testing.T) {
	t.Parallel()
	database := installed(t)
	admin := as(t, database, "walhook_admin")
	const insert = "insert into walhook.webhook (url, event_type"
	hook := testenv.Psql(t, admin, insert+") values ('https://example.com/hunter2', 'response.created') returning id")
	refused(t, admin,
		refusal{insert + ") values ('example.com/hunter2', 'response.created')", "webhook.url must be an absolute http or https URL"},
		refusal{insert + ") values (null, 'response.created')", "a webhook needs a url and an event_type"},
		refusal{insert + ") values ('https://example.com/hunter2', 'finished')", "Use response.created, response.started, response.completed"},
		refusal{insert + ", secret) values ('https://example.com/', 'response.created', 'hunter2')", "SELECT walhook.new_secret()"},
		refusal{insert + ", enabled) values ('https://example.com/hunter2', 'response.created', null)", "are either true or false"},
		refusal{insert + ", ordered) values ('https://example.com/hunter2', 'response.created', null)", "are either true or false"},
		refusal{insert + ", log_successes) values ('https://example.com/hunter2', 'response.created', null)", "are either true or false"},
		refusal{insert + ", id) values ('https://example.com/hunter2', 'response.created', null)", "assigned by the server"},
		refusal{insert + ", assessment_id) values ('https://example.com/hunter2', 'response.created', '')", "must not be empty"},
		refusal{"update walhook.webhook set id = id + 1", "never changes"},
		refusal{"update walhook.webhook set url = '/hunter2'", "webhook.url must be"},
		refusal{"select walhook.test_webhook(987654)", "there is no webhook 987654"},
		refusal{"select walhook.test_webhook(null)", "there is no webhook"},
		refusal{"select walhook.test_webhook(" + hook + ")", "no respondent matches"},
		refusal{"select walhook.redeliver(987654)", "there is no delivery 987654"},
		refusal{"select walhook.redeliver(null)", "there is no delivery"},
		refusal{"select walhook.redeliver_failed(987654, now())", "there is no webhook 987654"},
		refusal{"select walhook.redeliver_failed(" + hook + ", null)", "needs a time"},
		refusal{"select walhook.copy_webhooks(null, '2')", "needs two assessments"},
		refusal{"select walhook.copy_webhooks('1', '')", "needs two assessments"},
		refusal{"update walhook.settings set time_zone = 'Berlin'", `time zone "Berlin" is not known`},
		refusal{"update walhook.settings set time_zone = null", "is not known"},
		refusal{"update walhook.settings set enabled = null", "either true or false"},
		refusal{"insert into walhook.settings default values", "already has its only row"},
		refusal{"insert into walhook.settings (one) values (false)", "already has its only row"},
		refusal{"delete from walhook.settings", "cannot be deleted"},
	)
	refused(t, database, refusal{"truncate walhook.settings", "cannot be deleted"})
	if got := testenv.Psql(t, admin, "select enabled, time_zone from walhook.settings"); got != "t|UTC" {
		t.Errorf("the settings are %s", got)
	}
}

// With an assessment table the assessments are known; a copy may still be one that is about to be inserted.
func TestCopyWebhooksKnowsAssessments(t *testing.T) {
	t.Parallel()
	database := installed(t)
	admin := as(t, database, "walhook_admin")
	testenv.Exec(t, database, `insert into walhook.attachment (phase, system_identifier, database, slot, publication, publish, mapping, respondent_oid, assessment_oid, numeric_id)
		values ('attached', '1', 'd', 's', 'p', 'all', '{}', 1, 2, true); insert into walhook.assessment values ('1', 'EXT'), ('2', null)`)
	testenv.Exec(t, admin, "insert into walhook.webhook (assessment_id, url, event_type) values ('1', 'https://example.com/', 'response.created')")
	refused(t, admin, refusal{"select walhook.copy_webhooks('7', '1')", `there is no assessment "7"`})
	for statement, want := range map[string]string{
		"select walhook.copy_webhooks('2', '1')": "0",
		"select walhook.copy_webhooks('1', '2')": "1",
	} {
		if got := testenv.Psql(t, admin, statement); got != want {
			t.Errorf("%s: %s, not %s", statement, got, want)
		}
	}
	if got := testenv.Psql(t, admin, "set client_min_messages = warning; select walhook.copy_webhooks('1', '3')"); got != "1" {
		t.Errorf("to an assessment that is not there yet %s webhooks were copied", got)
	}
	if got := testenv.Psql(t, database, "select walhook.inherit_webhooks('7', '8')"); got != "0" {
		t.Errorf("the stream copied %s webhooks from an unknown assessment", got)
	}
}

// An id given by hand is not given again.
func TestWebhookIDsAreGivenOnce(t *testing.T) {
	t.Parallel()
	admin := as(t, installed(t), "walhook_admin")
	got := testenv.Psql(t, admin, `
		insert into walhook.webhook (id, url, event_type) values (1, 'https://example.com/', 'response.created');
		insert into walhook.webhook (url, event_type) values ('https://example.com/', 'response.created') returning id;
		insert into walhook.webhook (id, url, event_type) values (40, 'https://example.com/', 'response.created');
		insert into walhook.webhook (url, event_type) values ('https://example.com/', 'response.created') returning id`)
	if got != "2\n41" {
		t.Errorf("the server gave the ids %q", got)
	}
}
