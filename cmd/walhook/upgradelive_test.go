package main

import (
	"strings"
	"testing"

	"walhook/testenv"
)

// A daemon whose store is upgraded under it ends with the reason.
func TestStoreUpgradedUnderADaemon(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema)
	d := s.run()
	testenv.Psql(t, s.store, "update walhook.schema_version set version = version + 1")
	if status := d.wait(); status != 1 {
		t.Errorf("the daemon ended with status %d", status)
	}
	if log := d.log.String(); !strings.Contains(log, "use the newer walhook that upgraded it") {
		t.Errorf("the daemon did not say why it ended:\n%s", log)
	}
	if got := testenv.Psql(t, s.store, "select count(*) from walhook.daemon"); got != "0" {
		t.Errorf("%s daemons are still registered", got)
	}
}

// attach does not upgrade the schema while a daemon works with the older one.
func TestUpgradeBesideADaemon(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).attach()
	version := testenv.Psql(t, s.store, "update walhook.schema_version set version = version - 1 returning version")
	id := testenv.Value[int64](t, s.store, "insert into walhook.daemon (name, version, expires_at) values ('old/1', 'old', now() + interval '1 hour') returning id")
	if _, err := testenv.Connect(t, s.store).Exec(t.Context(), "select pg_advisory_lock($1, $2)", lockClass, id); err != nil {
		t.Fatal(err)
	}
	s.mustFail("attach", "stop old/1 first")
	d := s.with("AUTO_ATTACH", "true").start()
	d.readyz(503, "stop old/1 first")
	if got := testenv.Psql(t, s.store, "select version from walhook.schema_version"); got != version {
		t.Errorf("the schema was upgraded from %s to %s", version, got)
	}
	if status := d.stop(); status != 0 {
		t.Errorf("stop: status %d", status)
	}
}
