package commands

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"walhook/cdc/catalog"
	"walhook/cdc/setup"
	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// status waits until status and status --json agree on a line with the given name, verdict and text, and on the exit
// status that follows.
func status(s *harness.Site, name string, verdict catalog.Level, text string) {
	s.T.Helper()
	testenv.Eventually(s.T, harness.Patience, fmt.Sprintf("status to say %s %s %s", verdict, name, text), func() (bool, string) {
		out, errOut, status := s.Walhook("status", "--json")
		var o setup.Observation
		if err := json.Unmarshal([]byte(out), &o); err != nil {
			return false, fmt.Sprintf("%v: %d %s%s", err, status, out, errOut)
		}
		found, fails := false, 0
		for _, l := range o.Lines {
			found = found || l.Name == name && l.Verdict == verdict && strings.Contains(l.Text, text)
			if l.Verdict == catalog.Fail {
				fails++
			}
		}
		if o.OK != (fails == 0) || o.OK != (status == cli.ExitOK) || len(o.Problems) != fails {
			s.T.Errorf("ok is %v, %d lines fail, %d problems, and it exits with %d:\n%s", o.OK, fails, len(o.Problems), status, out)
		}
		if !found {
			return false, fmt.Sprintf("%d\n%s", status, out)
		}
		plain, _, _ := s.Walhook("status")
		return strings.Contains(plain, fmt.Sprintf("%-4s  %-10s  ", verdict, name)), fmt.Sprintf("%d\n%s", status, plain)
	})
}

// status is right in each state, and so is its exit status.
func TestStatusIsTrue(t *testing.T) {
	t.Parallel()
	source, storeServer := testenv.NewServer(t, nil), testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, source, harness.SampleSchema).WithStore(storeServer)
	status(s, "store", catalog.Fail, "run `walhook attach` first")
	d := s.Run()
	status(s, "slot", catalog.OK, "read by a daemon")
	harness.WaitHealthy(s)

	slot := s.Env["SLOT"]
	s.Env["SLOT"] = "another"
	status(s, "attachment", catalog.Fail, "WALHOOK_SLOT")
	status(s, "slot", catalog.Fail, `"another" does not exist`)
	s.Env["SLOT"] = slot

	// It does not report what it cannot know: an unavailable store may have daemons.
	s.With("STORE_URL", "postgres://127.0.0.1:1/away?connect_timeout=5")
	status(s, "store", catalog.Fail, "connect to the store")
	status(s, "slot", catalog.OK, "read by process")
	s.With("STORE_URL", s.Store)

	testenv.Exec(t, s.Store, "update walhook.settings set enabled = false")
	status(s, "switch", catalog.Warn, "switched off")
	status(s, "incident", catalog.Warn, "switched_off")
	testenv.Exec(t, s.Store, "update walhook.settings set enabled = true")
	harness.WaitHealthy(s)

	// A frozen daemon neither reports nor reads.
	if err := d.Cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	status(s, "daemon", catalog.Fail, "has not reported for")
	if err := d.Cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	harness.WaitHealthy(s)

	testenv.Exec(t, s.Store, "update walhook.attachment set phase = 'attaching'")
	status(s, "attachment", catalog.Fail, "interrupted")
	testenv.Exec(t, s.Store, "update walhook.attachment set phase = 'attached'")

	// While the application writes, slot and stored position advance between the queries.
	end := s.Meanwhile(s.DB, "insert into respondent (id, assessment_id) select $1, 1 from pg_sleep(0.002)")
	for range 40 {
		if o := setup.Observe(t.Context(), s.DB, s.Store, slot); !o.OK {
			t.Errorf("status while the application writes: %v", o.Problems)
		}
	}
	end()

	// A requested comparison keeps the daemon from the slot, and nothing is wrong.
	comparison := testenv.Connect(t, s.Store)
	for _, key := range []int64{catalog.AttachLock, catalog.ReaderLock} {
		if _, err := comparison.Exec(t.Context(), "select pg_advisory_lock($1)", key); err != nil {
			t.Fatal(err)
		}
	}
	d.Readyz(200, "the table is being compared")
	status(s, "slot", catalog.Warn, "at the moment")
	harness.CheckHealthy(s)
	_ = comparison.Close(t.Context())
	status(s, "slot", catalog.OK, "read by a daemon")
	harness.WaitHealthy(s)

	// A killed daemon is gone, not stuck, and is not a problem beside its successor.
	d.Kill()
	testenv.Exec(t, s.Store, "update walhook.daemon set heartbeat_at = now() - interval '7 s', expires_at = now() + interval '1 hour', unready = 'odd'")
	status(s, "daemons", catalog.Fail, "no daemon is running")
	d = s.Start().Ready()
	harness.CheckHealthy(s)
	if status := d.Stop(); status != cli.ExitOK {
		t.Errorf("the daemon ends with %d", status)
	}
	status(s, "slot", catalog.Fail, "nobody reads slot")
	status(s, "daemons", catalog.Fail, "no daemon is running")

	// A daemon that has just started, or opens its stream again after a comparison, is about to read the slot.
	starting := testenv.Connect(t, s.Store)
	if _, err := starting.Exec(t.Context(), "select pg_advisory_lock($1, 1000)", harness.LockClass); err != nil {
		t.Fatal(err)
	}
	for _, report := range []string{"starting", "starting: opening the stream"} {
		testenv.Exec(t, s.Store, `insert into walhook.daemon (id, name, version, heartbeat_at, expires_at, unready)
			overriding system value values (1000, 'host/1', '1', now() + interval '1 hour', now() + interval '1 hour', $1)`, report)
		status(s, "daemon", catalog.Warn, "host/1 is "+report)
		status(s, "slot", catalog.Warn, "at the moment")
		harness.CheckHealthy(s)
		testenv.Exec(t, s.Store, "delete from walhook.daemon")
	}
	_ = starting.Close(t.Context())

	// A daemon is running, but something keeps it from the slot.
	reader := testenv.Connect(t, s.Store)
	if _, err := reader.Exec(t.Context(), "select pg_advisory_lock($1)", catalog.ReaderLock); err != nil {
		t.Fatal(err)
	}
	d = s.Start()
	status(s, "slot", catalog.Fail, "although a daemon is running")
	status(s, "daemon", catalog.Fail, "no daemon reports that it reads the slot")
	if status := d.Stop(); status != cli.ExitOK {
		t.Errorf("the daemon ends with %d", status)
	}
	_ = reader.Close(t.Context())

	for _, by := range []int{1, -1} {
		testenv.Exec(t, s.Store, "update walhook.schema_version set version = version + $1", by)
		status(s, "store", catalog.Fail, "version")
		testenv.Exec(t, s.Store, "update walhook.schema_version set version = version - $1", by)
	}

	s.Exec("alter system set max_slot_wal_keep_size = '1MB'")
	s.Exec("select pg_reload_conf()")
	testenv.Eventually(t, harness.Patience, "the server to invalidate the slot", func() (bool, string) {
		for range 3 {
			s.Exec("select pg_logical_emit_message(false, 'filler', 'x')")
			s.Exec("select pg_switch_wal()")
		}
		s.Exec("checkpoint")
		status := testenv.Psql(t, s.DB, "select wal_status from pg_replication_slots where slot_name = '"+slot+"'")
		return status == "lost", status
	})
	status(s, "slot", catalog.Fail, "was invalidated")
	status(s, "lag", catalog.Fail, "unknown")
	harness.MustFail(s, "doctor", "was invalidated")
	s.Exec("alter system reset max_slot_wal_keep_size")
	s.Exec("select pg_reload_conf()")
	s.DropSlot()
	status(s, "slot", catalog.Fail, "does not exist")
	s.Exec("select pg_create_logical_replication_slot($1, 'test_decoding')", slot)
	status(s, "slot", catalog.Fail, "is one of the plugin test_decoding")
	s.DropSlot()
	testenv.Exec(t, testenv.Database(t, source, ""), "select pg_create_logical_replication_slot($1, 'pgoutput')", slot)
	status(s, "slot", catalog.Fail, "belongs to database")
	s.DropSlot()
	s.Exec("select pg_create_logical_replication_slot($1, 'pgoutput')", slot)
	s.Exec("select pg_replication_slot_advance($1, pg_current_wal_lsn())", slot)
	status(s, "slot", catalog.Fail, "ahead of the stored position")

	// A copy of the application's database, with the same store.
	c := copied(s, testenv.Database(t, source, harness.SampleSchema))
	for _, way := range twoWays {
		status(c, "attachment", catalog.Fail, way)
	}
	for _, by := range []int{0, 1, -1} { // the store's schema may have another version
		testenv.Exec(t, s.Store, "update walhook.schema_version set version = version + $1", by)
		harness.MustFail(c, "status", twoWays...)
		harness.MustFail(c, "doctor", twoWays...)
		testenv.Exec(t, s.Store, "update walhook.schema_version set version = version - $1", by)
	}

	standby := testenv.CopyServer(t, source, nil, "standby.signal")
	database := s.Database()
	s.With("DATABASE_URL", standby.URL(database))
	status(s, "source", catalog.Fail, "is a standby")
	s.With("DATABASE_URL", s.DB, "STORE_URL", standby.URL(database))
	status(s, "store", catalog.Fail, "is a standby")
	s.With("STORE_URL", s.Store)

	storeServer.Kill()
	status(s, "store", catalog.Fail, "connect to the store")
	status(s, "slot", catalog.Fail, "nobody reads slot")
	source.Kill()
	status(s, "source", catalog.Fail, "connect to")
	status(s, "store", catalog.Fail, "connect to the store")
	s.Up(storeServer)
	status(s, "daemons", catalog.Fail, "no daemon is running")
	status(s, "source", catalog.Fail, "connect to")
}

// If a daemon is ready, status reports it as ready.
func TestReadyOnceTheStoreHasIt(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).Attach()
	testenv.Exec(t, s.Store, `
		create function public.refuse() returns trigger language plpgsql as $$ begin raise exception 'none of this'; end $$;
		create trigger refuse before update on walhook.daemon for each row when (new.unready is null) execute function public.refuse()`)
	d := s.Start()
	testenv.Eventually(t, harness.Patience, "a heartbeat that reports the daemon ready to be refused", func() (bool, string) {
		status, body := d.Get("/readyz")
		if status == 200 {
			t.Fatalf("ready before the store had it: %s", body)
		}
		return strings.Contains(body, "none of this"), body
	})
	testenv.Exec(t, s.Store, "drop trigger refuse on walhook.daemon")
	d.Ready()
	harness.CheckHealthy(s)
}

// A standby is ready only while the daemon that reads the slot works.
func TestStandbyOfADaemonThatDoesNotWork(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	reader := s.Run()
	s.Hook("/hook", "created")
	standby := s.Start()
	standby.Readyz(200, "standing by")
	testenv.Exec(t, s.Store, `
		create function public.refuse() returns trigger language plpgsql as $$ begin raise exception 'none of them'; end $$;
		create trigger refuse before delete on walhook.queue for each row execute function public.refuse()`)
	harness.AddRespondents(s, 1, 10)
	standby.Readyz(503, "none of them")
	testenv.Exec(t, s.Store, "drop trigger refuse on walhook.queue")
	standby.Readyz(200, "standing by")
	if err := reader.Cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	standby.Readyz(503, "has not reported for")
	if err := reader.Cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	standby.Readyz(200, "")
	harness.CheckExactlyOnce(s, 10, "created")
}
