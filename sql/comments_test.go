package sql

import (
	"testing"

	"walhook/testenv"
)

// \d+ and \df+ describe every object of the schema.
func TestEverythingIsCommented(t *testing.T) {
	t.Parallel()
	url := installed(t)
	for what, query := range map[string]string{
		"tables and views": `select c.oid::regclass from pg_class c where c.relnamespace = 'walhook'::regnamespace and c.relkind in ('r', 'p', 'v')
			and not c.relispartition and c.relname <> 'schema_version' and obj_description(c.oid, 'pg_class') is null order by 1`,
		"types": `select c.oid::regclass from pg_class c where c.relnamespace = 'walhook'::regnamespace and c.relkind = 'c'
			and obj_description(c.reltype, 'pg_type') is null order by 1`,
		"functions": `select p.oid::regprocedure from pg_proc p where p.pronamespace = 'walhook'::regnamespace and p.prorettype <> 'trigger'::regtype
			and obj_description(p.oid, 'pg_proc') is null order by 1`,
		"columns": `select c.oid::regclass || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid
			where (c.relnamespace = 'walhook'::regnamespace and c.relkind = 'v' and obj_description(c.oid, 'pg_class') not like 'Internal: %' or c.oid in ('walhook.webhook'::regclass, 'walhook.settings'::regclass))
			and a.attnum > 0 and not a.attisdropped and col_description(c.oid, a.attnum) is null order by 1`,
		"functions that pin no search_path": `select p.oid::regprocedure from pg_proc p join pg_language l on l.oid = p.prolang
			where p.pronamespace = 'walhook'::regnamespace and p.prosqlbody is null
			and not coalesce(array_to_string(p.proconfig, ',') like '%search_path=pg_catalog, pg_temp%', false) order by 1`,
	} {
		if got := testenv.Psql(t, url, query); got != "" {
			t.Errorf("%s without what they need:\n%s", what, got)
		}
	}
}
