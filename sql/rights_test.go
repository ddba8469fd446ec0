package sql

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walhook/testenv"
)

var update = flag.Bool("update", false, "write golden files and the reference of SQL objects anew")

// rights lists what each group role may do: tables, columns beyond what the table gives, sequences, functions, the schema.
const rights = `
with roles (name) as (values ('walhook_admin'), ('walhook_viewer'), ('walhook_daemon'), ('public')),
acl as (
  select 'table' as kind, c.oid::regclass::text as object, a.grantee, a.privilege_type
    from pg_class c cross join lateral aclexplode(c.relacl) a where c.relnamespace = 'walhook'::regnamespace and c.relkind in ('r', 'p', 'v')
  union all
  select 'sequence', c.oid::regclass::text, a.grantee, a.privilege_type
    from pg_class c cross join lateral aclexplode(c.relacl) a where c.relnamespace = 'walhook'::regnamespace and c.relkind = 'S'
  union all
  select 'column', c.oid::regclass || '.' || t.attname, a.grantee, a.privilege_type
    from pg_class c join pg_attribute t on t.attrelid = c.oid cross join lateral aclexplode(t.attacl) a where c.relnamespace = 'walhook'::regnamespace
  union all
  select 'function', p.oid::regprocedure::text, a.grantee, a.privilege_type
    from pg_proc p cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where p.pronamespace = 'walhook'::regnamespace
  union all
  select 'schema', n.nspname, a.grantee, a.privilege_type
    from pg_namespace n cross join lateral aclexplode(n.nspacl) a where n.nspname = 'walhook'
)
select r.name || ' ' || kind || ' ' || object || ': ' || string_agg(lower(privilege_type), ', ' order by privilege_type)
  from acl join roles r on r.name = case grantee when 0 then 'public' else grantee::regrole::text end
 group by r.name, kind, object order by r.name collate "C", kind collate "C", object collate "C"`

// Who may do what is written down, so that no right comes or goes unseen.
func TestRightsAreThoseWrittenDown(t *testing.T) {
	t.Parallel()
	const golden = "testdata/rights.txt"
	got := testenv.Psql(t, installed(t), rights) + "\n"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("rights (-written down +there); go test ./sql -run Rights -update writes them:\n%s", diff)
	}
}

// denied expects the server to refuse for want of rights, and to say nothing of secrets.
func denied(t *testing.T, user, who string, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		out, err := testenv.TryPsql(t, user, statement)
		if err == nil || !strings.Contains(out, "permission denied") && !strings.Contains(out, "must be owner") {
			t.Errorf("%s may: %s\n%s", who, statement, out)
		}
		if strings.Contains(out, "hunter2") || strings.Contains(out, "whsec_") {
			t.Errorf("%s reads a secret by: %s\n%s", who, statement, out)
		}
	}
}

// storeWithSecrets creates a store with a webhook whose URL and secrets must stay secret, and rows in every table.
func storeWithSecrets(t *testing.T) string {
	t.Helper()
	url := installed(t)
	testenv.Psql(t, url, `
		insert into walhook.attachment (phase, system_identifier, database, slot, publication, publish, mapping, respondent_oid, assessment_oid, numeric_id)
		values ('attached', '1', 'd', 's', 'p', 'all', '{}', 1, 0, true);
		insert into walhook.position (turn, lsn) values (1, '0/1');
		insert into walhook.response_state (response_id, assessment_id, flags, fate, fired_at) values ('1', '1', 0, 1, now()), ('2', '2', 0, 1, now());
		insert into walhook.webhook (url, event_type, secret, headers)
		values ('https://hunter2@example.com/hunter2?k=hunter2', 'response.created', walhook.new_secret(), '{"X-Key": "hunter2"}');
		select walhook.rotate_secret(1) is null;
		update walhook.endpoint set failures = 3, last_error = 'HTTP 500', failing_since = now();
		insert into walhook.queue (webhook_id, committed_at, event_type, response_id) values (1, now(), 1, '1');
		insert into walhook.incident_log (kind, detail) values ('x', 'y');`)
	return url
}

// A viewer sees only the host of a URL, whatever the query.
func TestViewerReadsNoSecret(t *testing.T) {
	t.Parallel()
	url := storeWithSecrets(t)
	viewer := as(t, url, "walhook_viewer")
	denied(
		t, viewer, "a viewer",
		"select url from walhook.webhook", "select secret from walhook.webhook", "select previous_secret from walhook.webhook", "select headers from walhook.webhook",
		"select * from walhook.webhook", "table walhook.webhook", "copy walhook.webhook to stdout", "copy (select url from walhook.webhook) to stdout",
		"select w from walhook.webhook w", "select row_to_json(w) from walhook.webhook w", "select id from walhook.webhook where url like '%h%'",
		"select id from walhook.webhook order by secret", "select count(url) from walhook.webhook", "select id from walhook.webhook for update",
		"create temp table t (like walhook.webhook); insert into t select * from walhook.webhook",
		"select * from walhook.endpoint", "select url_hash from walhook.endpoint", "select * from walhook.queue", "select * from walhook.log", "select * from walhook.attempt",
		"copy walhook.log to stdout", "select * from walhook.response_state", "select * from walhook.attachment", "select * from walhook.daemon", "select * from walhook.incident_log",
		"update walhook.webhook_overview set description = 'x'", "delete from walhook.webhook_overview", "update walhook.settings set enabled = false", "delete from walhook.settings",
		"insert into walhook.webhook (url, event_type) values ('https://example.com/', 'response.created')", "delete from walhook.webhook",
		"select walhook.test_webhook(1)", "select walhook.redeliver(1)", "select walhook.redeliver_failed(1, now())", "select walhook.copy_webhooks('1', '2')",
		"select walhook.rotate_secret(1)", "select walhook.new_secret()", "select walhook.bury(1)", "select walhook.drop_partitions('1 d')", "select walhook.ensure_partitions()",
		"select walhook.story('1')", "select walhook.partitions_of('walhook.log')", "select walhook.advance(1, '0/2', null, 0)",
		"create table walhook.mine ()", "create function walhook.f() returns int language sql as 'select 1'", "alter table walhook.webhook disable trigger all",
		"create trigger t after update on walhook.webhook for each row execute function walhook.wake()", "drop view walhook.incident", "grant select on walhook.webhook to public",
		"select nextval('walhook.delivery_id')", "select * from walhook.webhook_id_seq", "select * from walhook.console_session",
		"select walhook.use_session('\\x00', false, '1 h', '1 h')", "select walhook.begin_session('\\x00', 'ceo', '{admins}', '\\x00', '1 h')",
	)
	for _, query := range []string{
		"select * from walhook.webhook_overview", "select * from walhook.delivery_log", "select * from walhook.delivery_attempt", "select * from walhook.pending",
		"select * from walhook.endpoint_health", "select * from walhook.incident", "select * from walhook.settings", "select * from walhook.change_log", "select * from walhook.api_key", "select * from walhook.explain('1')", "select * from walhook.explain('2')",
		"copy (select * from walhook.webhook_overview) to stdout", "select id, disabled_reason from walhook.webhook", "select view_definition from information_schema.views where table_schema = 'walhook'",
		"select most_common_vals, histogram_bounds from pg_stats where schemaname = 'walhook'", "select query from pg_stat_activity",
		"explain (analyze, verbose) select * from walhook.webhook_overview",
	} {
		out, err := testenv.TryPsql(t, viewer, query)
		if err != nil || strings.Contains(out, "hunter2") || strings.Contains(out, "whsec_") && !strings.Contains(query, "information_schema") {
			t.Errorf("a viewer asks %s: %v\n%s", query, err, out)
		}
	}
	// A viewer's own function that is evaluated first, because it claims to cost nothing, also sees only hosts.
	out := testenv.Psql(t, viewer, `create function pg_temp.peek(text) returns boolean language plpgsql cost 0.0000001 as $$ begin raise notice 'seen %', $1; return true; end $$;
		select host from walhook.webhook_overview where pg_temp.peek(host); select host from walhook.endpoint_health where pg_temp.peek(host)`)
	if !strings.Contains(out, "seen https://example.com") || strings.Contains(out, "hunter2") {
		t.Errorf("a viewer's own function sees\n%s", out)
	}
}

// An administrator can write webhooks and settings, but nothing that the daemon or the functions write.
func TestAdministratorStaysInBounds(t *testing.T) {
	t.Parallel()
	url := storeWithSecrets(t)
	admin := as(t, url, "walhook_admin")
	denied(
		t, admin, "an administrator",
		"select count(*) from walhook.queue", "insert into walhook.queue (webhook_id, committed_at, event_type, response_id) values (1, now(), 1, '1')", "delete from walhook.log",
		"copy walhook.queue from stdin", "copy walhook.attempt to stdout", "update walhook.endpoint set failures = 0", "update walhook.position set lsn = '0/9'",
		"insert into walhook.incident_log (kind, detail) values ('x', 'x')", "truncate walhook.webhook", "delete from walhook.response_state", "update walhook.attachment set slot = 'x'",
		"select walhook.inherit_webhooks('1', '2')", "select walhook.bury(1)", "select walhook.drop_partitions('1 d')", "select walhook.advance(1, '0/2', null, 0)",
		"create table walhook.mine ()", "create or replace function walhook.new_secret() returns text language sql as $$ select 'known' $$", "alter table walhook.webhook add column x int",
		"alter table walhook.webhook disable trigger webhook_prepare", "drop table walhook.webhook", "create rule r as on select to walhook.webhook do instead nothing",
		"create trigger t after update on walhook.webhook for each row execute function walhook.wake()", "select setval('walhook.webhook_id_seq', 1)", "alter role walhook_admin login",
		"select * from walhook.console_session", "delete from walhook.console_session", "update walhook.console_session set groups = '{admins}'",
	)
	// The endpoint follows the URL, whatever the administrator writes.
	testenv.Psql(t, admin, `insert into walhook.webhook (url, event_type, endpoint_id) values ('https://elsewhere.example.com/', 'response.created', 1), ('https://elsewhere.example.com/', 'response.started', null);
		update walhook.webhook set endpoint_id = 1 where url like '%elsewhere%'; update walhook.webhook set endpoint_id = null where id = 1`)
	if got := testenv.Psql(t, url, "select count(distinct w.endpoint_id), bool_and(e.url = w.url) from walhook.webhook w join walhook.endpoint e on e.id = w.endpoint_id"); got != "2|t" {
		t.Errorf("endpoints, and whether each is that of the webhook's URL: %s", got)
	}
	// A trigger of their own cannot be added, and the schema's own triggers cannot be silenced by the session.
	denied(t, admin, "an administrator", "set session_replication_role = replica")
}

// The daemon's role can do its work and no more: it reads webhooks and disables them, and changes nothing else of them.
func TestDaemonStaysInBounds(t *testing.T) {
	t.Parallel()
	url := storeWithSecrets(t)
	daemon := as(t, url, "walhook_daemon")
	denied(
		t, daemon, "the daemon",
		"insert into walhook.webhook (url, event_type) values ('https://example.com/', 'response.created')", "delete from walhook.webhook",
		"update walhook.webhook set url = 'https://example.com/'", "update walhook.webhook set secret = null", "update walhook.webhook set event_type = 'response.changed'",
		"update walhook.settings set enabled = false", "delete from walhook.settings", "delete from walhook.log", "truncate walhook.log", "update walhook.log set succeeded = true",
		"delete from walhook.incident_log", "delete from walhook.endpoint", "insert into walhook.attachment select * from walhook.attachment", "delete from walhook.attachment",
		"select walhook.test_webhook(1)", "select walhook.redeliver(1)", "select walhook.redeliver_failed(1, now())", "select walhook.copy_webhooks('1', '2')", "select walhook.rotate_secret(1)",
		"create table walhook.mine ()", "drop table walhook.queue", "alter table walhook.queue add column x int", "select walhook.make_partition('walhook.log', now(), now())",
	)
	// Ending what is pending is for webhooks that are gone.
	testenv.Psql(t, daemon, "select walhook.bury(1)")
	if got := testenv.Psql(t, url, "select status from walhook.delivery_log"); got != "pending" {
		t.Errorf("the daemon ended what waits for a webhook that exists: %s", got)
	}
}

// Whoever is in no group has one function.
func TestStrangersHaveOneFunction(t *testing.T) {
	t.Parallel()
	url := storeWithSecrets(t)
	stranger := as(t, url, "")
	for _, object := range strings.Split(testenv.Psql(t, url, "select c.oid::regclass from pg_class c where relnamespace = 'walhook'::regnamespace and relkind in ('r', 'p', 'v', 'S')"), "\n") {
		denied(t, stranger, "a stranger", "select * from "+object)
	}
	functions := testenv.Psql(t, stranger, "select p.oid::regprocedure from pg_proc p where pronamespace = 'walhook'::regnamespace and has_function_privilege(p.oid, 'execute')")
	if functions != "walhook.silence()" {
		t.Errorf("a stranger may call %s", functions)
	}
	testenv.Psql(t, stranger, "begin; select walhook.silence(); commit")
}

// Functions that run with their owner's rights call nothing of the caller's: neither by search_path, nor by a temporary
// table or function of the same name, nor by an operator.
func TestOwnersFunctionsCallNothingOfTheCaller(t *testing.T) {
	t.Parallel()
	url := storeWithSecrets(t)
	testenv.Exec(t, url, "create schema hostile; grant usage, create on schema hostile to public")
	admin := as(t, url, "walhook_admin")
	var script strings.Builder
	script.WriteString("set client_min_messages = warning;\n")
	for _, table := range []string{"webhook", "queue", "log", "settings", "attachment", "response_state", "pg_timezone_names", "pg_class", "pg_inherits"} {
		script.WriteString("create temp table " + table + " (x int);\n")
	}
	for _, signature := range []string{
		"now()", "coalesce_(text)", "lower(text)", "btrim(text, text)", "sha256(bytea)", "convert_to(text, name)", "pg_notify(text, text)", "format(text)",
		"length(text)", "event_number(text)", "event_name(smallint)", "display_url(text)", "gen_random_uuid()", "new_secret()", "encode(bytea, text)", "to_char(timestamptz, text)",
	} {
		for _, schema := range []string{"hostile", "pg_temp"} {
			script.WriteString("create function " + schema + "." + signature + " returns text language plpgsql as $$ begin raise exception 'hostile code ran as %', current_user; end $$;\n")
		}
	}
	for i, types := range []string{"bigint,bigint", "text,text", "boolean,boolean", "timestamptz,timestamptz", "smallint,smallint", "integer,integer", "bigint,integer", "smallint,integer"} {
		left, right, _ := strings.Cut(types, ",")
		name := "hostile.compare" + string(rune('a'+i))
		script.WriteString("create function " + name + "(" + types + ") returns boolean language plpgsql as $$ begin raise exception 'hostile code ran as %', current_user; end $$;\n")
		for _, operator := range []string{"=", "<>", "<", ">", "<=", ">=", "~"} {
			script.WriteString("create operator hostile." + operator + " (leftarg = " + left + ", rightarg = " + right + ", function = " + name + ");\n")
		}
	}
	script.WriteString(`set search_path = hostile, pg_temp, pg_catalog, public;
		select walhook.test_webhook(1) is not null; select walhook.test_webhook(1, '1') is not null;
		select walhook.redeliver(1); select walhook.redeliver_failed(1, pg_catalog.now() - interval '1 day'); select walhook.copy_webhooks('1', '2');
		select walhook.rotate_secret(1) is not null; select pg_catalog.length(walhook.new_secret()) operator(pg_catalog.>) 30;
		insert into walhook.webhook (url, event_type) values (' https://example.com/b ', 'Response.Created') returning id;
		update walhook.webhook set enabled = false; update walhook.webhook set enabled = true; update walhook.settings set time_zone = 'Europe/Berlin';
		table walhook.delivery_log; table walhook.delivery_attempt; table walhook.pending; table walhook.endpoint_health; table walhook.webhook_overview; table walhook.incident;
		select reason from walhook.explain('1'); delete from walhook.webhook; table walhook.delivery_log; select 'all of it ran';`)
	out, err := testenv.TryPsql(t, admin, script.String())
	if err != nil || !strings.HasSuffix(out, "all of it ran") || strings.Contains(out, "hostile code") {
		t.Errorf("%v\n%s", err, out)
	}
}

// What ALTER DEFAULT PRIVILEGES gives to others, as objects are created at attach and as the log goes on, and what somebody granted before
// an upgrade, is theirs no more.
func TestNobodyElseGetsRights(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil) // default privileges of a role
	url := testenv.Database(t, server, `create role reporting; create role walhook_viewer;
		alter default privileges grant all on tables to reporting; alter default privileges grant all on sequences to public; alter default privileges grant all on functions to reporting, public;
		alter default privileges grant all on types to reporting; alter default privileges grant all on schemas to reporting; alter default privileges grant all on tables to walhook_viewer`)
	conn := testenv.Connect(t, url)
	if err := Install(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if err := InstallSource(t.Context(), conn, "walhook"); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/rights.txt")
	if err != nil {
		t.Fatal(err)
	}
	const others = `select o.name || ' ' || a.grantee::regrole || ' ' || a.privilege_type from (
		select oid::regclass::text, relacl from pg_class where relnamespace = 'walhook'::regnamespace union all
		select attrelid::regclass || '.' || attname, attacl from pg_attribute where attrelid in (select oid from pg_class where relnamespace = 'walhook'::regnamespace) union all
		select oid::regprocedure::text, proacl from pg_proc where pronamespace = 'walhook'::regnamespace union all
		select oid::regtype::text, typacl from pg_type where typnamespace = 'walhook'::regnamespace union all
		select nspname, nspacl from pg_namespace where nspname = 'walhook') as o (name, acl)
		cross join lateral aclexplode(o.acl) a where a.grantee = 'reporting'::regrole order by 1`
	check := func(when string) {
		t.Helper()
		if got := testenv.Psql(t, url, others); got != "" {
			t.Errorf("%s others may:\n%s", when, got)
		}
		testenv.Psql(t, url, "drop function if exists walhook.unpublish(name, regclass)")
		if diff := cmp.Diff(string(want), testenv.Psql(t, url, rights)+"\n"); diff != "" {
			t.Errorf("%s rights (-written down +there):\n%s", when, diff)
		}
	}
	check("after attach")
	if got := testenv.Psql(t, url, "set timezone = 'UTC'; select walhook.make_partition('walhook.log', '2100-01-01', '2100-02-01'), walhook.ensure_partitions('hour') > 0"); got != "|t" {
		t.Fatalf("partitions: %s", got)
	}
	if got := testenv.Psql(t, url, others); got != "" {
		t.Errorf("with a new partition others may:\n%s", got)
	}
	testenv.Psql(t, url, `grant select (url), update (description) on walhook.webhook to reporting; grant usage on type walhook.look_in to reporting; grant create on schema walhook to reporting;
		grant walhook_viewer to reporting with admin option; grant select on walhook.queue to walhook_viewer with grant option;
		set role walhook_viewer; grant select on walhook.queue to reporting; reset role; grant execute on function walhook.bury to reporting`)
	if err := Install(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if got := testenv.Psql(t, url, others); got != "" {
		t.Errorf("after an upgrade others may:\n%s", got)
	}
}
