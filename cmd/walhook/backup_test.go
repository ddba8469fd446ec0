package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"walhook/testenv"
)

// A store that was restored from a backup stands behind the slot. What the rows show and it does not know fires, also what had been
// sent since the backup, under ids of its own.
func TestStoreRestored(t *testing.T) {
	t.Parallel()
	storeServer := testenv.NewServer(t, nil)
	s := newSite(t, sampleSchema).withStore(storeServer)
	d := s.run()
	s.hooks()
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.expect("/hook", "created 1")
	if status := d.stop(); status != 0 {
		t.Fatalf("the daemon ended with status %d", status)
	}
	backup := testenv.CopyServer(t, storeServer, nil)
	d = s.start().ready()
	s.exec("update respondent set started_at = now() where id = 1; insert into respondent (id, assessment_id) values (2, 1)")
	s.expect("/hook", "created 1", "started 1", "created 2")
	written := testenv.Psql(t, s.db, "select pg_current_wal_lsn()")
	s.waitStored() // and something after it, for the slot to get there
	testenv.Eventually(t, patience, "the slot to be acknowledged", func() (bool, string) {
		got := testenv.Psql(t, s.db, "select confirmed_flush_lsn >= '"+written+"' from pg_replication_slots where slot_name = '"+s.env["SLOT"]+"'")
		return got == "t", got
	})
	d.kill()

	database := testenv.Psql(t, s.store, "select current_database()")
	s.store = backup.URL(database)
	s.with("STORE_URL", s.store).exec("update respondent set started_at = now() where id = 2")
	s.start().ready()
	s.expect("/hook", "created 1", "started 1", "created 2", "started 1", "created 2", "started 2")
	ids := map[string]bool{}
	for _, request := range s.receiver.Requests() {
		ids[request.Header.Get("webhook-id")] = true
	}
	if len(ids) != 6 {
		t.Errorf("six deliveries came under %d ids", len(ids))
	}
	if got := testenv.Psql(t, s.store, "select count(*) filter (where recovered), count(*) from walhook.delivery_log"); got != "3|4" {
		t.Errorf("recovered and all deliveries: %s", got)
	}
}

// A daemon outlives it that the schema is put back from a dump beneath it: what its sessions know of the store's types is not true then.
func TestSchemaPutBackBeneathADaemon(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema)
	s.run()
	s.hooks()
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.expect("/hook", "created 1")
	s.waitLog("select count(*) from walhook.delivery_log", "1")
	again := "begin; drop type walhook.event_in, walhook.state_in, walhook.result_in, walhook.look_in; "
	for _, name := range []string{"006_rows_in", "008_look_in"} {
		types, err := os.ReadFile("../../sql/migrations/" + name + ".sql")
		if err != nil {
			t.Fatal(err)
		}
		again += string(types) + "; "
	}
	s.exec(again + "commit")
	s.exec("insert into respondent (id, assessment_id) values (2, 1)")
	s.waitLog("select count(distinct response_id), bool_and(status = 'success') from walhook.delivery_log", "2|t")
}

// Before PostgreSQL 17 no slot can be synchronised: attach makes one without failover, and a promotion is a gap (TestStandbyPromoted).
// From 17 on a standby that fetches the slot goes on with it when it is promoted, and nothing is compared.
func TestStandbyPromotedWithSynchronisedSlot(t *testing.T) {
	t.Parallel()
	settings := map[string]string{}
	if testenv.Postgres(t).Version() >= 170000 {
		settings["sync_replication_slots"] = "on"
		settings["hot_standby_feedback"] = "on"
		settings["primary_slot_name"] = "standby"
	}
	primary := testenv.NewServer(t, nil)
	s := newSiteOn(t, primary, sampleSchema).withStore(testenv.Postgres(t))
	wire := s.behindWire("DATABASE_URL", s.db)
	if len(settings) == 0 {
		s.attach()
		if got := testenv.Psql(t, s.db, "select count(*) from pg_replication_slots where to_jsonb(pg_replication_slots)->>'failover' is null"); got != "1" {
			t.Errorf("%s slots without failover", got)
		}
		return
	}
	testenv.Exec(t, s.db, "select pg_create_physical_replication_slot('standby', true)")
	settings["primary_conninfo"] = fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=%s", primary.Port(), s.database())
	standby := testenv.CopyServer(t, primary, settings, "standby.signal")
	d := s.run()
	s.hooks()
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.expect("/hook", "created 1")
	testenv.Eventually(t, patience, "the standby to have fetched the slot", func() (bool, string) {
		// A server starts its worker for slots again when it is woken, as by a new session, or once a minute.
		conn, err := pgx.Connect(t.Context(), standby.URL("postgres"))
		if err != nil {
			return false, err.Error()
		}
		defer conn.Close(t.Context())
		synced := false
		err = conn.QueryRow(t.Context(), "select synced and not temporary and invalidation_reason is null from pg_replication_slots where slot_name = $1", s.env["SLOT"]).Scan(&synced)
		return synced, fmt.Sprint(synced, err)
	})
	end := testenv.Psql(t, s.db, "select pg_current_wal_lsn()")
	testenv.Eventually(t, patience, "the standby to have replayed everything", func() (bool, string) {
		got := testenv.Psql(t, standby.URL("postgres"), "select pg_last_wal_replay_lsn() >= '"+end+"'")
		return got == "t", got
	})
	wire.Cut()
	primary.Kill()
	testenv.Exec(t, standby.URL("postgres"), "select pg_promote()")
	s.moveTo(standby)
	s.exec("update respondent set finished_at = now() where id = 1; update respondent set finished_at = clock_timestamp() where id = 1")
	wire.Redirect(hostPort(standby))
	wire.Restore()
	d.ready()
	s.expect("/hook", "created 1", "completed 1", "changed 1")
	if got := testenv.Psql(t, s.store, "select count(*) from walhook.delivery_log where recovered"); got != "0" {
		t.Errorf("%s deliveries came by a comparison", got)
	}
}
