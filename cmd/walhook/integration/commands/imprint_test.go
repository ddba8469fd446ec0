package commands

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// imprintSQL reads everything in a database and its server in which walhook could leave traces, without numbers that
// depend on the server's history.
var imprintSQL = strings.ReplaceAll(`
select 'schema', nspname, nspowner::regrole, acl('n', nspacl, nspowner) from pg_namespace where nspname !~ '^pg_(toast|temp)' order by 2;
select 'class', oid::regclass, relkind, relpersistence, relowner::regrole, relreplident, relrowsecurity, relforcerowsecurity, relispartition, relhastriggers,
       reloptions, acl(case relkind when 'S' then 's' else 'r' end, relacl, relowner) from pg_class where APP(relnamespace) order by 2;
select 'column', attrelid::regclass, attnum, attname, atttypid::regtype, attnotnull, attstorage, attstattarget, attisdropped, acl('c', attacl, relowner)
  from pg_attribute join pg_class c on c.oid = attrelid where APP(relnamespace) order by 2, 3;
select 'index', indexrelid::regclass, indisreplident, indisclustered, indisvalid, pg_get_indexdef(indexrelid) from pg_index join pg_class c on c.oid = indrelid where APP(relnamespace) order by 2;
select 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid) from pg_constraint where APP(connamespace) order by 2, 3;
select 'trigger', tgrelid::regclass, case when tgisinternal then rtrim(tgname, '0123456789') else tgname end, tgenabled, tgisinternal from pg_trigger order by 2, 3, 4;
select 'rule', ev_class::regclass, rulename from pg_rewrite join pg_class c on c.oid = ev_class where APP(relnamespace) order by 2, 3;
select 'policy', polrelid::regclass, polname from pg_policy order by 2, 3;
select 'function', p.oid::regprocedure, proowner::regrole, md5(prosrc), acl('f', proacl, proowner) from pg_proc p where APP(pronamespace) order by p.oid::regprocedure::text;
select 'type', t.oid::regtype, typowner::regrole, acl('T', typacl, typowner) from pg_type t where APP(typnamespace) order by 2;
select 'event trigger', evtname from pg_event_trigger order by 2;
select 'extension', extname from pg_extension order by 2;
select 'publication', pubname, pubowner::regrole from pg_publication order by 2;
select 'published', count(*) from pg_publication_rel;
select 'subscription', subname from pg_subscription order by 2;
select 'default rights', defaclrole::regrole, defaclnamespace, defaclobjtype, defaclacl from pg_default_acl order by 2, 3, 4;
select 'statistics', stxname from pg_statistic_ext order by 2;
select 'comment', pg_describe_object(classoid, objoid, objsubid), description from pg_description d
 where not exists (select from pg_init_privs i where i.objoid = d.objoid) and objoid >= 16384 order by 2;
select 'large object', count(*) from pg_largeobject_metadata;
select 'label', count(*) from pg_seclabel;
select 'slot', slot_name from pg_replication_slots order by 2;
select 'origin', roname from pg_replication_origin order by 2;
select 'prepared', count(*) from pg_prepared_xacts;
select 'role', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit, rolvaliduntil from pg_roles order by 2;
select 'member', roleid::regrole, member::regrole, admin_option from pg_auth_members order by 2, 3;
select 'setting', setdatabase, setrole::regrole, setconfig from pg_db_role_setting order by 2, 3;
select 'database', datname, datdba::regrole, acl('d', datacl, datdba) from pg_database where datname = current_database();
select 'shared dependency', refobjid::regrole, deptype, count(*) from pg_shdepend where refclassid = 'pg_authid'::regclass and dbid in (0, (select oid from pg_database where datname = current_database()))
 and deptype in ('a', 'o') group by 2, 3 order by 2, 3;`,
	"acl(", "pg_temp.acl(")

// imprint returns everything in a database that walhook could change: the catalogs, the rows of the application's
// tables, and the output of pg_dump, if there is one for this server.
func imprint(t *testing.T, server, url string) string {
	t.Helper()
	return catalogs(t, url) + testenv.Psql(t, url, `
		select 'rows of ' || c.oid::regclass, md5(query_to_xml('select * from ' || c.oid::regclass || ' t order by t', true, true, '')::text)
		  from pg_class c where c.relkind = 'r' and c.relnamespace::regnamespace::text !~ '^(pg_|information_schema)' order by 1;`) + "\n" + dump(t, server, url)
}

// catalogs returns the part from the catalogs.
func catalogs(t *testing.T, url string) string {
	t.Helper()
	app := regexp.MustCompile(`APP\((\w+)\)`).ReplaceAllString(imprintSQL, `$1::regnamespace::text !~ '^(pg_|information_schema)'`)
	return testenv.Psql(t, url, `
		create function pg_temp.acl(kind text, acl aclitem[], owner oid) returns text language sql as $$
		  select string_agg(grantee::regrole || ' ' || privilege_type || ' ' || is_grantable || ' by ' || grantor::regrole, ', ' order by grantee, privilege_type)
		    from aclexplode(coalesce(acl, acldefault(kind::"char", owner))) $$;`+app) + "\n"
}

var dumpVersion = regexp.MustCompile(`\) ([0-9]+)`)

// dump returns the output of pg_dump, without parts that differ from run to run. It returns nothing if pg_dump is older
// than the server, which it then refuses.
func dump(t *testing.T, bin, url string, options ...string) string {
	t.Helper()
	path := filepath.Join(bin, "pg_dump")
	if _, err := exec.LookPath(path); err != nil {
		if os.Getenv("CI") == "" {
			t.Log("pg_dump is not installed: the catalogs alone are compared")
			return ""
		}
		path = testenv.Program(t, "pg_dump")
	}
	version, err := exec.Command(path, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	major, _ := strconv.Atoi(dumpVersion.FindStringSubmatch(string(version))[1])
	if server := testenv.Value[int](t, url, "select current_setting('server_version_num')::int / 10000"); major < server {
		t.Logf("pg_dump has version %d and the server %d; only the catalogs are compared", major, server)
		return ""
	}
	out, err := exec.Command(path, append(options, "--create", url)...).CombinedOutput()
	if err != nil {
		t.Fatalf("pg_dump: %v\n%s", err, out)
	}
	return regexp.MustCompile(`(?m)^\\(un)?restrict .*$`).ReplaceAllString(string(out), "")
}

// unchanged fails the test if a database has changed.
func unchanged(t *testing.T, what, before, after string) {
	t.Helper()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")); diff != "" {
		t.Errorf("%s changed the database (-before +after):\n%s", what, diff)
	}
}

// livedIn adds to a new site what real applications have: owners, rights, defaults, other publications.
const livedIn = "create role app_owner login; create role app_reader login;" + livedInAlso

// livedInAlso does the same in another database of the server.
const livedInAlso = harness.SampleSchema + `
grant usage, create on schema public to app_owner;
alter table respondent owner to app_owner; alter table assessment owner to app_owner;
grant select on respondent to app_reader; grant update (page) on respondent to app_reader;
alter default privileges for role app_owner in schema public grant select on tables to app_reader;
alter table assessment replica identity full;
create publication theirs for table assessment;
create function touch() returns trigger language plpgsql as 'begin return new; end';
create trigger touch before update on respondent for each row execute function touch();
comment on table respondent is 'who answers';
insert into respondent (id, assessment_id, organization_id, name, started_at) select g, 1, '7', 'n' || g, now() from generate_series(1, 50) g;`
