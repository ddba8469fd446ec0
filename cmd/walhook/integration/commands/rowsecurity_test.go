package commands

import (
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// The policies of the application's tables are code of the tables' owner. No command runs them: not before attach, and not if the owner
// enables them while attach or reconcile is about to read the rows.
func TestPoliciesAreNotRun(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil) // roles belong to the whole server
	s := harness.NewSiteOn(t, server, harness.SampleSchema)
	super := s.DB
	testenv.Psql(t, super, `create role boss login; create role d login replication; create sequence ran; grant all on sequence ran to public;
		create publication `+s.Env["SLOT"]+` for table respondent;
		create function judge() returns boolean language plpgsql as $$ begin if current_user = 'd' then perform nextval('public.ran'); end if; return false; end $$;
		create policy judged on respondent using (judge()); insert into respondent (id, assessment_id) values (1, 1);
		alter table respondent owner to boss; alter function judge() owner to boss; grant select on respondent to d;
		do $$ begin execute format('grant create on database %I to d', current_database()); end $$`)
	s.With("DATABASE_URL", harness.UserOf(t, super, "d"), "PUBLICATION", s.Env["SLOT"])
	const enable, disable = "alter table respondent enable row level security", "alter table respondent disable row level security"
	const remedy = `ALTER ROLE "d" BYPASSRLS`
	check := func(doing string) {
		t.Helper()
		if ran := testenv.Psql(t, super, "select is_called from ran"); ran != "f" {
			t.Fatalf("%s ran the policy", doing)
		}
	}

	testenv.Psql(t, super, enable)
	for _, command := range []string{"plan", "attach", "doctor"} {
		harness.MustFail(s, command, remedy)
		check(command)
	}
	testenv.Psql(t, super, disable)

	// Slot creation waits for the owner's transaction.
	owner := testenv.Connect(t, harness.UserOf(t, super, "boss"))
	exec := func(statement string) {
		t.Helper()
		if _, err := owner.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	exec("begin; select pg_current_xact_id()")
	attach := s.Background("attach")
	testenv.Eventually(t, harness.Patience, "attach waits for a transaction", func() (bool, string) {
		return testenv.Psql(t, super, "select count(*) from pg_replication_slots where active") == "1", attach.Log.String()
	})
	exec(enable + "; commit")
	if status := attach.Wait(); status != 1 || !strings.Contains(attach.Log.String(), remedy) {
		t.Errorf("attach: status %d\n%s", status, attach.Log.String())
	}
	check("attach while row-level security was enabled")

	testenv.Psql(t, super, disable)
	s.Attach()
	testenv.Psql(t, super, enable)
	if out, errOut, status := s.Walhook("reconcile"); status != 1 || !strings.Contains(errOut, remedy) {
		t.Errorf("reconcile: status %d\n%s%s", status, out, errOut)
	}
	check("reconcile")
}
