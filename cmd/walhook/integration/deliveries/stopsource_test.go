package deliveries

import (
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// A clean stop ends in time whatever hangs in the source, and in whatever phase the daemon is.
func TestStopWhileSourceHangs(t *testing.T) {
	t.Parallel()
	lock := func(s *harness.Site, table string) {
		s.T.Helper()
		if _, err := testenv.Connect(s.T, s.DB).Exec(s.T.Context(), "begin; lock table "+table+" in access exclusive mode"); err != nil {
			s.T.Fatal(err)
		}
	}
	waiting := func(s *harness.Site, query string) {
		s.T.Helper()
		testenv.Eventually(s.T, harness.Patience, "the daemon to wait for a lock", func() (bool, string) {
			got := testenv.Psql(s.T, s.DB, "select query from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0 and datname = current_database()")
			return strings.Contains(got, query), got
		})
	}
	for name, hang := range map[string]func(s *harness.Site, wire *testenv.Wire) *harness.Daemon{
		"a wire that is silent": func(s *harness.Site, wire *testenv.Wire) *harness.Daemon {
			d := s.Start().Ready()
			wire.Stall()
			return d
		},
		"a wire that is silent at the start": func(s *harness.Site, wire *testenv.Wire) *harness.Daemon {
			wire.Stall()
			d := s.Start()
			d.Listens()
			return d
		},
		"a wire that is silent, as the standby": func(s *harness.Site, wire *testenv.Wire) *harness.Daemon {
			s.Start().Readyz(200, "streaming")
			d := s.Start()
			d.Readyz(200, "standing by")
			wire.Stall()
			return d
		},
		"the snapshot of a comparison": func(s *harness.Site, wire *testenv.Wire) *harness.Daemon {
			d := s.Start().Ready()
			lock(s, "respondent")
			s.Exec("alter publication walhook set (publish = 'insert')")
			waiting(s, "")
			d.Readyz(503, "")
			return d
		},
		"a transaction that a new slot waits for": func(s *harness.Site, wire *testenv.Wire) *harness.Daemon {
			s.DropSlot()
			if _, err := testenv.Connect(s.T, s.DB).Exec(s.T.Context(), "begin; insert into assessment values (7)"); err != nil {
				s.T.Fatal(err)
			}
			d := s.Start()
			waiting(s, "CREATE_REPLICATION_SLOT")
			return d
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.Postgres(t)).Attach()
			wire := harness.BehindWire(s, "DATABASE_URL", s.DB)
			stopsInTime(hang(s, wire))
		})
	}
}
