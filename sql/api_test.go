package sql

import (
	"strings"
	"testing"
	"time"

	"walhook/testenv"
)

// A webhook that somebody creates twice is one, whoever asks by whatever spelling.
func TestCreateWebhookOnce(t *testing.T) {
	t.Parallel()
	database := storeWithSecrets(t)
	admin := as(t, database, "walhook_admin")
	const create = "select id, new_secret like 'whsec_%' from walhook.create_webhook"
	for _, c := range []struct{ call, want string }{
		{"('https://example.com/', 'response.created')", "2|t"},
		{"(' https://example.com/ ', 'Response.Created', description => 'x')", "2|"},
		{"('https://example.com/', 'response.created', '17')", "3|t"},
		{"('https://example.com/', 'response.created', '17', '42')", "4|t"},
		{"('https://example.com/', 'response.created', '17', '42', 'x', '{\"a\": \"b\"}', false)", "4|"},
		{"('https://example.com/', 'response.started', '17', '42', 'x', '{\"a\": \"b\"}', false)", "5|t"},
	} {
		if got := testenv.Psql(t, admin, create+c.call); got != c.want {
			t.Errorf("%s: %s, not %s", c.call, got, c.want)
		}
	}
	if got := testenv.Psql(t, admin, "select description, headers, ordered from walhook.webhook where id = 5"); got != `x|{"a": "b"}|f` {
		t.Errorf("the webhook is %s", got)
	}
	ours := testenv.Psql(t, admin, "select walhook.create_api_key('ours', '42')")
	reader := testenv.Psql(t, admin, "select walhook.create_api_key('reader', scope => 'read')")
	// Every key has its own, of its organization.
	for _, organization := range []string{"null", "'42'", "'43'"} {
		want := "6|"
		if organization == "null" {
			want = "6|t"
		}
		if got := testenv.Psql(t, admin, under(ours, create+"('https://example.com/', 'response.created', '17', "+organization+")")); !strings.HasSuffix(got, "\n"+want) {
			t.Errorf("for organization %s: %s", organization, got)
		}
	}
	refused(t, admin,
		refusal{under(reader, create+"('https://example.com/', 'response.created')"), "scope read may not"},
		refusal{create + "('https://hunter2', 'response.deleted')", "is not known"},
		refusal{create + "(null, 'response.created')", "needs a url"},
		refusal{create + "('ftp://hunter2', 'response.created')", "must be an absolute"},
	)
	denied(t, as(t, database, "walhook_viewer"), "a viewer", create+"('https://example.com/', 'response.created')",
		"select * from walhook.api_webhook", "select * from walhook.samples(null, null, 1)", "select walhook.delete_webhook(1)")
}

// Of two that create the same webhook at once, the second one waits for the first, and gets its webhook.
func TestCreateWebhookAtOnce(t *testing.T) {
	t.Parallel()
	database := installed(t)
	const create = "select id from walhook.create_webhook('https://example.com/', 'response.created')"
	first, err := testenv.Connect(t, database).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var id int64
	if err := first.QueryRow(t.Context(), create).Scan(&id); err != nil {
		t.Fatal(err)
	}
	second, ids := testenv.Connect(t, database), make(chan int64, 1)
	go func() {
		var id int64
		_ = second.QueryRow(t.Context(), create).Scan(&id)
		ids <- id
	}()
	testenv.Eventually(t, time.Minute, "the second one waits", func() (bool, string) {
		return len(ids) > 0 || testenv.Value[bool](t, database, "select exists (select from pg_locks l where l.pid = $1 and not l.granted)", int(second.PgConn().PID())), ""
	})
	if err := first.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if other := <-ids; other != id {
		t.Errorf("webhooks %d and %d were created", id, other)
	}
}

// A webhook that somebody deletes twice is gone. One that was never there, or was another organization's, is not.
func TestDeleteWebhookTwice(t *testing.T) {
	t.Parallel()
	database := storeWithSecrets(t)
	admin := as(t, database, "walhook_admin")
	ours := testenv.Psql(t, admin, "select walhook.create_api_key('ours', '42')")
	testenv.Psql(t, admin, "insert into walhook.webhook (url, event_type, organization_id) select 'https://example.com/', 'response.created', g::text from generate_series(42, 43) g")
	testenv.Psql(t, admin, under(ours, "select walhook.delete_webhook(2)"))
	testenv.Psql(t, admin, under(ours, "select walhook.delete_webhook(2)"))
	testenv.Psql(t, admin, "delete from walhook.webhook where id = 3; select walhook.delete_webhook(3)")
	refused(t, admin,
		refusal{under(ours, "select walhook.delete_webhook(1)"), "there is no webhook 1"},
		refusal{under(ours, "select walhook.delete_webhook(3)"), "there is no webhook 3"},
		refusal{"select walhook.delete_webhook(99)", "there is no webhook 99"},
		refusal{"select walhook.delete_webhook(null)", "there is no webhook"},
	)
	if got := testenv.Psql(t, admin, "select id from walhook.webhook"); got != "1" {
		t.Errorf("left are %s", got)
	}
}

// A test finds the newest response that its webhook matches, even behind many that it does not match.
func TestNewestResponseBehindMany(t *testing.T) {
	t.Parallel()
	url := storeWithSecrets(t)
	testenv.Exec(t, url, `
		update walhook.attachment set assessment_oid = 1;
		insert into walhook.assessment (assessment_id, external_id, organization_id) values ('a', 'external', '1'), ('b', null, '2');
		insert into walhook.response_state (response_id, assessment_id, flags, created_lsn) select g, 'b', 0, '1/0'::pg_lsn + g from generate_series(1001, 12000) g on conflict do nothing;
		insert into walhook.response_state (response_id, assessment_id, flags, created_lsn) select g, 'a', 0, '0/100'::pg_lsn + g from generate_series(21, 25) g;
		insert into walhook.response_state (response_id, assessment_id, flags) select g, 'a', 0 from generate_series(900, 910) g`)
	for filter, want := range map[string]string{
		"null, null": "25", "'b', null": "12000", "null, '1'": "25", "null, '2'": "", "'b', '2'": "12000", "'a', '2'": "", "'nobody', null": "",
	} {
		if got := testenv.Psql(t, url, "select response_id from walhook.newest_responses("+filter+", null, 1)"); got != want {
			t.Errorf("the newest response for %s is %q, want %q", filter, got, want)
		}
	}
}
