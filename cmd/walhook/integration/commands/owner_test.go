package commands

import (
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// Nobody who may create a schema gets code of theirs run by creating walhook's before walhook does: neither with the rights of a
// superuser nor with those of the daemon's role. Their schema is neither taken over nor dropped.
func TestSchemaOfAnotherRole(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil) // roles belong to the whole server
	testenv.Psql(t, server.URL("postgres"), "create role d login replication; create role planter login")
	const trap = `create schema walhook; grant usage on schema walhook to public;
		create function walhook.spring(n int) returns int immutable language plpgsql as $$
		begin if current_user <> 'planter' then perform nextval('public.ran'); end if; return n; end $$;
		create function walhook.advance(bigint, pg_lsn, pg_lsn, bigint) returns boolean language sql as 'select walhook.spring(1) = 1';`
	const attachment = `create view walhook.attachment as select 'attached'::text phase, walhook.spring(1)::bigint respondent_oid;
		create view walhook.installation as select 'x'::text system_identifier, 'x'::text database, walhook.spring(1)::bigint database_oid;
		grant select on all tables in schema walhook to public;`
	const function = "create function walhook.silence() returns void language sql as 'select walhook.spring(1)';"
	for name, planted := range map[string]string{
		"views":      trap + "create view walhook.schema_version as select walhook.spring(18) as version;" + attachment,
		"an index":   trap + "create table walhook.schema_version (version int4); create index on walhook.schema_version ((version + walhook.spring(1)));" + attachment,
		"a function": trap + function,
		"nothing":    "create schema walhook",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSiteOn(t, server, harness.SampleSchema)
			super := s.DB
			testenv.Psql(t, super, `create sequence ran; grant all on sequence ran to public; grant select on respondent to d;
				do $$ begin execute format('grant create on database %I to d, planter', current_database()); end $$`)
			testenv.Psql(t, harness.UserOf(t, super, "planter"), planted)
			for _, role := range []string{"postgres", "d"} {
				s.With("DATABASE_URL", harness.UserOf(t, super, role))
				for _, command := range []string{
					"doctor", "plan", "status", "attach", "attach --adopt", "attach --fresh", "reconcile", "run", "detach", "detach --drop-schema",
				} {
					out, errOut, status := s.Walhook(strings.Fields(command)...)
					if status != 1 || !strings.Contains(out+errOut, "schema walhook belongs to role planter") {
						t.Errorf("%s as %s: status %d\n%s%s", command, role, status, out, errOut)
					}
					if ran := testenv.Psql(t, super, "select is_called from ran"); ran != "f" {
						t.Fatalf("%s ran code of another role as %s", command, role)
					}
				}
			}
			if owner := testenv.Psql(t, super, "select nspowner::regrole from pg_namespace where nspname = 'walhook'"); owner != "planter" {
				t.Errorf("schema walhook belongs to %q", owner)
			}
			testenv.Psql(t, super, "drop schema walhook cascade")
			s.With("DATABASE_URL", harness.UserOf(t, super, "postgres")).Attach()
		})
	}
	t.Run("beside a store elsewhere", func(t *testing.T) {
		t.Parallel()
		s := harness.NewSiteOn(t, server, harness.SampleSchema)
		super := s.DB
		testenv.Psql(t, super, `create sequence ran; grant all on sequence ran to public;
			do $$ begin execute format('grant create on database %I to planter', current_database()); end $$`)
		planter := harness.UserOf(t, super, "planter")
		s.WithStore(server)
		testenv.Psql(t, planter, trap+function)
		for _, command := range []string{"plan", "attach", "doctor"} {
			harness.MustFail(s, command, "schema walhook belongs to role planter", "application's database")
		}
		testenv.Psql(t, super, "drop schema walhook cascade")
		s.Attach()
		testenv.Psql(t, super, "drop schema walhook cascade")
		testenv.Psql(t, planter, trap+function)
		if out, errOut, status := s.Walhook("detach", "--drop-schema"); status != 0 || !strings.Contains(errOut, "stays") {
			t.Errorf("detach: status %d\n%s%s", status, out, errOut)
		}
		if n := testenv.Psql(t, super, "select count(*) from pg_proc where pronamespace = 'walhook'::regnamespace"); n != "3" {
			t.Errorf("detach left %s functions of another role's schema", n)
		}
	})
	t.Run("an object in walhook's schema", func(t *testing.T) {
		t.Parallel()
		s := harness.NewSiteOn(t, server, harness.SampleSchema).Attach()
		testenv.Psql(t, s.DB, "grant create on schema walhook to planter")
		testenv.Psql(t, harness.UserOf(t, s.DB, "planter"), "create function walhook.column_id(text, varchar) returns text language sql as 'select 1'")
		for _, command := range []string{"status", "doctor", "reconcile", "run"} {
			harness.MustFail(s, command, "function walhook.column_id belongs to role planter")
		}
		testenv.Psql(t, s.DB, "drop function walhook.column_id(text, varchar)")
		if out, errOut, status := s.Walhook("reconcile"); status != 0 {
			t.Errorf("reconcile: status %d\n%s%s", status, out, errOut)
		}
	})
}

// A role that an administrator makes a member of walhook_daemon may own the schema, although it does not replicate.
func TestSchemaOwnerThatDoesNotReplicate(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	testenv.Psql(t, server.URL("postgres"), "create role keeper login; create role runner login replication")
	s := harness.NewSiteOn(t, server, harness.SampleSchema).WithStore(server)
	store := s.Store
	testenv.Psql(t, store, `do $$ begin execute format('grant create, temporary on database %I to keeper', current_database()); end $$`)
	s.With("STORE_URL", harness.UserOf(t, store, "keeper")).Attach() // as a superuser of the application's database
	s.With("STORE_URL", store)
	harness.MustFail(s, "status", "schema walhook belongs to role keeper", `GRANT walhook_daemon TO "keeper"`)
	testenv.Psql(t, store, `create role walhook_admin; create role walhook_viewer; create role walhook_daemon; GRANT walhook_daemon TO "keeper"`)
	for _, url := range []string{store, harness.UserOf(t, store, "keeper")} {
		s.With("STORE_URL", url)
		if out, errOut, status := s.Walhook("reconcile"); status != 0 {
			t.Errorf("reconcile: status %d\n%s%s", status, out, errOut)
		}
	}
}
