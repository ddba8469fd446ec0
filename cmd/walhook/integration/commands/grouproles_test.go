package commands

import (
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// When an owner without CREATEROLE attaches, attach reports the missing group roles, and so do doctor and run as
// another role. Following their advice leads to a daemon that streams.
func TestAttachWithoutCreaterole(t *testing.T) {
	t.Parallel()
	s := harness.NewSiteOn(t, testenv.NewServer(t, nil), harness.SampleSchema)
	super := s.DB
	testenv.Psql(t, super, `create role boss login replication; alter table respondent owner to boss;
		do $$ begin execute format('grant create on database %I to boss', current_database()); end $$;
		create role walhook login replication; grant select (id, assessment_id, started_at, finished_at) on respondent to walhook`)
	const create = `CREATE ROLE walhook_admin; CREATE ROLE walhook_viewer; CREATE ROLE walhook_daemon;`
	const grant = `GRANT walhook_daemon TO "walhook";`
	boss, walhook := harness.UserOf(t, super, "boss"), harness.UserOf(t, super, "walhook")
	s.With("DATABASE_URL", boss)
	says := func(want int, command string, texts ...string) {
		t.Helper()
		out, errOut, status := s.Walhook(command)
		if status != want {
			t.Errorf("walhook %s: status %d, not %d\n%s%s", command, status, want, out, errOut)
		}
		for _, text := range texts {
			if !strings.Contains(out+errOut, text) {
				t.Errorf("walhook %s does not say %q:\n%s%s", command, text, out, errOut)
			}
		}
	}
	says(0, "attach", "group roles are missing", create, "attach again as boss")
	says(0, "doctor", "group_roles", create, "attach again as boss", " warn, 0 fail\n")
	s.With("DATABASE_URL", walhook)
	for _, command := range []string{"doctor", "run", "attach", "status", "reconcile"} {
		says(1, command, create, "attach again as boss", grant)
	}

	testenv.Psql(t, super, create)
	s.With("DATABASE_URL", walhook)
	says(1, "run", "permission denied", grant)
	s.With("DATABASE_URL", boss)
	if _, errOut, status := s.Walhook("attach"); status != 0 || strings.Contains(errOut, "missing") {
		t.Errorf("attach again: status %d\n%s", status, errOut)
	}
	testenv.Psql(t, super, grant)
	d := s.With("DATABASE_URL", walhook).Start().Ready()
	s.Hook("/hook", "created")
	testenv.Psql(t, super, "insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/hook", "created 1")

	// Only the owner can detach. The output lists what was dropped with the schema.
	d.Stop()
	says(1, "detach", "must be owner", "nothing was changed", "detach as boss", "undo")
	s.With("DATABASE_URL", boss)
	if _, errOut, status := s.Walhook("detach", "--drop-schema"); status != 0 || !strings.Contains(errOut, "1 webhooks and their secrets, and 0 pending deliveries") {
		t.Errorf("detach --drop-schema: status %d\n%s", status, errOut)
	}
}
