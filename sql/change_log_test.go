package sql

import (
	"fmt"
	"strings"
	"testing"

	"walhook/testenv"
)

// Whoever changes a webhook, the settings or an API key, by whatever means: the change log says so, shows no secret, and stays.
func TestChangeLog(t *testing.T) {
	t.Parallel()
	database := installed(t)
	admin := as(t, database, "walhook_admin")
	const entries = `select actor, action, object, object_id, case when changes ? 'previous_secret_until' then changes || '{"previous_secret_until": "set"}' else changes end
		- 'created_at' - 'disabled_at' - 'revoked_at' - 'prefix' from walhook.change_log order by change_id`
	expect := func(what, statements string, want ...string) {
		t.Helper()
		before := testenv.Value[int64](t, database, "select count(*) from walhook.change_log")
		testenv.Psql(t, admin, statements)
		if got := testenv.Psql(t, database, fmt.Sprintf("%s offset %d", entries, before)); got != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nnot\n%s", what, got, strings.Join(want, "\n"))
		}
	}
	me := userOf(t, admin)
	expect("an insert", `insert into walhook.webhook (url, event_type, secret, headers, organization_id)
			values ('https://user:hunter2@example.com/hunter2', 'response.created', walhook.new_secret(), '{"X-Key": "hunter2"}', '7')`,
		me+`|insert|webhook|1|{"url": {"new": "https://example.com", "old": null}, "secret": "(changed)", "enabled": {"new": true, "old": null}, `+
			`"headers": "(changed)", "ordered": {"new": true, "old": null}, "event_type": {"new": "response.created", "old": null}, `+
			`"log_successes": {"new": true, "old": null}, "organization_id": {"new": "7", "old": null}}`)
	expect("an update for somebody", `begin; set local walhook.actor = 'ann@example.com'; update walhook.webhook set url = 'https://example.com/2', enabled = false; commit`,
		`ann@example.com|update|webhook|1|{"url": {"new": "https://example.com", "old": "https://example.com"}, "enabled": {"new": false, "old": true}, `+
			`"disabled_reason": {"new": "disabled by ann@example.com", "old": null}}`)
	expect("a new secret", `set walhook.actor = ' '; select walhook.rotate_secret(1) is null; update walhook.webhook set headers = null`,
		me+`|update|webhook|1|{"secret": "(changed)", "previous_secret": "(changed)", "previous_secret_until": "set"}`,
		me+`|update|webhook|1|{"headers": "(changed)"}`)
	expect("an update of nothing", "update walhook.webhook set description = null, url = url, headers = 'null'")
	expect("an update that is rolled back", "begin; update walhook.webhook set description = 'x'; rollback")
	expect("the settings", "update walhook.settings set time_zone = 'Europe/Berlin'",
		me+`|update|settings||{"time_zone": {"new": "Europe/Berlin", "old": "UTC"}}`)
	expect("a key", "select walhook.create_api_key('Zapier') is null; select walhook.revoke_api_key(1)",
		me+`|insert|api_key|1|{"name": {"new": "Zapier", "old": null}, "scope": {"new": "webhooks", "old": null}, "created_by": {"new": "`+me+`", "old": null}}`,
		me+`|update|api_key|1|{}`)
	expect("a deletion", "delete from walhook.webhook",
		me+`|delete|webhook|1|{"url": {"new": null, "old": "https://example.com"}, "secret": "(changed)", "enabled": {"new": null, "old": false}, "ordered": {"new": null, "old": true}, `+
			`"event_type": {"new": null, "old": "response.created"}, "log_successes": {"new": null, "old": true}, "disabled_reason": {"new": null, "old": "disabled by ann@example.com"}, `+
			`"organization_id": {"new": null, "old": "7"}, "previous_secret": "(changed)", "previous_secret_until": "set"}`)

	// The owner's TRUNCATE deletes webhooks as well.
	testenv.Psql(t, admin, "insert into walhook.webhook (url, event_type) values ('https://example.com/hunter2', 'response.created')")
	testenv.Psql(t, database, "truncate walhook.webhook")
	if got := testenv.Psql(t, database, "select action, object_id, changes -> 'url' from walhook.change_log where login <> '"+me+"'"); got != `delete|2|{"new": null, "old": "https://example.com"}` {
		t.Errorf("after TRUNCATE: %s", got)
	}

	// The role that logged in is there, whoever it says that it acts for.
	if got := testenv.Psql(t, database, "select distinct login, at <= now() from walhook.change_log where object_id is distinct from 2"); got != me+"|t" {
		t.Errorf("who logged in: %s", got)
	}
	viewer := as(t, database, "walhook_viewer")
	if got := testenv.Psql(t, viewer, "select * from walhook.change_log"); got == "" || strings.Contains(got, "hunter2") || strings.Contains(got, "whsec_") {
		t.Errorf("a viewer reads\n%s", got)
	}
	for _, statement := range []string{"update walhook.change set actor = 'bob'", "delete from walhook.change", "truncate walhook.change", "delete from walhook.change_log"} {
		refused(t, database, refusal{statement, "walhook.change_log cannot be edited"})
		denied(t, admin, "an administrator", statement)
	}
	denied(t, admin, "an administrator", "insert into walhook.change (actor, login, action, object, changes) values ('bob', 'bob', 'delete', 'webhook', '{}')",
		"insert into walhook.change_log (actor) values ('bob')", "alter table walhook.webhook disable trigger webhook_log", "select walhook.actor()")
}
