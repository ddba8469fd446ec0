package stream

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
	"walhook/testenv/pgserver"
)

// The store commits, but the connection breaks before the daemon learns about it: nothing is queued again.
func TestStoreCommitOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	const rounds, each = 4, 25
	s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.Postgres(t))
	wire := harness.BehindWire(s, "STORE_URL", s.Store)
	d := s.Run()
	s.Hook("/hook", "created")
	// A commit that queues something blocks at the very end, when only an error could change its outcome, while the gate is
	// closed.
	testenv.Exec(t, s.Store, `
		create function public.dawdle() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(7); return null; end $$;
		create constraint trigger dawdle after insert on walhook.queue deferrable initially deferred for each row execute function public.dawdle()`)
	gate := testenv.Connect(t, s.Store)
	at := func(do string) {
		if _, err := gate.Exec(t.Context(), "select "+do+"(7)"); err != nil {
			t.Fatal(err)
		}
	}
	const dawdling = "select count(*) from pg_locks where locktype = 'advisory' and objid = 7 and objsubid = 1 and pid <> pg_backend_pid() and %s"
	committing := func(what, state string, want bool) {
		t.Helper()
		testenv.Eventually(t, harness.Patience, what, func() (bool, string) {
			got := testenv.Psql(t, s.Store, fmt.Sprintf(dawdling, state))
			return (got != "0") == want, got
		})
	}
	for round := range rounds {
		at("pg_advisory_lock")
		s.Exec("insert into respondent (id, assessment_id) select g, 1 from generate_series($1::int, $2::int) g", round*each+1, (round+1)*each)
		committing("the store to be committing", "not granted", true)
		wire.Cut()
		at("pg_advisory_unlock")
		committing("the store to have committed", "mode = 'ShareLock'", false)
		if got := testenv.Value[int](t, s.Store, "select count(*)::int from walhook.delivery_log"); got <= round*each {
			t.Errorf("the store has %d deliveries: the commit whose answer was lost did not happen", got)
		}
		wire.Restore()
		d.Ready()
		queued(s, int64((round+1)*each))
	}
	testenv.Exec(t, s.Store, "drop trigger dawdle on walhook.queue")
	harness.CheckExactlyOnce(s, rounds*each, "created")
}

// The store's server may take a moment to end the session that found a gap, which holds the reader lock: the daemon
// that found the gap closes it, and records what it found.
func TestGapIsClosedByTheOneWhoFoundIt(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.NewServer(t, nil)) // others would wait for a process that is stopped
	s.Exec(beforeGap)
	d := s.Run()
	s.Hooks()
	s.Exec("alter publication walhook drop table respondent; " + gapHistory)
	stopReader(s, func() {
		testenv.Eventually(t, harness.Patience, "the gap to be found", func() (bool, string) {
			return strings.Contains(d.Log.String(), "the stream may have missed changes"), d.Log.String()
		})
		time.Sleep(time.Second)
	})
	s.Expect("/hook", missedInGap...)
	d.Ready()
	if got := testenv.Psql(t, s.Store, "select kind, resolved_at is not null from walhook.incident where kind <> 'reconcile'"); got != "publication_changed|t" {
		t.Errorf("incidents are %q", got)
	}
	if log := d.Log.String(); strings.Contains(log, "reconnecting") {
		t.Errorf("the gap was not closed immediately:\n%s", log)
	}
}

// A reader's old session that the store's server is slow to end after its connection broke is not another daemon: no
// takeover is reported.
func TestOwnSessionIsNoOtherDaemon(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.NewServer(t, nil)) // others would wait for a process that is stopped
	wire := harness.BehindWire(s, "STORE_URL", s.Store)
	d := s.Run()
	s.Hook("/hook", "created")
	stopReader(s, func() {
		wire.Cut()
		wire.Restore()
		testenv.Eventually(t, harness.Patience, "the daemon to meet its last session", func() (bool, string) {
			return strings.Contains(d.Log.String(), "has not ended the last session of this daemon"), d.Log.String()
		})
		d.Readyz(503, "has not ended the last session of this daemon")
	})
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/hook", "created 1")
	if got := testenv.Psql(t, s.Store, "select kind, detail from walhook.incident"); got != "" {
		t.Errorf("incidents are %q", got)
	}
}

// stopReader runs a function while the store's server process that holds the reader lock is stopped.
func stopReader(s *harness.Site, while func()) {
	s.T.Helper()
	reader := testenv.Value[int](s.T, s.Store, "select l.pid from pg_locks l join pg_database d on d.oid = l.database where l.locktype = 'advisory' and l.objsubid = 1 and d.datname = current_database()")
	signal := func(what syscall.Signal) {
		if err := syscall.Kill(reader, what); err != nil {
			s.T.Errorf("%s to the session that holds the lock: %v", what, err)
		}
	}
	signal(syscall.SIGSTOP)
	defer signal(syscall.SIGCONT) // even if the test fails meanwhile
	while()
}

// lockStore blocks writes to a table of the store until the returned function is called.
func lockStore(s *harness.Site, table string) (release func()) {
	s.T.Helper()
	locker := testenv.Connect(s.T, s.Store)
	exec := func(statement string) {
		s.T.Helper()
		if _, err := locker.Exec(s.T.Context(), statement); err != nil {
			s.T.Fatal(err)
		}
	}
	exec("begin; lock table " + table + " in share mode")
	return func() { exec("commit") }
}

// holdComparison causes a gap, and keeps the daemon's comparison from finishing until the returned function is called.
func holdComparison(s *harness.Site, d *harness.Daemon) (release func()) {
	s.T.Helper()
	release = lockStore(s, "walhook.response_state")
	s.Exec("alter publication walhook drop table respondent; " + gapHistory)
	testenv.Eventually(s.T, harness.Patience, "the store to wait for a lock", func() (bool, string) {
		got := testenv.Psql(s.T, s.Store, "select query from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0 and datname = current_database()")
		return got != "", "none does"
	})
	d.Readyz(503, "reconciling: ")
	return release
}

// While somebody holds a lock in the store that the stream waits for, /readyz reports it, gaps are detected and
// reported, and the application can keep writing.
func TestStoreIsLocked(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.Postgres(t))
	s.Exec(beforeGap)
	d := s.Run()
	s.Hooks()
	release := lockStore(s, "walhook.queue")
	s.Exec("insert into respondent (id, assessment_id) values (9, 1)")
	d.Readyz(503, "the store has been at one transaction of the stream for")
	s.Exec("alter publication walhook drop table respondent")
	d.Readyz(503, "lacks table public.respondent")
	s.Exec("alter table respondent drop constraint respondent_pkey; alter publication walhook add table respondent")
	s.WritesAgain()
	s.Exec(gapHistory)
	s.Exec("alter table respondent add primary key (id)")
	release()
	d.Ready()
	s.Expect("/hook", append(missedInGap, "created 9")...)
}

// A comparison may take long. Even then, a table whose updates PostgreSQL would refuse is taken out of the publication.
func TestReplicaIdentityLostWhileComparing(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.Postgres(t))
	s.Exec(beforeGap)
	d := s.Run()
	s.Hooks()
	release := holdComparison(s, d)
	s.Exec("alter table respondent drop constraint respondent_pkey")
	s.WritesAgain()
	s.Exec("insert into respondent (id, assessment_id) values (11, 1); alter table respondent add primary key (id)")
	release()
	s.Expect("/hook", append(missedInGap, "created 11")...)
	d.Ready()
}

// Deliveries are sent before the store's disk has them. Those that a crash loses are queued again with the same
// webhook-id, since the slot has not been acknowledged that far, and their delivery ids are not assigned again.
func TestStoreCrashTakesBackCommits(t *testing.T) {
	t.Parallel()
	const rounds, each = 3, 40
	store := testenv.NewServer(t, map[string]string{"wal_writer_delay": "10s"})
	s := harness.NewSite(t, harness.SampleSchema).WithStore(store)
	d := s.Run()
	s.Hook("/hook", "created")
	lost := 0
	for round := range rounds {
		s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{Hang: true})) // an answer would be recorded in a synchronous commit
		if err := syscall.Kill(testenv.Value[int](t, s.Store, "select pid from pg_stat_activity where backend_type = 'walwriter'"), syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		before := len(s.Receiver.Bodies("/hook"))
		for id := round*each + 1; id <= (round+1)*each; id++ {
			s.Exec("insert into respondent (id, assessment_id) values ($1, 1)", id)
		}
		s.WaitRequests("/hook", before+8) // as many as may be in flight
		store.Kill()
		if err := d.Cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		s.Up(store)
		confirmed := testenv.Psql(t, s.DB, "select confirmed_flush_lsn from pg_replication_slots where slot_name = '"+s.Env["SLOT"]+"'")
		if behind := testenv.Psql(t, s.Store, "select lsn from walhook.position where lsn < '"+confirmed+"'"); behind != "" {
			t.Fatalf("the slot was acknowledged up to %s but the store is back at %s", confirmed, behind)
		}
		lost += (round+1)*each - testenv.Value[int](t, s.Store, "select count(*)::int from walhook.delivery_log")
		if err := d.Cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		s.Receiver.Respond("/hook", nil)
		d.Ready()
		s.Fence()
	}
	if lost == 0 {
		t.Error("the crashes lost nothing, so nothing was sent again")
	}
	s.Receiver.Respond("/hook", nil)
	harness.CheckExactlyOnce(s, rounds*each, "created")
}

// A store with a full disk accepts nothing until there is room again. The stream waits, reports why, and loses nothing.
// (The server's files cannot grow, which to a server is like a full disk, except for the error number.)
func TestStoreDiskFull(t *testing.T) {
	t.Parallel()
	const n = 20000
	store := testenv.NewServerWith(t, pgserver.Options{SegmentMB: 1})
	s := harness.NewSite(t, harness.SampleSchema).WithStore(store)
	d := s.Run()
	s.Hook("/hook", "created")
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{Hang: true}))
	store.Halt(syscall.SIGINT)
	store.LimitFiles(1 << 20)
	s.Up(store)
	d.Ready()

	s.Exec("insert into respondent (id, assessment_id) select g, 1 from generate_series(1, $1::int) g", n)
	d.Readyz(503, "could not extend file")
	s.Exec("update respondent set page = 1 where id = 1") // the application continues

	store.Halt(syscall.SIGINT)
	store.LimitFiles(0)
	s.Up(store)
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	d.Ready()
	harness.CheckExactlyOnce(s, n, "created")
}

// A stop while the store refuses a commit writes neither what was refused nor the position after it.
func TestStopWhileCommitFails(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.Postgres(t))
	d := s.Run()
	s.Hook("/hook", "created")
	testenv.Exec(t, s.Store, `
		create function public.refuse() returns trigger language plpgsql as $$ begin perform pg_sleep(1); raise exception 'no room'; end $$;
		create constraint trigger refuse after insert on walhook.queue deferrable initially deferred for each row execute function public.refuse()`)
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	testenv.Eventually(t, harness.Patience, "the store to be committing", func() (bool, string) {
		got := testenv.Psql(t, s.Store, "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'")
		return got != "0", got
	})
	d.Stop()
	testenv.Exec(t, s.Store, "drop trigger refuse on walhook.queue")
	s.Start().Ready()
	harness.CheckExactlyOnce(s, 1, "created")
}

// A balancer drops the daemon's connections to a database and keeps those to the server open, so that the server never
// learns of it. The daemon ends the sessions that it has lost, and continues.
func TestBalancerKeepsLostSessions(t *testing.T) {
	t.Parallel()
	for name, database := range map[string]func(*harness.Site) (variable, url string){
		"store":  func(s *harness.Site) (string, string) { return "STORE_URL", s.Store },
		"source": func(s *harness.Site) (string, string) { return "DATABASE_URL", s.DB },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.Postgres(t)).Attach()
			variable, address := database(s)
			var drop func()
			harness.Detour(s, variable, address, func(upstream string) (addr string) {
				addr, drop = balancer(t, upstream)
				return addr
			})
			d := s.Start().Ready()
			s.Hook("/hook", "created")
			for id := 1; id <= 3; id++ {
				s.Exec("insert into respondent (id, assessment_id) values ($1, 1)", id)
				s.WaitRequests("/hook", id)
				drop()
			}
			s.Expect("/hook", "created 1", "created 2", "created 3")
			d.Readyz(200, "streaming")
			if got := testenv.Psql(t, s.Store, "select kind, detail from walhook.incident"); got != "" {
				t.Errorf("incidents are %q", got)
			}
			if name != "store" {
				return
			}
			last := testenv.Value[time.Time](t, s.Store, "select now()")
			drop()
			testenv.Eventually(t, harness.Patience, "the locks of lost sessions to be released", func() (bool, string) {
				holding := testenv.Value[int](t, s.Store, `select count(*)::int from pg_locks l join pg_stat_activity a on a.pid = l.pid
					where l.locktype = 'advisory' and a.datname = current_database() and a.backend_start < $1`, last)
				return holding == 0, fmt.Sprint(holding)
			})
			d.Readyz(200, "streaming")

			// The session of a comparison holds its locks as well.
			alters := testenv.Connect(t, s.DB)
			if _, err := alters.Exec(t.Context(), "begin; lock table respondent in access exclusive mode"); err != nil {
				t.Fatal(err)
			}
			s.Exec("alter publication walhook set (publish = 'insert')")
			testenv.Eventually(t, harness.Patience, "the comparison to wait for the table", func() (bool, string) {
				got := testenv.Psql(t, s.DB, "select query from pg_stat_activity where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0")
				return got != "", got
			})
			drop()
			if _, err := alters.Exec(t.Context(), "commit"); err != nil {
				t.Fatal(err)
			}
			harness.WaitResolved(s, "publication_changed")
			s.Exec("insert into respondent (id, assessment_id) values (4, 1)")
			s.Expect("/hook", "created 1", "created 2", "created 3", "created 4")
		})
	}
}

// balancer forwards connections to a server. When it drops them, it closes the clients' side alone.
func balancer(t *testing.T, upstream string) (addr string, drop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	var mu sync.Mutex
	var clients []net.Conn
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", upstream)
			if err != nil {
				_ = client.Close()
				continue
			}
			mu.Lock()
			clients = append(clients, client)
			mu.Unlock()
			t.Cleanup(func() { _ = server.Close() })
			go func() { _, _ = io.Copy(server, client) }()
			go func() {
				_, _ = io.Copy(client, server)
				_, _ = io.Copy(io.Discard, server) // the client is gone
				_ = client.Close()
			}()
		}
	}()
	return listener.Addr().String(), func() {
		mu.Lock()
		defer mu.Unlock()
		for _, client := range clients {
			_ = client.Close()
		}
		clients = nil
	}
}
