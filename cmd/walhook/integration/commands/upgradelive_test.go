package commands

import (
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// A daemon whose store is upgraded while it runs exits with the reason.
func TestStoreUpgradedUnderADaemon(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	testenv.Psql(t, s.Store, "update walhook.schema_version set version = version + 1")
	if status := d.Wait(); status != 1 {
		t.Errorf("the daemon exited with status %d", status)
	}
	if log := d.Log.String(); !strings.Contains(log, "use the newer walhook that upgraded it") {
		t.Errorf("the daemon did not log why it exited:\n%s", log)
	}
	if got := testenv.Psql(t, s.Store, "select count(*) from walhook.daemon"); got != "0" {
		t.Errorf("%s daemons are still registered", got)
	}
}

// attach does not upgrade the schema while a daemon uses the old one.
func TestUpgradeBesideADaemon(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).Attach()
	version := testenv.Psql(t, s.Store, "update walhook.schema_version set version = version - 1 returning version")
	id := testenv.Value[int64](t, s.Store, "insert into walhook.daemon (name, version, expires_at) values ('old/1', 'old', now() + interval '1 hour') returning id")
	if _, err := testenv.Connect(t, s.Store).Exec(t.Context(), "select pg_advisory_lock($1, $2)", harness.LockClass, id); err != nil {
		t.Fatal(err)
	}
	harness.MustFail(s, "attach", "stop old/1 first")
	d := s.With("AUTO_ATTACH", "true").Start()
	d.Readyz(503, "stop old/1 first")
	if got := testenv.Psql(t, s.Store, "select version from walhook.schema_version"); got != version {
		t.Errorf("the schema was upgraded from %s to %s", version, got)
	}
	if status := d.Stop(); status != 0 {
		t.Errorf("stop: status %d", status)
	}
}
