package stream

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// A promoted standby does not have walhook's slot (before PostgreSQL 17, none can). What the application wrote there
// before the daemon connected is not lost.
func TestStandbyPromoted(t *testing.T) {
	t.Parallel()
	primary := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, primary, harness.SampleSchema).WithStore(testenv.Postgres(t))
	wire := harness.BehindWire(s, "DATABASE_URL", s.DB)
	standby := testenv.CopyServer(t, primary, map[string]string{
		"primary_conninfo": fmt.Sprintf("host=127.0.0.1 port=%d user=postgres", primary.Port()),
	}, "standby.signal")
	s.Exec(beforeGap)
	d := s.Run()
	s.Hooks()
	s.Exec("insert into respondent (id, assessment_id) values (7, 1)")
	s.Expect("/hook", "created 7")
	end := testenv.Psql(t, s.DB, "select pg_current_wal_lsn()")
	testenv.Eventually(t, harness.Patience, "the standby to have replayed everything", func() (bool, string) {
		got := testenv.Psql(t, standby.URL("postgres"), "select pg_last_wal_replay_lsn() >= '"+end+"'")
		return got == "t", got
	})

	wire.Cut()
	primary.Kill()
	testenv.Exec(t, standby.URL("postgres"), "select pg_promote()")
	s.MoveTo(standby)
	s.Exec(gapHistory)
	wire.Redirect(harness.HostPort(standby))
	wire.Restore()
	harness.WaitResolved(s, "slot_lost")
	d.Ready()
	s.Exec("update respondent set finished_at = now() where id = 10")
	s.Expect("/hook", append(append([]string{"created 7"}, missedInGap...), "completed 10")...)
	if n := testenv.Value[int](t, s.Store, "select count(*)::int from walhook.delivery_log where recovered"); n != len(missedInGap) {
		t.Errorf("%d deliveries are marked as recovered, not %d", n, len(missedInGap))
	}
}

// After a failover the old server may keep running with its connections, while new ones lead to the new server. From
// then on, the daemon's queries of the source must go to the new server.
func TestFailoverBesideTheOldServer(t *testing.T) {
	t.Parallel()
	primary := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, primary, harness.SampleSchema).WithStore(testenv.Postgres(t))
	var lead func(addr string)
	harness.Detour(s, "DATABASE_URL", s.DB, func(upstream string) (addr string) {
		addr, lead = switchboard(t, upstream)
		return addr
	})
	standby := testenv.CopyServer(t, primary, map[string]string{
		"primary_conninfo": fmt.Sprintf("host=127.0.0.1 port=%d user=postgres", primary.Port()),
	}, "standby.signal")
	d := s.Run()
	s.Hook("/hook", "created")
	s.Exec("insert into respondent (id, assessment_id) values (7, 1)")
	s.Expect("/hook", "created 7")
	end := testenv.Psql(t, s.DB, "select pg_current_wal_lsn()")
	testenv.Eventually(t, harness.Patience, "the standby to have replayed everything", func() (bool, string) {
		got := testenv.Psql(t, standby.URL("postgres"), "select pg_last_wal_replay_lsn() >= '"+end+"'")
		return got == "t", got
	})
	old := s.DB
	testenv.Exec(t, standby.URL("postgres"), "select pg_promote()")
	lead(harness.HostPort(standby))
	s.MoveTo(standby)
	testenv.Exec(t, old, "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'walsender' and application_name like 'walhook%'")
	harness.WaitResolved(s, "slot_lost")
	d.Ready()
	for range 200 { // transactions that the old server does not have
		s.Exec("select pg_current_xact_id()")
	}
	s.Exec("insert into respondent (id, assessment_id) values (8, 1)")
	s.Expect("/hook", "created 7", "created 8")
	testenv.Eventually(t, harness.Patience, "the daemon to leave the old server", func() (bool, string) {
		left := testenv.Psql(t, old, "select string_agg(query, '; ') from pg_stat_activity where application_name like 'walhook%'")
		return left == "", left
	})
}

// switchboard forwards each new connection to its current target.
func switchboard(t *testing.T, to string) (addr string, lead func(addr string)) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	var upstream atomic.Pointer[string]
	upstream.Store(&to)
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", *upstream.Load())
			if err != nil {
				_ = client.Close()
				continue
			}
			forward := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				_ = to.Close()
			}
			go forward(client, server)
			go forward(server, client)
		}
	}()
	return listener.Addr().String(), func(addr string) { upstream.Store(&addr) }
}

// A server that was restored to an earlier point has walhook's slot and a WAL that ends before the stored position.
// Later changes arrive; changes lost in the restore fire nothing.
func TestSourceRestored(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, server, harness.SampleSchema).WithStore(testenv.Postgres(t))
	wire := harness.BehindWire(s, "DATABASE_URL", s.DB)
	s.Exec(beforeGap)
	d := s.Run()
	s.Hooks()
	backup := testenv.CopyServer(t, server, nil)
	d.Ready()
	harness.FillWAL(s, 20)
	s.Exec("insert into respondent (id, assessment_id) values (8, 1); update respondent set started_at = null where id = 4")
	s.Expect("/hook", "created 8")

	wire.Cut()
	server.Kill()
	s.MoveTo(backup)
	s.Exec(gapHistory)
	wire.Redirect(harness.HostPort(backup))
	wire.Restore()
	harness.WaitResolved(s, "server_restored")
	d.Ready()
	s.Exec("insert into respondent (id, assessment_id) values (8, 1)") // its first insert was lost in the restore
	s.Expect("/hook", append([]string{"created 8", "created 8"}, missedInGap...)...)
}

// Another slot with walhook's name starts where it was created: earlier changes are found by a comparison.
func TestAnotherSlotUnderTheName(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("running=%t", running), func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema)
			s.Exec(beforeGap)
			d := s.Run()
			s.Hooks()
			if running {
				// Stop it, so that it does not interfere between dropping and creating the slot.
				if err := d.Cmd.Process.Signal(syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			} else {
				d.Stop()
			}
			slot := s.Env["SLOT"]
			s.Exec("select pg_terminate_backend(active_pid) from pg_replication_slots where active and slot_name = $1", slot)
			testenv.Eventually(t, harness.Patience, "the slot to be dropped", func() (bool, string) {
				err := testenv.TryExec(s.DB, "select pg_drop_replication_slot($1)", slot)
				return err == nil, fmt.Sprint(err)
			})
			s.Exec(gapHistory)
			s.Exec("select pg_create_logical_replication_slot($1, 'pgoutput')", slot)
			if running {
				if err := d.Cmd.Process.Signal(syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
			} else {
				s.Start()
			}
			harness.WaitResolved(s, "slot_foreign")
			expectRecovered(s, "/hook", missedInGap...)
		})
	}
}

// PostgreSQL 18 can invalidate a slot that nobody has read for a while.
func TestIdleSlotInvalidated(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	testenv.NeedsVersion(t, server, 180000, "idle_replication_slot_timeout")
	s := harness.NewSiteOn(t, server, harness.SampleSchema).WithStore(testenv.Postgres(t))
	s.Exec(beforeGap)
	d := s.Run()
	s.Hooks()
	d.Stop()
	s.Exec(gapHistory)
	s.Exec("alter system set idle_replication_slot_timeout = '1s'")
	s.Exec("select pg_reload_conf()")
	testenv.Eventually(t, harness.Patience, "the slot to be invalidated", func() (bool, string) {
		s.Exec("checkpoint")
		got := testenv.Psql(t, s.DB, "select invalidation_reason from pg_replication_slots where slot_name = '"+s.Env["SLOT"]+"'")
		return got == "idle_timeout", got
	})
	s.Exec("alter system reset idle_replication_slot_timeout")
	s.Exec("select pg_reload_conf()")
	s.Start()
	harness.WaitResolved(s, "slot_lost")
	expectRecovered(s, "/hook", missedInGap...)
}

// However often a comparison is killed halfway, its findings fire once.
func TestKilledWhileMending(t *testing.T) {
	t.Parallel()
	const n = 60000
	s := harness.NewSite(t, harness.SampleSchema)
	s.Exec("insert into respondent (id, assessment_id) select g, 1 from generate_series(1, $1::int) g", n)
	d := s.Run()
	s.Hook("/hook", "completed")
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{Hang: true})) // only queueing matters
	d.Stop()
	s.Exec("update respondent set finished_at = now()")
	s.DropSlot()
	for _, at := range []string{"creating slot", "comparing", "comparing", "comparing"} {
		d = s.Start()
		testenv.Eventually(t, harness.Patience, "the daemon to be "+at, func() (bool, string) {
			if at == "creating slot" {
				return strings.Contains(d.Log.String(), at), d.Log.String()
			}
			// Its transaction has written, but is not committed.
			got := testenv.Psql(t, s.Store, "select count(*) from pg_stat_activity where application_name like 'walhook%' and datname = current_database() and backend_xid is not null")
			return got != "0", got
		})
		d.Kill()
		if queued := testenv.Value[int](t, s.Store, "select count(*)::int from walhook.queue"); queued != 0 && queued != n {
			t.Fatalf("a comparison that was killed halfway left %d deliveries", queued)
		}
	}
	s.Start().Ready()
	s.WaitStored()
	got := testenv.Psql(t, s.Store, "select count(*), count(distinct response_id), count(distinct message_id), bool_and(recovered) from walhook.delivery_log")
	if want := fmt.Sprintf("%d|%d|%d|t", n, n, n); got != want {
		t.Errorf("the log has %s (deliveries, responses, ids, all recovered), not %s", got, want)
	}
	if open := testenv.Psql(t, s.Store, "select kind from walhook.incident where resolved_at is null"); open != "" {
		t.Errorf("open incidents: %s", open)
	}
}

// One of two daemons reads; if it is killed the other takes over, and if it is stopped, immediately.
func TestTakeover(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	first := s.Run()
	s.Hooks()
	first.Readyz(200, "streaming")
	second := s.Start()
	second.Readyz(200, "standing by")
	harness.MustFail(s.With("FINISHED", "started_at"), "run", `WALHOOK_FINISHED  `) // refused at startup, not only when it is needed
	s.With("FINISHED", "finished_at")
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/hook", "created 1")

	first.Kill()
	s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
	second.Readyz(200, "streaming")
	s.Expect("/hook", "created 1", "created 2")
	harness.WaitIncident(s, "takeover", fmt.Sprintf("daemon [^ ]+/%d reads the slot", second.Cmd.Process.Pid))
	harness.WaitIncident(s, "takeover", fmt.Sprintf("daemon [^ ]+/%d stopped without signing off", first.Cmd.Process.Pid))

	third := s.Start()
	third.Readyz(200, "standing by")
	if status := second.Stop(); status != 0 {
		t.Errorf("stop: status %d", status)
	}
	s.Exec("insert into respondent (id, assessment_id) values (3, 1)")
	third.Readyz(200, "streaming")
	s.Expect("/hook", "created 1", "created 2", "created 3")
	harness.WaitIncident(s, "takeover", fmt.Sprintf("daemon [^ ]+/%d reads the slot", third.Cmd.Process.Pid))
	if n := testenv.Value[int](t, s.Store, "select count(*)::int from walhook.incident where resolved_at is null"); n != 0 {
		t.Errorf("%d incidents are open", n)
	}
}

// In a restored store, another daemon may have the same number as a live one. That one must not disturb it, and take
// another number.
func TestNumberOfAnotherDaemon(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	s.Hooks()
	id := testenv.Value[int64](t, s.Store, "select id from walhook.daemon")
	other := testenv.Connect(t, s.Store)
	locked := make(chan error, 1)
	go func() {
		_, err := other.Exec(context.Background(), "select pg_advisory_lock($1, $2)", harness.LockClass, id)
		locked <- err
	}()
	const waits = "select count(*)::int from pg_locks where locktype = 'advisory' and not granted"
	testenv.Eventually(t, harness.Patience, "the other one to wait", func() (bool, string) { return testenv.Value[int](t, s.Store, waits) == 1, "" })
	testenv.Exec(t, s.Store, "update walhook.daemon set name = 'other/1', expires_at = now() + interval '1 hour'")
	testenv.Exec(t, s.Store, "select pg_terminate_backend(l.pid) from pg_locks l join pg_database d on d.oid = l.database and d.datname = current_database() where l.locktype = 'advisory' and l.granted and l.classid = $1", harness.LockClass)
	if err := <-locked; err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, harness.Patience, "the daemon to take another number", func() (bool, string) {
		n := testenv.Value[int](t, s.Store, "select count(*)::int from walhook.daemon where id <> $1 and name like '%/' || $2", id, fmt.Sprint(d.Cmd.Process.Pid))
		return n == 1, d.Log.String()
	})
	if _, err := other.Exec(t.Context(), "select 1"); err != nil {
		t.Errorf("the other daemon's session was ended: %v", err)
	}
	testenv.Exec(t, s.Store, "delete from walhook.daemon where id = $1", id)
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/hook", "created 1")
}

// If numbers repeat, another daemon may hold the lock of the number that a daemon gets. It takes the next number.
func TestNumberIsTaken(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Attach()
	other := testenv.Connect(t, s.Store)
	if _, err := other.Exec(t.Context(), "select pg_advisory_lock($1, 1)", harness.LockClass); err != nil {
		t.Fatal(err)
	}
	d := s.Start().Ready()
	if got := testenv.Psql(t, s.Store, "select string_agg(id::text, ',') from walhook.daemon"); got != "2" {
		t.Errorf("daemons %s are registered, not 2: %s", got, d.Log.String())
	}
	if _, err := other.Exec(t.Context(), "select 1"); err != nil {
		t.Errorf("the other daemon's session was ended: %v", err)
	}
}

// A silent walsender is detected and replaced.
func TestFrozenWalsender(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, server, harness.SampleSchema)
	d := s.Run()
	s.Hooks()
	pid := testenv.Value[int](t, s.DB, "select active_pid from pg_replication_slots where slot_name = $1", s.Env["SLOT"])
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	testenv.Eventually(t, 2*harness.Patience, "the daemon to find out", func() (bool, string) {
		status, body := d.Get("/readyz")
		return status == 503, body
	})
	testenv.Eventually(t, harness.Patience, "the daemon to end the old walsender", func() (bool, string) {
		return strings.Contains(d.Log.String(), "terminated a stale walsender"), d.Log.String()
	})
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	d.Ready()
	s.Expect("/hook", "created 1")
	if still := testenv.Value[bool](t, s.DB, "select exists (select from pg_stat_activity where pid = $1)", pid); still {
		t.Error("the frozen walsender still occupies the slot")
	}
}

// While the store's server is down, the application can write as usual. Afterwards everything arrives, once.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	const n = 4000
	store := testenv.NewServer(t, nil)
	s := harness.NewSite(t, harness.SampleSchema).WithStore(store)
	d := s.Run()
	s.Hook("/hook", "created")
	s.Hook("/hook", "started")
	wait := writers(s, n)
	queued(s, 100)
	store.Kill()
	d.Readyz(503, "")
	wait() // fails the test if a write fails
	s.Up(store)
	d.Ready()
	harness.CheckExactlyOnce(s, n, "created", "started")
}

// Pending deliveries, including a test and a redelivery, keep their webhook-id when the application moves to another
// server, and through detach and attach.
func TestMessageIDsOutliveTheSource(t *testing.T) {
	t.Parallel()
	before, after := testenv.NewServer(t, nil), testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, before, harness.SampleSchema).WithStore(testenv.Postgres(t)).With("MAX_ATTEMPTS", "1000")
	wire := harness.BehindWire(s, "DATABASE_URL", s.DB)
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	d := s.Run()
	hook := s.Hook("/hook", "started", "ordered", "false")
	s.Exec("update respondent set started_at = now()")
	s.Expect("/hook", "started 1")
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{Status: 500}))
	testenv.Psql(t, s.Store, fmt.Sprintf("select walhook.redeliver(max(delivery_id)), walhook.test_webhook(%d, '1') from walhook.delivery_log", hook))
	s.Exec("insert into respondent (id, assessment_id, started_at) values (2, 1, now())")
	const ids = "select q.kind, l.message_id from walhook.queue q join walhook.delivery_log l using (delivery_id) where q.delivery_id <= 4 order by 1"
	s.WaitLog("select count(*) filter (where attempts > 0) from walhook.delivery_log where status = 'pending'", "3")
	want := testenv.Psql(t, s.Store, ids)

	wire.Cut()
	before.Kill()
	testenv.Exec(t, after.URL("postgres"), "create database "+s.Database())
	s.MoveTo(after)
	s.Exec(harness.SampleSchema + "; insert into respondent (id, assessment_id, started_at) values (1, 1, now()), (2, 1, now()), (3, 1, now())")
	wire.Redirect(harness.HostPort(after))
	wire.Restore()
	d.Readyz(503, "walhook attach --adopt")
	if _, errOut, status := s.Walhook("attach", "--adopt"); status != 0 {
		t.Fatalf("attach --adopt: status %d\n%s", status, errOut)
	}
	s.WaitLog("select count(*) from walhook.delivery_log where recovered and response_id = '3' and attempts > 0", "1")
	if got := testenv.Psql(t, s.Store, ids); got != want {
		t.Errorf("on another server the ids of pending deliveries became\n%s\ninstead of\n%s", got, want)
	}
	d.Stop()
	if _, errOut, status := s.Walhook("detach"); status != 0 {
		t.Fatalf("detach: status %d\n%s", status, errOut)
	}
	s.Attach()
	if got := testenv.Psql(t, s.Store, ids); got != want {
		t.Errorf("after another attach the ids of pending deliveries became\n%s\ninstead of\n%s", got, want)
	}
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	s.Start().Ready()
	s.Exec("insert into respondent (id, assessment_id, started_at) values (4, 1, now())")
	s.WaitLog("select count(*) from walhook.delivery_log where status = 'success'", "6")
	harness.CheckMessageIDs(s)
}
