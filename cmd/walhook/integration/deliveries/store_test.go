package deliveries

import (
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// The store may be on another server. The application's database then contains only a schema with two functions.
func TestStoreElsewhere(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("ASSESSMENT_TABLE", "public.assessment").WithStore(testenv.NewServer(t, nil))
	s.Exec("insert into respondent (id, assessment_id, started_at) values (1, 1, now())")
	d := s.Run()
	s.Hooks()
	s.Hook("/all", "completed", "assessment_id", "null")
	s.Exec("update respondent set started_at = now(), finished_at = now()")
	s.Exec("begin; select walhook.silence(); insert into respondent (id, assessment_id, started_at) values (2, 1, now()); commit")
	s.Exec("insert into respondent (id, assessment_id, started_at) values (3, 1, now())")
	s.Expect("/hook", "completed 1", "created 3", "started 3")
	s.Expect("/all", "completed 1")
	const left = `select 'function ' || p.oid::regprocedure from pg_proc p where p.pronamespace = to_regnamespace('walhook')
		union all select 'relation ' || c.oid::regclass from pg_class c where c.relnamespace = to_regnamespace('walhook')
		union all select 'type ' || t.oid::regtype from pg_type t where t.typnamespace = to_regnamespace('walhook')
		union all select 'schema ' || nspname from pg_namespace where nspname like '%walhook%' order by 1`
	if got, want := testenv.Psql(t, s.DB, left), "function walhook.silence()\nfunction walhook.unpublish(name,regclass)\nschema walhook"; got != want {
		t.Errorf("the application's database contains\n%s\ninstead of\n%s", got, want)
	}
	d.Kill()
	s.Exec("update respondent set finished_at = now() where id = 3")
	d = s.Start().Ready()
	s.Expect("/hook", "completed 1", "created 3", "started 3", "completed 3")
	d.Stop()
	if out, errOut, status := s.Walhook("detach", "--drop-schema"); status != 0 {
		t.Fatalf("detach --drop-schema: status %d\n%s%s", status, out, errOut)
	}
	for where, url := range map[string]string{"application's database": s.DB, "store": s.Store} {
		if got := testenv.Psql(t, url, left); got != "" {
			t.Errorf("detach --drop-schema left in the %s:\n%s", where, got)
		}
	}
}
