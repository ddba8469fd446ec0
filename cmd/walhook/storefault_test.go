package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"walhook/testenv"
	"walhook/testenv/pgserver"
)

// The store commits, and the connection breaks before it can say so: what was queued is not queued again.
func TestStoreCommitOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	const rounds, each = 4, 25
	s := newSite(t, sampleSchema).withStore(testenv.Postgres(t))
	wire := s.behindWire("STORE_URL", s.store)
	d := s.run()
	s.hook("/hook", "created")
	// A commit that queues something stops at the very end, when its outcome is sealed but for an error, for as long as gate is shut.
	testenv.Exec(t, s.store, `
		create function public.dawdle() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(7); return null; end $$;
		create constraint trigger dawdle after insert on walhook.queue deferrable initially deferred for each row execute function public.dawdle()`)
	gate := testenv.Connect(t, s.store)
	at := func(do string) {
		if _, err := gate.Exec(t.Context(), "select "+do+"(7)"); err != nil {
			t.Fatal(err)
		}
	}
	const dawdling = "select count(*) from pg_locks where locktype = 'advisory' and objid = 7 and objsubid = 1 and pid <> pg_backend_pid() and %s"
	committing := func(what, state string, want bool) {
		t.Helper()
		testenv.Eventually(t, patience, what, func() (bool, string) {
			got := testenv.Psql(t, s.store, fmt.Sprintf(dawdling, state))
			return (got != "0") == want, got
		})
	}
	for round := range rounds {
		at("pg_advisory_lock")
		s.exec("insert into respondent (id, assessment_id) select g, 1 from generate_series($1::int, $2::int) g", round*each+1, (round+1)*each)
		committing("the store to be committing", "not granted", true)
		wire.Cut()
		at("pg_advisory_unlock")
		committing("the store to have committed", "mode = 'ShareLock'", false)
		if got := testenv.Value[int](t, s.store, "select count(*)::int from walhook.delivery_log"); got <= round*each {
			t.Errorf("the store has %d deliveries: the commit whose answer was cut off did not happen", got)
		}
		wire.Restore()
		d.ready()
		s.queued(int64((round + 1) * each))
	}
	testenv.Exec(t, s.store, "drop trigger dawdle on walhook.queue")
	s.exactlyOnce(rounds*each, "created")
}

// The store's server may take a moment to end the session that found a gap, which holds the lock of the one who reads the slot: the
// gap is closed by the daemon that found it, and recorded as what it found.
func TestGapIsClosedByTheOneWhoFoundIt(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).withStore(testenv.NewServer(t, nil)) // others would wait for a process that is stopped
	s.exec(beforeGap)
	d := s.run()
	s.hooks()
	s.exec("alter publication walhook drop table respondent; " + gapHistory)
	s.stopReader(func() {
		testenv.Eventually(t, patience, "the gap to be found", func() (bool, string) {
			return strings.Contains(d.log.String(), "the stream may have missed changes"), d.log.String()
		})
		time.Sleep(time.Second)
	})
	s.expect("/hook", missedInGap...)
	d.ready()
	if got := testenv.Psql(t, s.store, "select kind, resolved_at is not null from walhook.incident where kind <> 'reconcile'"); got != "publication_changed|t" {
		t.Errorf("incidents are %q", got)
	}
	if log := d.log.String(); strings.Contains(log, "connecting again") {
		t.Errorf("the gap was not closed at once:\n%s", log)
	}
}

// A session of the reader that the store's server is slow to end after its connection broke is no other daemon: nobody is told that one has
// taken over.
func TestOwnSessionIsNoOtherDaemon(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).withStore(testenv.NewServer(t, nil)) // others would wait for a process that is stopped
	wire := s.behindWire("STORE_URL", s.store)
	d := s.run()
	s.hook("/hook", "created")
	s.stopReader(func() {
		wire.Cut()
		wire.Restore()
		testenv.Eventually(t, patience, "the daemon to meet its last session", func() (bool, string) {
			return strings.Contains(d.log.String(), "has not ended the last session of this daemon"), d.log.String()
		})
		d.readyz(503, "has not ended the last session of this daemon")
	})
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.expect("/hook", "created 1")
	if got := testenv.Psql(t, s.store, "select kind, detail from walhook.incident"); got != "" {
		t.Errorf("incidents are %q", got)
	}
}

// stopReader does something while the store's server process is stopped that holds the lock of the slot's reader.
func (s *site) stopReader(while func()) {
	s.t.Helper()
	reader := testenv.Value[int](s.t, s.store, "select l.pid from pg_locks l join pg_database d on d.oid = l.database where l.locktype = 'advisory' and l.objsubid = 1 and d.datname = current_database()")
	signal := func(what syscall.Signal) {
		if err := syscall.Kill(reader, what); err != nil {
			s.t.Errorf("%s to the session that holds the lock: %v", what, err)
		}
	}
	signal(syscall.SIGSTOP)
	defer signal(syscall.SIGCONT) // also where the test fails meanwhile
	while()
}

// lockStore keeps everybody from writing a table of the store, until the function that it returns is called.
func (s *site) lockStore(table string) (release func()) {
	s.t.Helper()
	locker := testenv.Connect(s.t, s.store)
	exec := func(statement string) {
		s.t.Helper()
		if _, err := locker.Exec(s.t.Context(), statement); err != nil {
			s.t.Fatal(err)
		}
	}
	exec("begin; lock table " + table + " in share mode")
	return func() { exec("commit") }
}

// holdComparison makes a gap, and keeps the daemon's comparison from its end until the function that it returns is called.
func (s *site) holdComparison(d *daemon) (release func()) {
	s.t.Helper()
	release = s.lockStore("walhook.response_state")
	s.exec("alter publication walhook drop table respondent; " + gapHistory)
	testenv.Eventually(s.t, patience, "the store to wait for a lock", func() (bool, string) {
		got := testenv.Psql(s.t, s.store, "select query from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0 and datname = current_database()")
		return got != "", "none does"
	})
	d.readyz(503, "mending")
	return release
}

// While somebody holds a lock in the store that the stream waits for, /readyz says so, gaps are found and told of, and the
// application goes on writing.
func TestStoreIsLocked(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).withStore(testenv.Postgres(t))
	s.exec(beforeGap)
	d := s.run()
	s.hooks()
	release := s.lockStore("walhook.queue")
	s.exec("insert into respondent (id, assessment_id) values (9, 1)")
	d.readyz(503, "the store has been at one transaction of the stream for")
	s.exec("alter publication walhook drop table respondent")
	d.readyz(503, "lacks table public.respondent")
	s.exec("alter table respondent drop constraint respondent_pkey; alter publication walhook add table respondent")
	s.writesAgain()
	s.exec(gapHistory)
	s.exec("alter table respondent add primary key (id)")
	release()
	d.ready()
	s.expect("/hook", append(missedInGap, "created 9")...)
}

// A comparison may take long. Meanwhile, too, a table whose updates PostgreSQL would refuse is taken out of the publication.
func TestReplicaIdentityLostWhileComparing(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).withStore(testenv.Postgres(t))
	s.exec(beforeGap)
	d := s.run()
	s.hooks()
	release := s.holdComparison(d)
	s.exec("alter table respondent drop constraint respondent_pkey")
	s.writesAgain()
	s.exec("insert into respondent (id, assessment_id) values (11, 1); alter table respondent add primary key (id)")
	release()
	s.expect("/hook", append(missedInGap, "created 11")...)
	d.ready()
}

// The store does not wait for its disk before something is sent. What a crash takes back of it comes again under the same
// webhook-id, since the slot has not been acknowledged so far, and an id that was given is not given to anything else.
func TestStoreCrashTakesBackCommits(t *testing.T) {
	t.Parallel()
	const rounds, each = 3, 40
	store := testenv.NewServer(t, map[string]string{"wal_writer_delay": "10s"})
	s := newSite(t, sampleSchema).withStore(store)
	d := s.run()
	s.hook("/hook", "created")
	lost := 0
	for round := range rounds {
		s.receiver.Respond("/hook", testenv.Always(testenv.Reply{Hang: true})) // an answer is recorded, on disk
		if err := syscall.Kill(testenv.Value[int](t, s.store, "select pid from pg_stat_activity where backend_type = 'walwriter'"), syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		before := len(s.receiver.Bodies("/hook"))
		for id := round*each + 1; id <= (round+1)*each; id++ {
			s.exec("insert into respondent (id, assessment_id) values ($1, 1)", id)
		}
		s.waitRequests("/hook", before+8) // as many as may be in flight
		store.Kill()
		if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		s.up(store)
		confirmed := testenv.Psql(t, s.db, "select confirmed_flush_lsn from pg_replication_slots where slot_name = '"+s.env["SLOT"]+"'")
		if behind := testenv.Psql(t, s.store, "select lsn from walhook.position where lsn < '"+confirmed+"'"); behind != "" {
			t.Fatalf("the slot was acknowledged up to %s, and the store has come back at %s", confirmed, behind)
		}
		lost += (round+1)*each - testenv.Value[int](t, s.store, "select count(*)::int from walhook.delivery_log")
		if err := d.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		s.receiver.Respond("/hook", nil)
		d.ready()
		s.fence()
	}
	if lost == 0 {
		t.Error("the crashes took nothing back, so that nothing came again")
	}
	s.receiver.Respond("/hook", nil)
	s.exactlyOnce(rounds*each, "created")
}

// A store whose disk is full takes nothing more until there is room again. The stream waits, says why, and loses nothing. (The
// server's files are kept from growing: for a server that is a full disk but for the number of the error.)
func TestStoreDiskFull(t *testing.T) {
	t.Parallel()
	const n = 20000
	store := testenv.NewServerWith(t, pgserver.Options{SegmentMB: 1})
	s := newSite(t, sampleSchema).withStore(store)
	d := s.run()
	s.hook("/hook", "created")
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{Hang: true}))
	store.Halt(syscall.SIGINT)
	store.LimitFiles(1 << 20)
	s.up(store)
	d.ready()

	s.exec("insert into respondent (id, assessment_id) select g, 1 from generate_series(1, $1::int) g", n)
	d.readyz(503, "could not extend file")
	s.exec("update respondent set page = 1 where id = 1") // the application goes on

	store.Halt(syscall.SIGINT)
	store.LimitFiles(0)
	s.up(store)
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	d.ready()
	s.exactlyOnce(n, "created")
}

// A stop that comes while the store refuses a commit writes nothing of what was refused, nor the position after it.
func TestStopWhileCommitFails(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).withStore(testenv.Postgres(t))
	d := s.run()
	s.hook("/hook", "created")
	testenv.Exec(t, s.store, `
		create function public.refuse() returns trigger language plpgsql as $$ begin perform pg_sleep(1); raise exception 'no room'; end $$;
		create constraint trigger refuse after insert on walhook.queue deferrable initially deferred for each row execute function public.refuse()`)
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	testenv.Eventually(t, patience, "the store to be committing", func() (bool, string) {
		got := testenv.Psql(t, s.store, "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'")
		return got != "0", got
	})
	d.stop()
	testenv.Exec(t, s.store, "drop trigger refuse on walhook.queue")
	s.start().ready()
	s.exactlyOnce(1, "created")
}
