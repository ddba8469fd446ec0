package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"walhook/testenv"
	"walhook/testenv/pgserver"
)

// behindWire puts a wire between the daemons and the database that a variable names.
func (s *site) behindWire(variable, database string) (wire *testenv.Wire) {
	s.t.Helper()
	s.detour(variable, database, func(upstream string) string {
		wire = testenv.NewWire(s.t, upstream)
		return wire.Addr()
	})
	return wire
}

// detour lets a variable name a database by the address of what stands before it.
func (s *site) detour(variable, database string, before func(upstream string) (addr string)) {
	s.t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		s.t.Fatal(err)
	}
	u.Host = before(u.Host)
	s.with(variable, u.String())
}

// moveTo makes another server the application's, with a database of the same name.
func (s *site) moveTo(server *pgserver.Server) {
	s.t.Helper()
	s.db = server.URL(s.database())
}

// database returns the name of the application's database.
func (s *site) database() string {
	s.t.Helper()
	u, err := url.Parse(s.db)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Trim(u.Path, "/")
}

// resolved waits until an incident of the kind has been resolved.
func (s *site) resolved(kind string) {
	s.t.Helper()
	testenv.Eventually(s.t, patience, "a resolved incident of kind "+kind, func() (bool, string) {
		n := testenv.Value[int](s.t, s.store, "select count(*)::int from walhook.incident where kind = $1 and resolved_at is not null", kind)
		return n > 0, testenv.Psql(s.t, s.store, "select kind, detail, resolved_at from walhook.incident")
	})
}

// told waits until there is an incident of the kind whose detail matches.
func (s *site) told(kind, pattern string) {
	s.t.Helper()
	testenv.Eventually(s.t, patience, "an incident of kind "+kind+" that says "+pattern, func() (bool, string) {
		n := testenv.Value[int](s.t, s.store, "select count(*)::int from walhook.incident where kind = $1 and detail ~ $2", kind, pattern)
		return n > 0, testenv.Psql(s.t, s.store, "select kind, detail from walhook.incident")
	})
}

func hostPort(server *pgserver.Server) string { return fmt.Sprintf("127.0.0.1:%d", server.Port()) }

// A standby that is promoted has no slot of ours (before PostgreSQL 17 none has). What the application wrote there before the
// daemon came is not lost.
func TestStandbyPromoted(t *testing.T) {
	t.Parallel()
	primary := testenv.NewServer(t, nil)
	s := newSiteOn(t, primary, sampleSchema).withStore(testenv.Postgres(t))
	wire := s.behindWire("DATABASE_URL", s.db)
	standby := testenv.CopyServer(t, primary, map[string]string{
		"primary_conninfo": fmt.Sprintf("host=127.0.0.1 port=%d user=postgres", primary.Port()),
	}, "standby.signal")
	s.exec(beforeGap)
	d := s.run()
	s.hooks()
	s.exec("insert into respondent (id, assessment_id) values (7, 1)")
	s.expect("/hook", "created 7")
	end := testenv.Psql(t, s.db, "select pg_current_wal_lsn()")
	testenv.Eventually(t, patience, "the standby to have replayed everything", func() (bool, string) {
		got := testenv.Psql(t, standby.URL("postgres"), "select pg_last_wal_replay_lsn() >= '"+end+"'")
		return got == "t", got
	})

	wire.Cut()
	primary.Kill()
	testenv.Exec(t, standby.URL("postgres"), "select pg_promote()")
	s.moveTo(standby)
	s.exec(gapHistory)
	wire.Redirect(hostPort(standby))
	wire.Restore()
	s.resolved("slot_lost")
	d.ready()
	s.exec("update respondent set finished_at = now() where id = 10")
	s.expect("/hook", append(append([]string{"created 7"}, missedInGap...), "completed 10")...)
	if n := testenv.Value[int](t, s.store, "select count(*)::int from walhook.delivery_log where recovered"); n != len(missedInGap) {
		t.Errorf("%d deliveries are marked as recovered, not %d", n, len(missedInGap))
	}
}

// After a failover the old server may stay up, and connections to it stay open where only new ones are led to the new one. What the
// daemon asks about the source it then asks the new server.
func TestFailoverBesideTheOldServer(t *testing.T) {
	t.Parallel()
	primary := testenv.NewServer(t, nil)
	s := newSiteOn(t, primary, sampleSchema).withStore(testenv.Postgres(t))
	var lead func(addr string)
	s.detour("DATABASE_URL", s.db, func(upstream string) (addr string) {
		addr, lead = switchboard(t, upstream)
		return addr
	})
	standby := testenv.CopyServer(t, primary, map[string]string{
		"primary_conninfo": fmt.Sprintf("host=127.0.0.1 port=%d user=postgres", primary.Port()),
	}, "standby.signal")
	d := s.run()
	s.hook("/hook", "created")
	s.exec("insert into respondent (id, assessment_id) values (7, 1)")
	s.expect("/hook", "created 7")
	end := testenv.Psql(t, s.db, "select pg_current_wal_lsn()")
	testenv.Eventually(t, patience, "the standby to have replayed everything", func() (bool, string) {
		got := testenv.Psql(t, standby.URL("postgres"), "select pg_last_wal_replay_lsn() >= '"+end+"'")
		return got == "t", got
	})
	old := s.db
	testenv.Exec(t, standby.URL("postgres"), "select pg_promote()")
	lead(hostPort(standby))
	s.moveTo(standby)
	testenv.Exec(t, old, "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'walsender' and application_name like 'walhook%'")
	s.resolved("slot_lost")
	d.ready()
	for range 200 { // transactions that the old server does not know
		s.exec("select pg_current_xact_id()")
	}
	s.exec("insert into respondent (id, assessment_id) values (8, 1)")
	s.expect("/hook", "created 7", "created 8")
	testenv.Eventually(t, patience, "the daemon to leave the old server", func() (bool, string) {
		left := testenv.Psql(t, old, "select string_agg(query, '; ') from pg_stat_activity where application_name like 'walhook%'")
		return left == "", left
	})
}

// switchboard forwards connections to where it leads as they are made.
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

// A server that was restored to an earlier point has our slot and a WAL that ends before what the store knows. What is written
// there afterwards arrives; what the restored rows have forgotten does not fire.
func TestSourceRestored(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := newSiteOn(t, server, sampleSchema).withStore(testenv.Postgres(t))
	wire := s.behindWire("DATABASE_URL", s.db)
	s.exec(beforeGap)
	d := s.run()
	s.hooks()
	backup := testenv.CopyServer(t, server, nil)
	d.ready()
	s.fillWAL(20)
	s.exec("insert into respondent (id, assessment_id) values (8, 1); update respondent set started_at = null where id = 4")
	s.expect("/hook", "created 8")

	wire.Cut()
	server.Kill()
	s.moveTo(backup)
	s.exec(gapHistory)
	wire.Redirect(hostPort(backup))
	wire.Restore()
	s.resolved("server_restored")
	d.ready()
	s.exec("insert into respondent (id, assessment_id) values (8, 1)") // its first life never was
	s.expect("/hook", append([]string{"created 8", "created 8"}, missedInGap...)...)
}

// Somebody else's slot under our name begins where it was made: what came before is compared.
func TestAnotherSlotUnderTheName(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("running=%t", running), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, sampleSchema)
			s.exec(beforeGap)
			d := s.run()
			s.hooks()
			if running {
				// Stopped, it does not come between the slot's end and its new beginning.
				if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			} else {
				d.stop()
			}
			slot := s.env["SLOT"]
			s.exec("select pg_terminate_backend(active_pid) from pg_replication_slots where active and slot_name = $1", slot)
			testenv.Eventually(t, patience, "the slot to be dropped", func() (bool, string) {
				err := testenv.TryExec(s.db, "select pg_drop_replication_slot($1)", slot)
				return err == nil, fmt.Sprint(err)
			})
			s.exec(gapHistory)
			s.exec("select pg_create_logical_replication_slot($1, 'pgoutput')", slot)
			if running {
				if err := d.cmd.Process.Signal(syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
			} else {
				s.start()
			}
			s.resolved("slot_foreign")
			s.expectRecovered("/hook", missedInGap...)
		})
	}
}

// PostgreSQL 18 can invalidate a slot that nobody has read for a while.
func TestIdleSlotInvalidated(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	testenv.NeedsVersion(t, server, 180000, "idle_replication_slot_timeout")
	s := newSiteOn(t, server, sampleSchema).withStore(testenv.Postgres(t))
	s.exec(beforeGap)
	d := s.run()
	s.hooks()
	d.stop()
	s.exec(gapHistory)
	s.exec("alter system set idle_replication_slot_timeout = '1s'")
	s.exec("select pg_reload_conf()")
	testenv.Eventually(t, patience, "the slot to be invalidated", func() (bool, string) {
		s.exec("checkpoint")
		got := testenv.Psql(t, s.db, "select invalidation_reason from pg_replication_slots where slot_name = '"+s.env["SLOT"]+"'")
		return got == "idle_timeout", got
	})
	s.exec("alter system reset idle_replication_slot_timeout")
	s.exec("select pg_reload_conf()")
	s.start()
	s.resolved("slot_lost")
	s.expectRecovered("/hook", missedInGap...)
}

// However often the comparison is killed half-way, what it finds is fired once.
func TestKilledWhileMending(t *testing.T) {
	t.Parallel()
	const n = 60000
	s := newSite(t, sampleSchema)
	s.exec("insert into respondent (id, assessment_id) select g, 1 from generate_series(1, $1::int) g", n)
	d := s.run()
	s.hook("/hook", "completed")
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{Hang: true})) // queued is what counts
	d.stop()
	s.exec("update respondent set finished_at = now()")
	s.dropSlot()
	for _, at := range []string{"creating slot", "comparing", "comparing", "comparing"} {
		d = s.start()
		testenv.Eventually(t, patience, "the daemon to be "+at, func() (bool, string) {
			if at == "creating slot" {
				return strings.Contains(d.log.String(), at), d.log.String()
			}
			// Its transaction has written what nobody sees yet.
			got := testenv.Psql(t, s.store, "select count(*) from pg_stat_activity where application_name like 'walhook%' and datname = current_database() and backend_xid is not null")
			return got != "0", got
		})
		d.kill()
		if queued := testenv.Value[int](t, s.store, "select count(*)::int from walhook.queue"); queued != 0 && queued != n {
			t.Fatalf("killed half-way, it left %d deliveries", queued)
		}
	}
	s.start().ready()
	s.waitStored()
	got := testenv.Psql(t, s.store, "select count(*), count(distinct response_id), count(distinct message_id), bool_and(recovered) from walhook.delivery_log")
	if want := fmt.Sprintf("%d|%d|%d|t", n, n, n); got != want {
		t.Errorf("the log has %s (deliveries, responses, ids, all recovered), not %s", got, want)
	}
	if open := testenv.Psql(t, s.store, "select kind from walhook.incident where resolved_at is null"); open != "" {
		t.Errorf("open incidents: %s", open)
	}
}

// Of two daemons one works; when it is killed the other takes over, and when it is stopped at once.
func TestTakeover(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema)
	first := s.run()
	s.hooks()
	first.readyz(200, "streaming")
	second := s.start()
	second.readyz(200, "standing by")
	s.with("FINISHED", "started_at").mustFail("run", "WALHOOK_FINISHED was") // and not when it is needed
	s.with("FINISHED", "finished_at")
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.expect("/hook", "created 1")

	first.kill()
	s.exec("insert into respondent (id, assessment_id) values (2, 1)")
	second.readyz(200, "streaming")
	s.expect("/hook", "created 1", "created 2")
	s.told("takeover", fmt.Sprintf("daemon [^ ]+/%d reads the slot", second.cmd.Process.Pid))
	s.told("takeover", fmt.Sprintf("daemon [^ ]+/%d ended without a word", first.cmd.Process.Pid))

	third := s.start()
	third.readyz(200, "standing by")
	if status := second.stop(); status != 0 {
		t.Errorf("stop: status %d", status)
	}
	s.exec("insert into respondent (id, assessment_id) values (3, 1)")
	third.readyz(200, "streaming")
	s.expect("/hook", "created 1", "created 2", "created 3")
	s.told("takeover", fmt.Sprintf("daemon [^ ]+/%d reads the slot", third.cmd.Process.Pid))
	if n := testenv.Value[int](t, s.store, "select count(*)::int from walhook.incident where resolved_at is null"); n != 0 {
		t.Errorf("%d incidents are open", n)
	}
}

// lockClass is the first key of the lock that each daemon holds in the store. The second one is its number.
const lockClass = 0x77686b64

// In a store that was restored another daemon may have got the number of one that lives. That one leaves it alone and takes another.
func TestNumberOfAnotherDaemon(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema)
	d := s.run()
	s.hooks()
	id := testenv.Value[int64](t, s.store, "select id from walhook.daemon")
	other := testenv.Connect(t, s.store)
	locked := make(chan error, 1)
	go func() {
		_, err := other.Exec(context.Background(), "select pg_advisory_lock($1, $2)", lockClass, id)
		locked <- err
	}()
	const waits = "select count(*)::int from pg_locks where locktype = 'advisory' and not granted"
	testenv.Eventually(t, patience, "the other one to wait", func() (bool, string) { return testenv.Value[int](t, s.store, waits) == 1, "" })
	testenv.Exec(t, s.store, "update walhook.daemon set name = 'other/1', expires_at = now() + interval '1 hour'")
	testenv.Exec(t, s.store, "select pg_terminate_backend(l.pid) from pg_locks l join pg_database d on d.oid = l.database and d.datname = current_database() where l.locktype = 'advisory' and l.granted and l.classid = $1", lockClass)
	if err := <-locked; err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, patience, "the daemon to take another number", func() (bool, string) {
		n := testenv.Value[int](t, s.store, "select count(*)::int from walhook.daemon where id <> $1 and name like '%/' || $2", id, fmt.Sprint(d.cmd.Process.Pid))
		return n == 1, d.log.String()
	})
	if _, err := other.Exec(t.Context(), "select 1"); err != nil {
		t.Errorf("the other daemon's session was ended: %v", err)
	}
	testenv.Exec(t, s.store, "delete from walhook.daemon where id = $1", id)
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.expect("/hook", "created 1")
}

// A session of another daemon has the lock of the number that one is given, which numbers that repeat lead to. It takes the next.
func TestNumberIsTaken(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema)
	s.attach()
	other := testenv.Connect(t, s.store)
	if _, err := other.Exec(t.Context(), "select pg_advisory_lock($1, 1)", lockClass); err != nil {
		t.Fatal(err)
	}
	d := s.start().ready()
	if got := testenv.Psql(t, s.store, "select string_agg(id::text, ',') from walhook.daemon"); got != "2" {
		t.Errorf("daemons %s are registered, not 2: %s", got, d.log.String())
	}
	if _, err := other.Exec(t.Context(), "select 1"); err != nil {
		t.Errorf("the other daemon's session was ended: %v", err)
	}
}

// A walsender that is there and says nothing is found out and replaced.
func TestFrozenWalsender(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := newSiteOn(t, server, sampleSchema)
	d := s.run()
	s.hooks()
	pid := testenv.Value[int](t, s.db, "select active_pid from pg_replication_slots where slot_name = $1", s.env["SLOT"])
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	testenv.Eventually(t, 2*patience, "the daemon to find out", func() (bool, string) {
		status, body := d.get("/readyz")
		return status == 503, body
	})
	testenv.Eventually(t, patience, "the daemon to end the old walsender", func() (bool, string) {
		return strings.Contains(d.log.String(), "told a walsender"), d.log.String()
	})
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	d.ready()
	s.expect("/hook", "created 1")
	if still := testenv.Value[bool](t, s.db, "select exists (select from pg_stat_activity where pid = $1)", pid); still {
		t.Error("the frozen walsender still holds its place")
	}
}

// The store's server is away while the application writes on: it notices nothing, and everything arrives afterwards, once.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	const n = 4000
	store := testenv.NewServer(t, nil)
	s := newSite(t, sampleSchema).withStore(store)
	d := s.run()
	s.hook("/hook", "created")
	s.hook("/hook", "started")
	wait := s.writers(n)
	s.queued(100)
	store.Kill()
	d.readyz(503, "")
	wait() // fails the test where a write fails
	s.up(store)
	d.ready()
	s.exactlyOnce(n, "created", "started")
}

// The webhook-id of what is pending, a test and a redelivery among it, stays when the application moves to another server, and
// when it is detached and attached again.
func TestMessageIDsOutliveTheSource(t *testing.T) {
	t.Parallel()
	before, after := testenv.NewServer(t, nil), testenv.NewServer(t, nil)
	s := newSiteOn(t, before, sampleSchema).withStore(testenv.Postgres(t)).with("MAX_ATTEMPTS", "1000")
	wire := s.behindWire("DATABASE_URL", s.db)
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	d := s.run()
	hook := s.hook("/hook", "started", "ordered", "false")
	s.exec("update respondent set started_at = now()")
	s.expect("/hook", "started 1")
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{Status: 500}))
	testenv.Psql(t, s.store, fmt.Sprintf("select walhook.redeliver(max(delivery_id)), walhook.test_webhook(%d, '1') from walhook.delivery_log", hook))
	s.exec("insert into respondent (id, assessment_id, started_at) values (2, 1, now())")
	const ids = "select kind, message_id from walhook.queue q join walhook.delivery_log l using (delivery_id) where q.delivery_id <= 4 order by 1"
	s.waitLog("select count(*) filter (where attempts > 0) from walhook.delivery_log where status = 'pending'", "3")
	want := testenv.Psql(t, s.store, ids)

	wire.Cut()
	before.Kill()
	testenv.Exec(t, after.URL("postgres"), "create database "+s.database())
	s.moveTo(after)
	s.exec(sampleSchema + "; insert into respondent (id, assessment_id, started_at) values (1, 1, now()), (2, 1, now()), (3, 1, now())")
	wire.Redirect(hostPort(after))
	wire.Restore()
	d.readyz(503, "walhook attach --adopt")
	if _, errOut, status := s.walhook("attach", "--adopt"); status != 0 {
		t.Fatalf("attach --adopt: status %d\n%s", status, errOut)
	}
	s.waitLog("select count(*) from walhook.delivery_log where recovered and response_id = '3' and attempts > 0", "1")
	if got := testenv.Psql(t, s.store, ids); got != want {
		t.Errorf("on another server the ids of what was pending became\n%s\ninstead of\n%s", got, want)
	}
	d.stop()
	if _, errOut, status := s.walhook("detach"); status != 0 {
		t.Fatalf("detach: status %d\n%s", status, errOut)
	}
	s.attach()
	if got := testenv.Psql(t, s.store, ids); got != want {
		t.Errorf("attached again, the ids of what was pending became\n%s\ninstead of\n%s", got, want)
	}
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	s.start().ready()
	s.exec("insert into respondent (id, assessment_id, started_at) values (4, 1, now())")
	s.waitLog("select count(*) from walhook.delivery_log where status = 'success'", "6")
	s.checkMessageIDs()
}
