package stream

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// Silent sessions of the senders are replaced. While their queries hang, the daemon's heartbeats continue.
func TestSilentSessionsOfTheStore(t *testing.T) {
	t.Parallel()
	const (
		ours   = "select string_agg(a.pid::text, ' ') from pg_stat_activity a where a.datname = current_database() and a.application_name = 'walhook' and "
		holds  = "exists (select from pg_locks l where l.pid = a.pid and l.locktype = 'advisory' and l.objsubid = "
		lease  = holds + "2)"
		reader = holds + "1)"
	)
	for name, which := range map[string]string{
		"the one that tells that the daemon lives": ours + lease,
		"all others of the senders":                ours + "not " + lease + " and not " + reader,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.NewServer(t, nil)) // a stopped process would block other tests
			s.Run()
			s.Hook("/hook", "created")
			s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
			s.Expect("/hook", "created 1")
			pids := strings.Fields(testenv.Psql(t, s.Store, which))
			if len(pids) == 0 {
				t.Fatal("there is no such session")
			}
			signal := func(what syscall.Signal) {
				for _, field := range pids {
					pid, err := strconv.Atoi(field)
					if err != nil {
						t.Fatal(err)
					}
					_ = syscall.Kill(pid, what)
				}
			}
			signal(syscall.SIGSTOP)
			t.Cleanup(func() { signal(syscall.SIGCONT) })
			for range 3 {
				s.WaitHeartbeat()
			}
			s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
			s.WaitRequests("/hook", 2)
			// The daemon sees edits again.
			s.Hook("/other", "created")
			s.Exec("insert into respondent (id, assessment_id) values (3, 1)")
			testenv.Eventually(t, 3*harness.Patience, "a request for the new webhook", func() (bool, string) {
				return len(s.Receiver.Bodies("/other")) > 0, ""
			})
			testenv.Eventually(t, 3*harness.Patience, "the results to be recorded", func() (bool, string) {
				got := testenv.Psql(t, s.Store, "select count(*) from walhook.delivery_log where status = 'success'")
				return got >= "4", got
			})
			// The replaced session is terminated, and exits once its process continues.
			signal(syscall.SIGCONT)
			testenv.Eventually(t, harness.Patience, "the daemon's lock to be held by a session of today", func() (bool, string) {
				got := testenv.Psql(t, s.Store, ours+lease)
				return got != "" && !strings.Contains(" "+strings.Join(pids, " ")+" ", " "+got+" ") || !strings.Contains(which, lease), got
			})
		})
	}
}

// A distant store is fast enough.
func TestDistantStore(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.Postgres(t))
	s.Attach()
	s.Hook("/hook", "created")
	wire := harness.BehindWire(s, "STORE_URL", s.Store)
	wire.Latency(150 * time.Millisecond)
	d := s.Start()
	testenv.Eventually(t, 3*harness.Patience, "the daemon to be ready", func() (bool, string) {
		status, body := d.Get("/readyz")
		return status == 200, body
	})
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.WaitRequests("/hook", 1)
	for range 3 {
		s.WaitHeartbeat()
	}
	if strings.Contains(d.Log.String(), "lost the connection to the store") {
		t.Error("the daemon lost its connection to the store")
	}
}

// While everything else that a daemon asks of the store hangs, it notices that the session of its lease has ended, and continues with
// heartbeats before another daemon takes it for dead. Without heartbeats it starts no attempt.
func TestLeaseWhileTheStoreHangs(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.NewServer(t, nil)) // others would wait for a process that is stopped
	d := s.Run()
	s.Hook("/hook", "created")
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/hook", "created 1")
	const holdsNoLock = "not exists (select from pg_locks l where l.pid = a.pid and l.locktype = 'advisory')"
	id := testenv.Value[int64](t, s.Store, "select id from walhook.daemon")
	var pids []int
	for field := range strings.FieldsSeq(testenv.Psql(t, s.Store, "select a.pid from pg_stat_activity a where a.datname = current_database() and a.application_name = 'walhook' and "+holdsNoLock)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	signal := func(what syscall.Signal) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, what)
		}
	}
	other := s.Start()
	other.Ready()
	t.Cleanup(func() { signal(syscall.SIGCONT) })
	signal(syscall.SIGSTOP)
	for range 2 {
		testenv.Exec(t, s.Store, "select pg_terminate_backend(l.pid) from pg_locks l where l.locktype = 'advisory' and l.classid = $1 and l.objid = $2", harness.LockClass, id)
		now := testenv.Value[time.Time](t, s.Store, "select clock_timestamp()")
		testenv.Eventually(t, harness.Patience, "a heartbeat under the same number", func() (bool, string) {
			got := testenv.Psql(t, s.Store, "select id, heartbeat_at from walhook.daemon order by id")
			return testenv.Value[int](t, s.Store, "select count(*)::int from walhook.daemon where id = $1 and heartbeat_at > $2", id, now) == 1, got
		})
	}
	signal(syscall.SIGCONT)
	other.Stop()
	s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
	s.Expect("/hook", "created 1", "created 2")

	// Whoever locks the table keeps heartbeats from being written.
	locks := testenv.Connect(t, s.Store)
	if _, err := locks.Exec(t.Context(), "begin; lock table walhook.daemon in exclusive mode"); err != nil {
		t.Fatal(err)
	}
	d.Shows(0, "walhook_store_connected")
	s.Exec("insert into respondent (id, assessment_id) values (3, 1)")
	for range 5 { // which takes longer than to send it
		s.WaitStored()
	}
	if got := s.Events("/hook"); len(got) != 2 {
		t.Errorf("without heartbeats it sent %v", got)
	}
	if _, err := locks.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	s.Expect("/hook", "created 1", "created 2", "created 3")
}
