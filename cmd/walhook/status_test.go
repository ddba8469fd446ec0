package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"walhook/cdc"
	"walhook/testenv"
)

// status waits until status and status --json agree on a verdict: a line of that name, verdict and text, and the exit status that follows.
func (s *site) status(name string, verdict cdc.Level, text string) {
	s.t.Helper()
	testenv.Eventually(s.t, patience, fmt.Sprintf("status to say %s %s %s", verdict, name, text), func() (bool, string) {
		out, errOut, status := s.walhook("status", "--json")
		var o cdc.Observation
		if err := json.Unmarshal([]byte(out), &o); err != nil {
			return false, fmt.Sprintf("%v: %d %s%s", err, status, out, errOut)
		}
		found, fails := false, 0
		for _, l := range o.Lines {
			found = found || l.Name == name && l.Verdict == verdict && strings.Contains(l.Text, text)
			if l.Verdict == cdc.Fail {
				fails++
			}
		}
		if o.OK != (fails == 0) || o.OK != (status == exitOK) || len(o.Problems) != fails {
			s.t.Errorf("ok is %v, %d lines fail, %d problems, and it ends with %d:\n%s", o.OK, fails, len(o.Problems), status, out)
		}
		if !found {
			return false, fmt.Sprintf("%d\n%s", status, out)
		}
		plain, _, _ := s.walhook("status")
		return strings.Contains(plain, fmt.Sprintf("%-4s  %-10s  ", verdict, name)), fmt.Sprintf("%d\n%s", status, plain)
	})
}

// In each state status says what is so, and its exit status follows from that.
func TestStatusIsTrue(t *testing.T) {
	t.Parallel()
	source, storeServer := testenv.NewServer(t, nil), testenv.NewServer(t, nil)
	s := newSiteOn(t, source, sampleSchema).withStore(storeServer)
	s.status("store", cdc.Fail, "run `walhook attach` first")
	d := s.run()
	s.status("slot", cdc.OK, "read by a daemon")
	s.right()

	slot := s.env["SLOT"]
	s.env["SLOT"] = "another"
	s.status("attachment", cdc.Fail, "WALHOOK_SLOT")
	s.status("slot", cdc.Fail, `"another" does not exist`)
	s.env["SLOT"] = slot

	// What cannot be known is not said: a store that is away may have daemons.
	s.with("STORE_URL", "postgres://127.0.0.1:1/away?connect_timeout=5")
	s.status("store", cdc.Fail, "connect to the store")
	s.status("slot", cdc.OK, "read by process")
	s.with("STORE_URL", s.store)

	testenv.Exec(t, s.store, "update walhook.settings set enabled = false")
	s.status("switch", cdc.Warn, "switched off")
	s.status("incident", cdc.Warn, "switched_off")
	testenv.Exec(t, s.store, "update walhook.settings set enabled = true")
	s.right()

	// A daemon that is frozen: it neither reports nor reads on.
	if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.status("daemon", cdc.Fail, "has not reported for")
	if err := d.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.right()

	testenv.Exec(t, s.store, "update walhook.attachment set phase = 'attaching'")
	s.status("attachment", cdc.Fail, "interrupted")
	testenv.Exec(t, s.store, "update walhook.attachment set phase = 'attached'")

	// While the application writes, slot and stored position move on between the looks at them.
	end := s.meanwhile(s.db, "insert into respondent (id, assessment_id) values ($1, 1)")
	for range 40 {
		if o := cdc.Observe(t.Context(), s.db, s.store, slot); !o.OK {
			t.Errorf("status beside an application that writes: %v", o.Problems)
		}
	}
	end()

	// A daemon that was killed is gone, not stuck, and no trouble beside its successor.
	d.kill()
	testenv.Exec(t, s.store, "update walhook.daemon set heartbeat_at = now() - interval '7 s', expires_at = now() + interval '1 hour', unready = 'odd'")
	s.status("daemons", cdc.Fail, "no daemon lives")
	d = s.start().ready()
	s.rightNow()
	if status := d.stop(); status != exitOK {
		t.Errorf("the daemon ends with %d", status)
	}
	s.status("slot", cdc.Fail, "nobody reads slot")
	s.status("daemons", cdc.Fail, "no daemon lives")

	// A daemon lives, and something keeps it from the slot.
	reader := testenv.Connect(t, s.store)
	if _, err := reader.Exec(t.Context(), "select pg_advisory_lock($1)", cdc.ReaderLock); err != nil {
		t.Fatal(err)
	}
	d = s.start()
	s.status("slot", cdc.Fail, "although a daemon lives")
	s.status("daemon", cdc.Fail, "no daemon reports that it reads the slot")
	if status := d.stop(); status != exitOK {
		t.Errorf("the daemon ends with %d", status)
	}
	_ = reader.Close(t.Context())

	for _, by := range []int{1, -1} {
		testenv.Exec(t, s.store, "update walhook.schema_version set version = version + $1", by)
		s.status("store", cdc.Fail, "version")
		testenv.Exec(t, s.store, "update walhook.schema_version set version = version - $1", by)
	}

	s.exec("alter system set max_slot_wal_keep_size = '1MB'")
	s.exec("select pg_reload_conf()")
	testenv.Eventually(t, patience, "the server to invalidate the slot", func() (bool, string) {
		for range 3 {
			s.exec("select pg_logical_emit_message(false, 'filler', 'x')")
			s.exec("select pg_switch_wal()")
		}
		s.exec("checkpoint")
		status := testenv.Psql(t, s.db, "select wal_status from pg_replication_slots where slot_name = '"+slot+"'")
		return status == "lost", status
	})
	s.status("slot", cdc.Fail, "was invalidated")
	s.mustFail("doctor", "was invalidated")
	s.exec("alter system reset max_slot_wal_keep_size")
	s.exec("select pg_reload_conf()")
	s.dropSlot()
	s.status("slot", cdc.Fail, "does not exist")
	s.exec("select pg_create_logical_replication_slot($1, 'test_decoding')", slot)
	s.status("slot", cdc.Fail, "is one of the plugin test_decoding")
	s.dropSlot()
	testenv.Exec(t, testenv.Database(t, source, ""), "select pg_create_logical_replication_slot($1, 'pgoutput')", slot)
	s.status("slot", cdc.Fail, "belongs to database")
	s.dropSlot()
	s.exec("select pg_create_logical_replication_slot($1, 'pgoutput')", slot)
	s.exec("select pg_replication_slot_advance($1, pg_current_wal_lsn())", slot)
	s.status("slot", cdc.Fail, "ahead of the stored position")

	// A copy of the application's database, with the same store.
	c := s.copied(testenv.Database(t, source, sampleSchema))
	for _, way := range twoWays {
		c.status("attachment", cdc.Fail, way)
	}
	for _, by := range []int{0, 1, -1} { // the store's schema may be of another version
		testenv.Exec(t, s.store, "update walhook.schema_version set version = version + $1", by)
		c.mustFail("status", twoWays...)
		c.mustFail("doctor", twoWays...)
		testenv.Exec(t, s.store, "update walhook.schema_version set version = version - $1", by)
	}

	standby := testenv.CopyServer(t, source, nil, "standby.signal")
	database := s.database()
	s.with("DATABASE_URL", standby.URL(database))
	s.status("source", cdc.Fail, "is a standby")
	s.with("DATABASE_URL", s.db, "STORE_URL", standby.URL(database))
	s.status("store", cdc.Fail, "is a standby")
	s.with("STORE_URL", s.store)

	storeServer.Kill()
	s.status("store", cdc.Fail, "connect to the store")
	s.status("slot", cdc.Fail, "nobody reads slot")
	source.Kill()
	s.status("source", cdc.Fail, "connect to")
	s.status("store", cdc.Fail, "connect to the store")
	s.up(storeServer)
	s.status("daemons", cdc.Fail, "no daemon lives")
	s.status("source", cdc.Fail, "connect to")
}

// Where a daemon is ready, status finds it so.
func TestReadyOnceTheStoreHasIt(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).attach()
	testenv.Exec(t, s.store, `
		create function public.refuse() returns trigger language plpgsql as $$ begin raise exception 'none of this'; end $$;
		create trigger refuse before update on walhook.daemon for each row when (new.unready is null) execute function public.refuse()`)
	d := s.start()
	testenv.Eventually(t, patience, "a heartbeat that reports the daemon ready to be refused", func() (bool, string) {
		status, body := d.get("/readyz")
		if status == 200 {
			t.Fatalf("ready before the store had it: %s", body)
		}
		return strings.Contains(body, "none of this"), body
	})
	testenv.Exec(t, s.store, "drop trigger refuse on walhook.daemon")
	d.ready()
	s.rightNow()
}

// A standby is ready only while the daemon that reads the slot works.
func TestStandbyOfADaemonThatDoesNotWork(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema)
	reader := s.run()
	s.hook("/hook", "created")
	standby := s.start()
	standby.readyz(200, "standing by")
	testenv.Exec(t, s.store, `
		create function public.refuse() returns trigger language plpgsql as $$ begin raise exception 'none of them'; end $$;
		create trigger refuse before delete on walhook.queue for each row execute function public.refuse()`)
	s.respond(1, 10)
	standby.readyz(503, "none of them")
	testenv.Exec(t, s.store, "drop trigger refuse on walhook.queue")
	standby.readyz(200, "standing by")
	if err := reader.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	standby.readyz(503, "has not reported for")
	if err := reader.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	standby.readyz(200, "")
	s.exactlyOnce(10, "created")
}
