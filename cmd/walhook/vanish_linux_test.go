package main

import (
	"testing"

	"walhook/testenv"
)

// throughHole puts a hole between the daemons and the database that a variable names.
func (s *site) throughHole(variable, database string) (hole *testenv.Hole) {
	s.t.Helper()
	s.detour(variable, database, func(upstream string) string {
		hole = testenv.NewHole(s.t, upstream)
		return hole.Addr()
	})
	return hole
}

// The machine of the daemon that reads the slot is gone, and nothing answers for its connections. Another daemon takes over, since the
// store's server and the source do not wait for it for long.
func TestMachineVanishes(t *testing.T) {
	t.Parallel()
	for name, busy := range map[string]bool{"idle": false, "under load": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, sampleSchema)
			s.attach()
			hole := s.throughHole("DATABASE_URL", s.db)
			first := s.start().ready()
			first.readyz(200, "streaming")
			second := s.with("DATABASE_URL", s.db).start()
			second.readyz(200, "standing by")
			s.hooks()
			s.exec("insert into respondent (id, assessment_id) values (1, 1)")
			s.expect("/hook", "created 1")

			end := func() {}
			if busy {
				end = s.meanwhile(s.db, "insert into respondent (id, assessment_id) values (1000 + $1, 2)")
				s.waitLog("select count(*) > 50 from walhook.response_state", "t")
			}
			hole.Swallow()
			first.kill()
			s.exec("insert into respondent (id, assessment_id) values (2, 1)")
			second.readyz(200, "streaming")
			end()
			s.waitLog("select count(*) from walhook.delivery_log where response_id = '2'", "1")
		})
	}
}

// A firewall has forgotten the connections to a database: the daemon gives them up and opens new ones.
func TestConnectionsAreForgotten(t *testing.T) {
	t.Parallel()
	for name, database := range map[string]func(*site) (variable, url string){
		"store":  func(s *site) (string, string) { return "STORE_URL", s.store },
		"source": func(s *site) (string, string) { return "DATABASE_URL", s.db },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, sampleSchema).withStore(testenv.Postgres(t))
			s.attach()
			hole := s.throughHole(database(s))
			d := s.start().ready()
			s.hooks()
			s.exec("insert into respondent (id, assessment_id) values (1, 1)")
			s.expect("/hook", "created 1")
			hole.Swallow()
			s.exec("insert into respondent (id, assessment_id) values (2, 1)")
			testenv.Eventually(t, 4*patience, "the daemon to connect again", func() (bool, string) {
				return len(s.events("/hook")) == 2, d.log.String()
			})
			s.expect("/hook", "created 1", "created 2")
			d.ready()
		})
	}
}
