package main

import (
	"testing"
	"time"

	"walhook/testenv"
)

// stopsInTime asks the daemon to stop and expects it to end with status 0 within DELIVERY_TIMEOUT, which is two seconds, and ten seconds.
func (d *daemon) stopsInTime() {
	d.t.Helper()
	asked := time.Now()
	if status := d.stop(); status != 0 {
		d.t.Errorf("the clean stop ended with status %d", status)
	}
	if took := time.Since(asked); took > 12*time.Second {
		d.t.Errorf("the clean stop took %s", took)
	}
}

// A clean stop ends in time, whatever hangs in the store: an attempt's next, what a batch needs to know, or its commit.
func TestStopWhileStoreHangs(t *testing.T) {
	t.Parallel()
	waiting := func(s *site) {
		s.t.Helper()
		testenv.Eventually(s.t, patience, "the store to wait for a lock", func() (bool, string) {
			got := testenv.Psql(s.t, s.store, "select count(*) from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0 and datname = current_database()")
			return got != "0", got
		})
	}
	lock := func(s *site, table string) {
		s.t.Helper()
		if _, err := testenv.Connect(s.t, s.store).Exec(s.t.Context(), "begin; lock table "+table+" in access exclusive mode"); err != nil {
			s.t.Fatal(err)
		}
	}
	// lookUp makes the next delivery about a response one that has to be looked up, once the first is answered for the second time.
	lookUp := func(s *site) (answer func()) {
		s.t.Helper()
		s.hook("/a", "created")
		s.hook("/a", "started")
		gate := make(chan struct{})
		s.t.Cleanup(func() {
			select {
			case <-gate:
			default:
				close(gate)
			}
		})
		s.receiver.Respond("/a", func(r testenv.Request) testenv.Reply {
			if r.Nth == 1 {
				return testenv.Reply{Status: 500}
			}
			<-gate
			return testenv.Reply{}
		})
		s.exec("insert into respondent (id, assessment_id) values (1, 1)")
		s.waitRequests("/a", 2)
		s.exec("update respondent set started_at = now()")
		s.waitStored()
		return func() { close(gate) }
	}
	for name, hang := range map[string]func(s *site, wire *testenv.Wire){
		"look-up of the next delivery, locked": func(s *site, wire *testenv.Wire) {
			answer := lookUp(s)
			lock(s, "walhook.origin")
			answer()
			waiting(s)
		},
		"look-up of the next delivery, away": func(s *site, wire *testenv.Wire) {
			answer := lookUp(s)
			lock(s, "walhook.origin")
			answer()
			waiting(s)
			wire.Cut()
		},
		"commit": func(s *site, wire *testenv.Wire) {
			lock(s, "walhook.response_state")
			s.exec("insert into respondent (id, assessment_id) values (1, 1)")
			waiting(s)
		},
		"states of responses": func(s *site, wire *testenv.Wire) {
			lock(s, "walhook.response_state")
			s.exec("update respondent set page = 1, started_at = now() where id = 77")
			waiting(s)
		},
		"every table": func(s *site, wire *testenv.Wire) {
			s.hook("/b", "created")
			s.receiver.Respond("/b", testenv.Always(testenv.Reply{Hang: true}))
			s.exec("insert into respondent (id, assessment_id) values (1, 1)")
			s.waitRequests("/b", 1)
			for _, table := range testenv.Values[string](s.t, s.store, "select oid::regclass::text from pg_class where relnamespace = 'walhook'::regnamespace and relkind in ('r', 'p') and not relispartition") {
				lock(s, table)
			}
			s.exec("insert into respondent (id, assessment_id) values (2, 1)")
		},
		"a wire that is silent": func(s *site, wire *testenv.Wire) {
			s.hook("/b", "created")
			s.receiver.Respond("/b", testenv.Always(testenv.Reply{Hang: true}))
			s.exec("insert into respondent (id, assessment_id) values (1, 1)")
			s.waitRequests("/b", 1)
			wire.Stall()
			s.exec("insert into respondent (id, assessment_id) values (2, 1)")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, sampleSchema).withStore(testenv.Postgres(t)).with("RETRY_BASE", "1s", "RETRY_CAP", "1s")
			s.exec("insert into respondent (id, assessment_id) values (77, 1)")
			s.attach()
			wire := s.behindWire("STORE_URL", s.store)
			d := s.start().ready()
			hang(s, wire)
			d.stopsInTime()
		})
	}
}
