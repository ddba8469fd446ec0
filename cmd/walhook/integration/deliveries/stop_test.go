package deliveries

import (
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// stopsInTime stops the daemon and expects it to exit with status 0 within DELIVERY_TIMEOUT, which is two seconds, plus
// ten seconds.
func stopsInTime(d *harness.Daemon) {
	d.T.Helper()
	asked := time.Now()
	if status := d.Stop(); status != 0 {
		d.T.Errorf("the clean stop exited with status %d", status)
	}
	if took := time.Since(asked); took > 12*time.Second {
		d.T.Errorf("the clean stop took %s", took)
	}
}

// A stop that waits for attempts in flight says so.
func TestStopSaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("DELIVERY_TIMEOUT", "1m")
	d := s.Run()
	s.Hook("/slow", "created")
	gate := make(chan struct{})
	release := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(release)
	s.Receiver.Respond("/slow", func(testenv.Request) testenv.Reply {
		<-gate
		return testenv.Reply{}
	})
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.WaitRequests("/slow", 1)
	if err := d.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	s.WaitLog("select draining from walhook.daemon", "t")
	release()
	<-d.Exited
	if log := d.Log.String(); !strings.Contains(log, `msg="stopping; waiting for attempts in flight" in_flight=1`) {
		t.Errorf("the log does not say what the stop waited for:\n%s", log)
	}
}

// A clean stop ends in time, whatever hangs in the store: a query for a next delivery, a batch's query, or its commit.
func TestStopWhileStoreHangs(t *testing.T) {
	t.Parallel()
	waiting := func(s *harness.Site) {
		s.T.Helper()
		testenv.Eventually(s.T, harness.Patience, "the store to wait for a lock", func() (bool, string) {
			got := testenv.Psql(s.T, s.Store, "select count(*) from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0 and datname = current_database()")
			return got != "0", got
		})
	}
	lock := func(s *harness.Site, table string) {
		s.T.Helper()
		if _, err := testenv.Connect(s.T, s.Store).Exec(s.T.Context(), "begin; lock table "+table+" in access exclusive mode"); err != nil {
			s.T.Fatal(err)
		}
	}
	// lookUp makes the daemon query the store for the next delivery about a response, once the first is answered for the
	// second time.
	lookUp := func(s *harness.Site) (answer func()) {
		s.T.Helper()
		s.Hook("/a", "created")
		s.Hook("/a", "started")
		gate := make(chan struct{})
		s.T.Cleanup(func() {
			select {
			case <-gate:
			default:
				close(gate)
			}
		})
		s.Receiver.Respond("/a", func(r testenv.Request) testenv.Reply {
			if r.Nth == 1 {
				return testenv.Reply{Status: 500}
			}
			<-gate
			return testenv.Reply{}
		})
		s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
		s.WaitRequests("/a", 2)
		s.Exec("update respondent set started_at = now()")
		s.WaitStored()
		return func() { close(gate) }
	}
	for name, hang := range map[string]func(s *harness.Site, wire *testenv.Wire){
		"look-up of the next delivery, locked": func(s *harness.Site, wire *testenv.Wire) {
			answer := lookUp(s)
			lock(s, "walhook.origin")
			answer()
			waiting(s)
		},
		"look-up of the next delivery, away": func(s *harness.Site, wire *testenv.Wire) {
			answer := lookUp(s)
			lock(s, "walhook.origin")
			answer()
			waiting(s)
			wire.Cut()
		},
		"commit": func(s *harness.Site, wire *testenv.Wire) {
			lock(s, "walhook.response_state")
			s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
			waiting(s)
		},
		"states of responses": func(s *harness.Site, wire *testenv.Wire) {
			lock(s, "walhook.response_state")
			s.Exec("update respondent set page = 1, started_at = now() where id = 77")
			waiting(s)
		},
		"every table": func(s *harness.Site, wire *testenv.Wire) {
			s.Hook("/b", "created")
			s.Receiver.Respond("/b", testenv.Always(testenv.Reply{Hang: true}))
			s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
			s.WaitRequests("/b", 1)
			for _, table := range testenv.Values[string](s.T, s.Store, "select oid::regclass::text from pg_class where relnamespace = 'walhook'::regnamespace and relkind in ('r', 'p') and not relispartition") {
				lock(s, table)
			}
			s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
		},
		"a wire that is silent": func(s *harness.Site, wire *testenv.Wire) {
			s.Hook("/b", "created")
			s.Receiver.Respond("/b", testenv.Always(testenv.Reply{Hang: true}))
			s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
			s.WaitRequests("/b", 1)
			wire.Stall()
			s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.Postgres(t)).With("RETRY_BASE", "1s", "RETRY_CAP", "1s")
			s.Exec("insert into respondent (id, assessment_id) values (77, 1)")
			s.Attach()
			wire := harness.BehindWire(s, "STORE_URL", s.Store)
			d := s.Start().Ready()
			hang(s, wire)
			stopsInTime(d)
		})
	}
}
