package sql

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"walhook/testenv"
)

// use is the statement by which the API puts a key in force.
func use(key string) string {
	return fmt.Sprintf(`select name, organization_id, scope from walhook.use_api_key('%.12s', '\x%x'); `, key, sha256.Sum256([]byte(key)))
}

// under runs statements under a key, in one transaction.
func under(key, statements string) string {
	return "begin; " + use(key) + statements + "; commit"
}

// A key is shown once. It is valid until it is revoked or expires.
func TestAPIKeys(t *testing.T) {
	t.Parallel()
	database := installed(t)
	admin := as(t, database, "walhook_admin")
	viewer := as(t, database, "walhook_viewer")
	key := testenv.Psql(t, admin, "select walhook.create_api_key(' Zapier ', '42')")
	if !regexp.MustCompile(`^whk_[0-9a-f]{64}$`).MatchString(key) {
		t.Fatalf("the key is %q", key)
	}
	other := testenv.Psql(t, admin, "select walhook.create_api_key('all', scope => 'admin', expires_at => now() + interval '1 year')")
	if got := testenv.Psql(t, viewer, "select id, name, prefix, organization_id, scope, created_by = '"+userOf(t, admin)+"', expires_at > now(), last_used_at, revoked_at from walhook.api_key order by 1"); got !=
		"1|Zapier|"+key[:12]+"|42|webhooks|t|||\n2|all|"+other[:12]+"||admin|t|t||" {
		t.Errorf("the keys are\n%s", got)
	}
	if got := testenv.Psql(t, database, "select string_agg(to_jsonb(c)::text, '') from walhook.api_credential c"); strings.Contains(got, key[12:]) {
		t.Errorf("the store keeps the key: %s", got)
	}

	if got := testenv.Psql(t, admin, under(key, "select last_used_at > now() - interval '1 minute' from walhook.api_key where id = 1")); got != "Zapier|42|webhooks\nt" {
		t.Errorf("after its use: %s", got)
	}
	if got := testenv.Psql(t, admin, "begin read only; "+use(other)+"commit; select last_used_at from walhook.api_key where id = 2"); got != "all||admin" {
		t.Errorf("in a transaction that only reads: %s", got)
	}
	for what, wrong := range map[string]string{
		"another hash": key[:len(key)-1] + "x", "another prefix": "whk_00000000" + key[12:], "no key": "",
	} {
		if got := testenv.Psql(t, admin, use(wrong)); got != "" {
			t.Errorf("%s is accepted as %s", what, got)
		}
	}
	for _, call := range []string{"use_api_key(null, null)", "use_api_key('" + key[:12] + "', null)", "use_api_key('" + key[:12] + `', '\x00')`} {
		if got := testenv.Psql(t, admin, "select * from walhook."+call); got != "" {
			t.Errorf("%s is accepted as %s", call, got)
		}
	}
	testenv.Psql(t, admin, "select walhook.revoke_api_key(1); select walhook.revoke_api_key(1)")
	expired := strings.Split(testenv.Psql(t, admin, "select walhook.create_api_key('old', expires_at => now() - interval '1 hour')"), "\n")
	if got := testenv.Psql(t, admin, use(key)+use(expired[len(expired)-1])); got != "" || !strings.Contains(expired[0], "has expired already") {
		t.Errorf("a revoked or expired key is accepted as %s", got)
	}
	refused(t, admin,
		refusal{"select walhook.create_api_key(null)", "needs a name"},
		refusal{"select walhook.create_api_key(' ')", "needs a name"},
		refusal{"select walhook.create_api_key('a', '')", `organization "" of an API key`},
		refusal{"select walhook.create_api_key('a', null, 'write')", `scope "write" of an API key is not known`},
		refusal{"select walhook.create_api_key('a', '42', 'admin')", "is for every organization"},
		refusal{"select walhook.revoke_api_key(987654)", "there is no API key 987654"},
		refusal{"select walhook.revoke_api_key(null)", "there is no API key"},
	)
	denied(t, admin, "an administrator", "select * from walhook.api_credential", "update walhook.api_credential set scope = 'admin'",
		"update walhook.api_key set revoked_at = null", "select walhook.delete_gone()", "select walhook.equal_hashes('', '')")
	denied(t, viewer, "a viewer", "select * from walhook.api_credential", "select walhook.create_api_key('mine')", "select walhook.revoke_api_key(1)", use(key),
		"select * from walhook.visible_webhook", "select * from walhook.visible_delivery")
}

// A key's scope and organization hold whatever the statement asks for.
func TestAPIKeysStayInBounds(t *testing.T) {
	t.Parallel()
	database := storeWithSecrets(t)
	admin := as(t, database, "walhook_admin")
	create := func(arguments string) string {
		return testenv.Psql(t, admin, "select walhook.create_api_key("+arguments+")")
	}
	ours, theirs := create("'ours', '42'"), create("'theirs', '43'")
	reader, writer, administrator := create("'reader', scope => 'read'"), create("'writer'"), create("'administrator', scope => 'admin'")
	run := func(key, statements string) string {
		t.Helper()
		out := testenv.Psql(t, admin, under(key, statements))
		_, result, _ := strings.Cut(out, "\n")
		return result
	}
	const insert = "insert into walhook.visible_webhook (url, event_type, organization_id) values ('https://example.com/', 'response.created', '43') returning id, organization_id, api_key_id, secret"
	// Webhook 1 is a person's, and for any organization.
	for _, c := range []struct{ key, statements, want string }{
		{ours, insert, "2|42|1|"},
		{theirs, insert, "3|43|2|"},
		{writer, insert, "4|43|4|"},
		{administrator, "insert into walhook.webhook (url, event_type, api_key_id) values ('https://example.com/', 'response.created', 1) returning organization_id, api_key_id", "|5"},
		{ours, "update walhook.webhook set organization_id = '43', api_key_id = null, description = 'x' where id = 2 returning organization_id, api_key_id", "42|1"},
		{ours, "update walhook.visible_webhook set organization_id = null where id <> 4 returning id, organization_id", "2|42"},
		{ours, "delete from walhook.visible_webhook where id = 3 returning id", ""},
		{ours, "select id from walhook.visible_webhook", "2"},
		{reader, "select id from walhook.visible_webhook order by id", "1\n2\n3\n4\n5"},
		{ours, "select walhook.test_webhook(2, '1') is not null; select webhook_id from walhook.visible_delivery", "t\n2"},
		{theirs, "select webhook_id from walhook.visible_delivery", ""},
		{reader, "select webhook_id from walhook.visible_delivery order by 1", "1\n2"},
		{administrator, "update walhook.settings set time_zone = 'Europe/Berlin' returning time_zone", "Europe/Berlin"},
		{theirs, "delete from walhook.webhook where id = 3 returning id", "3"},
	} {
		if got := run(c.key, c.statements); got != c.want {
			t.Errorf("%s: %s, not %s", c.statements, got, c.want)
		}
	}
	of2 := testenv.Psql(t, database, "select delivery_id from walhook.delivery_log where webhook_id = 2")
	for key, refusals := range map[string][]refusal{
		ours: {
			{"update walhook.webhook set enabled = false where id = 1", "there is no webhook 1"},
			{"delete from walhook.webhook where id = 4", "there is no webhook 4"},
			{"select walhook.test_webhook(1, '1')", "there is no webhook 1"},
			{"select walhook.redeliver(1)", "there is no delivery 1"},
			{"select walhook.redeliver_failed(4, now())", "there is no webhook 4"},
			{"select walhook.retry_now(4)", "there is no webhook 4"},
			{"select walhook.rotate_secret(1)", "there is no webhook 1"},
			{"select walhook.copy_webhooks('1', '2')", "cannot be copied"},
			{"update walhook.settings set enabled = false", "scope webhooks may not"},
			{"select walhook.create_api_key('x')", "scope webhooks may not"},
			{"select walhook.revoke_api_key(1)", "scope webhooks may not"},
		},
		theirs: {{"select walhook.redeliver(" + of2 + ")", "there is no delivery " + of2}},
		reader: {
			{insert, "scope read may not"},
			{"update walhook.webhook set enabled = false", "scope read may not"},
			{"delete from walhook.webhook", "scope read may not"},
			{"select walhook.test_webhook(2, '1')", "scope read may not"},
			{"select walhook.redeliver(" + of2 + ")", "scope read may not"},
			{"select walhook.rotate_secret(2)", "scope read may not"},
			{"select walhook.copy_webhooks('1', '2')", "scope read may not"},
		},
		administrator: {{"select walhook.create_api_key('x')", "scope admin may not"}, {"select walhook.revoke_api_key(1)", "scope admin may not"}},
	} {
		for _, r := range refusals {
			refused(t, admin, refusal{under(key, r.statement), r.message})
		}
	}
	// A key that is not known sees nothing, and writes nothing.
	if got := testenv.Psql(t, admin, "begin; set local walhook.api_key = '987654'; select count(*) from walhook.visible_webhook; select count(*) from walhook.visible_delivery; commit"); got != "0\n0" {
		t.Errorf("under a key that is not known: %s", got)
	}
	refused(t, admin, refusal{"begin; set local walhook.api_key = '987654'; delete from walhook.webhook", "there is no API key 987654"})
	if got := testenv.Psql(t, database, "select distinct actor from walhook.change_log where object = 'webhook' and object_id = 2"); got != fmt.Sprintf("API key ours (%.12s)", ours) {
		t.Errorf("who changed the webhook of a key: %s", got)
	}
	// After the transaction, the key is not in force any more.
	if got := testenv.Psql(t, admin, under(ours, "select")+"; select count(*) from walhook.visible_webhook"); !strings.HasSuffix(got, "\n4") {
		t.Errorf("after the transaction: %s", got)
	}
}
