package sql

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walhook/testenv"
)

// installed returns the URL of a database with the schema.
func installed(t testing.TB) string {
	t.Helper()
	server := testenv.Postgres(t)
	return testenv.Clone(t, server, testenv.Template(t, server, "installed", Install))
}

// Every query can be prepared: none is truncated, and the server knows every name and type.
func TestQueriesPrepare(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, installed(t))
	for name, query := range Queries {
		description, err := conn.Prepare(t.Context(), name, query.SQL)
		if err != nil {
			t.Errorf("query %s: %v\n%s", name, err, query.SQL)
			continue
		}
		if len(description.ParamOIDs) != len(query.params) {
			t.Errorf("query %s has %d parameters and names %v", name, len(description.ParamOIDs), query.params)
		}
	}
}

func TestInstallIsRepeatable(t *testing.T) {
	t.Parallel()
	url := installed(t)
	const catalog = `select 'class', oid::regclass::text, relkind::text from pg_class where relnamespace = 'walhook'::regnamespace
		union all select 'proc', oid::regprocedure::text, prokind::text from pg_proc where pronamespace = 'walhook'::regnamespace
		union all select 'trigger', tgrelid::regclass || '.' || tgname, 't' from pg_trigger where tgrelid::regclass::text like 'walhook.%'
		order by 1, 2`
	testenv.Exec(t, url, "insert into walhook.webhook (url, event_type) values ('https://example.com/', 'response.created'); update walhook.settings set time_zone = 'Europe/Berlin'")
	testenv.Exec(t, url, buildTimeIndexes)
	before := testenv.Psql(t, url, catalog)
	conn := testenv.Connect(t, url)
	for range 2 {
		if err := Install(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, testenv.Psql(t, url, catalog)); diff != "" {
		t.Errorf("installing again changed the catalog (-before +after):\n%s", diff)
	}
	if kept := testenv.Psql(t, url, "select count(*), (select time_zone from walhook.settings) from walhook.webhook"); kept != "1|Europe/Berlin" {
		t.Errorf("installing again left %s", kept)
	}
	if err := CheckVersion(t.Context(), conn); err != nil {
		t.Error(err)
	}
}

// plan's script, run by hand with psql, creates the same as Install.
func TestScriptInstalls(t *testing.T) {
	t.Parallel()
	script, err := Script(0)
	if err != nil {
		t.Fatal(err)
	}
	url := testenv.Database(t, testenv.Postgres(t), "")
	testenv.Psql(t, url, "create schema walhook;\n"+script)
	conn := testenv.Connect(t, url)
	if err := CheckVersion(t.Context(), conn); err != nil {
		t.Error(err)
	}
	if err := Install(t.Context(), conn); err != nil {
		t.Errorf("install over the script's schema: %v", err)
	}
	const objects = "select oid::regclass::text from pg_class where relnamespace = 'walhook'::regnamespace union all select oid::regprocedure::text from pg_proc where pronamespace = 'walhook'::regnamespace order by 1"
	if diff := cmp.Diff(testenv.Psql(t, installed(t), objects), testenv.Psql(t, url, objects)); diff != "" {
		t.Errorf("objects (-install +script):\n%s", diff)
	}
}

func TestVersionIsChecked(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, testenv.Database(t, testenv.Postgres(t), ""))
	var version *VersionError
	if err := CheckVersion(t.Context(), conn); !errors.As(err, &version) || version.Have != 0 {
		t.Errorf("an empty database: %v", err)
	}
	if err := Install(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "update walhook.schema_version set version = version + 1"); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"check": CheckVersion(t.Context(), conn), "install": Install(t.Context(), conn)} {
		if !errors.As(err, &version) || version.Have != version.Want+1 {
			t.Errorf("%s of a newer schema: %v", name, err)
		}
	}
}
