package commands

import (
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// After detach --drop-schema, the application's database, store and server are the same as before attach, according to
// the catalogs, the rows and pg_dump, whatever has happened in between.
func TestDetachLeavesNothing(t *testing.T) {
	t.Parallel()
	server, another := testenv.NewServer(t, nil), testenv.NewServer(t, nil) // roles belong to the whole server
	for name, elsewhere := range map[string]bool{"same database": false, "store elsewhere": true} {
		t.Run(name, func(t *testing.T) {
			dropRolesAfter(t, server)
			s := harness.NewSiteOn(t, server, livedIn).With("ASSESSMENT_TABLE", "public.assessment", "RESPONDENT_ORGANIZATION", "organization_id", "RETENTION", "9m")
			storeServer := server
			if elsewhere {
				storeServer = another
				s.WithStore(another)
			}
			look := func() string { return imprint(t, server.BinDir(), s.DB) + imprint(t, storeServer.BinDir(), s.Store) }
			before := look()

			d := s.Run()
			s.Receiver.Respond("/down", testenv.Always(testenv.Reply{Status: 500}))
			s.Hooks()
			s.Hook("/down", "created")
			s.Exec("insert into respondent (id, assessment_id) values (60, 1)")
			s.Exec("begin; select walhook.silence(); update respondent set page = page; commit")
			arrived(s, t, "created 60")
			// A gap, so that slot, publication and temporary tables are created again.
			s.Exec("alter publication walhook drop table respondent")
			s.Exec("insert into respondent (id, assessment_id) values (61, 1)")
			arrived(s, t, "created 60", "created 61")
			if status := d.Stop(); status != 0 {
				t.Errorf("the daemon exited with status %d", status)
			}
			s.Exec("delete from respondent where id > 50")
			if out, errOut, status := s.Walhook("detach", "--drop-schema"); status != 0 {
				t.Fatalf("detach --drop-schema: status %d\n%s%s", status, out, errOut)
			}
			unchanged(t, "attach, run and detach", before, look())
		})
	}
}

// detach drops the group roles that walhook created, and none that an administrator did.
func TestDetachKeepsRolesOfOthers(t *testing.T) {
	t.Parallel()
	s := harness.NewSiteOn(t, testenv.NewServer(t, nil), harness.SampleSchema) // roles belong to the whole server
	testenv.Psql(t, s.DB, "create role walhook_admin; create role ann login in role walhook_admin")
	s.Attach()
	out, errOut, status := s.Walhook("detach", "--drop-schema")
	if status != 0 || strings.Count(errOut, "stays: walhook did not create it") != 1 || !strings.Contains(errOut, "role walhook_admin stays") {
		t.Errorf("detach: status %d\n%s%s", status, out, errOut)
	}
	if got := testenv.Psql(t, s.DB, "select string_agg(rolname, ',') from pg_roles where rolname ~ '^walhook'"); got != "walhook_admin" {
		t.Errorf("roles that are left: %s", got)
	}
	if got := testenv.Psql(t, s.DB, "select pg_has_role('ann', 'walhook_admin', 'member')"); got != "t" {
		t.Errorf("ann is no longer a member of walhook_admin")
	}
}

// arrived waits for these events at /hook, whatever else is pending.
func arrived(s *harness.Site, t *testing.T, want ...string) {
	t.Helper()
	s.WaitRequests("/hook", len(want))
	s.WaitStored()
	got := s.Events("/hook")
	for i := range want {
		if len(got) != len(want) || got[i] != want[i] {
			t.Fatalf("events are %v, not %v", got, want)
		}
	}
}

// detach without --drop-schema keeps webhooks, settings and log for the next attach.
func TestDetachKeepsWebhooksAndLog(t *testing.T) {
	t.Parallel()
	for name, elsewhere := range map[string]bool{"same database": false, "store elsewhere": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema)
			if elsewhere {
				s.WithStore(testenv.Postgres(t))
			}
			d := s.Run()
			s.Hooks()
			testenv.Exec(t, s.Store, "update walhook.settings set time_zone = 'Europe/Berlin'")
			s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
			s.Expect("/hook", "created 1")
			d.Stop()
			const kept = `select id, url, event_type, enabled from walhook.webhook order by id; select time_zone, enabled from walhook.settings;
				select delivery_id, delivered_at, response_id, event_type, status, attempts, message_id from walhook.delivery_log order by 1`
			before := testenv.Psql(t, s.Store, kept)
			if _, errOut, status := s.Walhook("detach"); status != 0 || !strings.Contains(errOut, "webhooks, settings and log stay") {
				t.Fatalf("detach: status %d\n%s", status, errOut)
			}
			s.Exec("insert into respondent (id, assessment_id) values (2, 1)") // nothing is attached, so this never fires
			s.Attach()
			unchanged(t, "detach and attach", before, testenv.Psql(t, s.Store, kept))
			s.Start().Ready()
			s.Exec("update respondent set started_at = now()")
			s.Expect("/hook", "created 1", "started 1", "started 2")
		})
	}
}
