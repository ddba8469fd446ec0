package stream

import (
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// throughHole puts a hole between the daemons and the database in a variable.
func throughHole(s *harness.Site, variable, database string) (hole *testenv.Hole) {
	s.T.Helper()
	harness.Detour(s, variable, database, func(upstream string) string {
		hole = testenv.NewHole(s.T, upstream)
		return hole.Addr()
	})
	return hole
}

// The machine of the daemon that reads the slot vanishes, and nothing answers on its connections. Another daemon takes
// over, since the store's server and the source soon give up on them.
func TestMachineVanishes(t *testing.T) {
	t.Parallel()
	for name, busy := range map[string]bool{"idle": false, "under load": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema)
			s.Attach()
			hole := throughHole(s, "DATABASE_URL", s.DB)
			first := s.Start().Ready()
			first.Readyz(200, "streaming")
			second := s.With("DATABASE_URL", s.DB).Start()
			second.Readyz(200, "standing by")
			s.Hooks()
			s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
			s.Expect("/hook", "created 1")

			end := func() {}
			if busy {
				end = s.Meanwhile(s.DB, "insert into respondent (id, assessment_id) values (1000 + $1, 2)")
				s.WaitLog("select count(*) > 50 from walhook.response_state", "t")
			}
			hole.Swallow()
			first.Kill()
			s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
			second.Readyz(200, "streaming")
			end()
			s.WaitLog("select count(*) from walhook.delivery_log where response_id = '2'", "1")
		})
	}
}

// A firewall has dropped the state of the connections to a database: the daemon abandons them and opens new ones.
func TestConnectionsAreForgotten(t *testing.T) {
	t.Parallel()
	for name, database := range map[string]func(*harness.Site) (variable, url string){
		"store":  func(s *harness.Site) (string, string) { return "STORE_URL", s.Store },
		"source": func(s *harness.Site) (string, string) { return "DATABASE_URL", s.DB },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.Postgres(t))
			s.Attach()
			network, address := database(s)
			hole := throughHole(s, network, address)
			d := s.Start().Ready()
			s.Hooks()
			s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
			s.Expect("/hook", "created 1")
			hole.Swallow()
			s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
			testenv.Eventually(t, 4*harness.Patience, "the daemon to connect again", func() (bool, string) {
				return len(s.Events("/hook")) == 2, d.Log.String()
			})
			s.Expect("/hook", "created 1", "created 2")
			d.Ready()
		})
	}
}
