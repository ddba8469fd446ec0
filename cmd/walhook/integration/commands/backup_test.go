package commands

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// A store that was restored from a backup is behind the slot. Events since the backup that the rows still show fire
// with new ids, even if they had been sent before.
func TestStoreRestored(t *testing.T) {
	t.Parallel()
	storeServer := testenv.NewServer(t, nil)
	s := harness.NewSite(t, harness.SampleSchema).WithStore(storeServer)
	d := s.Run()
	s.Hooks()
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/hook", "created 1")
	if status := d.Stop(); status != 0 {
		t.Fatalf("the daemon exited with status %d", status)
	}
	backup := testenv.CopyServer(t, storeServer, nil)
	d = s.Start().Ready()
	s.Exec("update respondent set started_at = now() where id = 1; insert into respondent (id, assessment_id) values (2, 1)")
	s.Expect("/hook", "created 1", "started 1", "created 2")
	written := testenv.Psql(t, s.DB, "select pg_current_wal_lsn()")
	s.WaitStored() // and another commit, so that the slot advances past it
	testenv.Eventually(t, harness.Patience, "the slot to be acknowledged", func() (bool, string) {
		got := testenv.Psql(t, s.DB, "select confirmed_flush_lsn >= '"+written+"' from pg_replication_slots where slot_name = '"+s.Env["SLOT"]+"'")
		return got == "t", got
	})
	d.Kill()

	database := testenv.Psql(t, s.Store, "select current_database()")
	s.Store = backup.URL(database)
	s.With("STORE_URL", s.Store).Exec("update respondent set started_at = now() where id = 2")
	s.Start().Ready()
	s.Expect("/hook", "created 1", "started 1", "created 2", "started 1", "created 2", "started 2")
	ids := map[string]bool{}
	for _, request := range s.Receiver.Requests() {
		ids[request.Header.Get("webhook-id")] = true
	}
	if len(ids) != 6 {
		t.Errorf("six deliveries had %d ids", len(ids))
	}
	if got := testenv.Psql(t, s.Store, "select count(*) filter (where recovered), count(*) from walhook.delivery_log"); got != "3|4" {
		t.Errorf("recovered and all deliveries: %s", got)
	}
}

// rowType matches the statements that create the row types for bulk statements.
var rowType = regexp.MustCompile(`(?ms)^(?:create|alter) type walhook\.\w+_in\b.*?;`)

// A daemon survives that the schema is restored from a dump while it runs, which makes the types that its sessions have
// cached invalid.
func TestSchemaPutBackBeneathADaemon(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Run()
	s.Hooks()
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/hook", "created 1")
	s.WaitLog("select count(*) from walhook.delivery_log", "1")
	again := "begin; drop type walhook.event_in, walhook.state_in, walhook.result_in, walhook.look_in, walhook.assessment_in; "
	for _, migration := range testenv.Files(t, "../../../../sql/migrations", ".sql") {
		text, err := os.ReadFile(migration)
		if err != nil {
			t.Fatal(err)
		}
		again += strings.Join(rowType.FindAllString(string(text), -1), "\n")
	}
	s.Exec(again + "commit")
	s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
	s.WaitLog("select count(distinct response_id), bool_and(status = 'success') from walhook.delivery_log", "2|t")
}

// Before PostgreSQL 17 slots cannot be synchronised: attach creates one without failover, and a promotion is a gap
// (TestStandbyPromoted). From 17 on, a standby that synchronises the slot continues with it after a promotion, without
// a comparison.
func TestStandbyPromotedWithSynchronisedSlot(t *testing.T) {
	t.Parallel()
	settings := map[string]string{}
	if testenv.Postgres(t).Version() >= 170000 {
		settings["sync_replication_slots"] = "on"
		settings["hot_standby_feedback"] = "on"
		settings["primary_slot_name"] = "standby"
	}
	primary := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, primary, harness.SampleSchema).WithStore(testenv.Postgres(t))
	wire := harness.BehindWire(s, "DATABASE_URL", s.DB)
	if len(settings) == 0 {
		s.Attach()
		if got := testenv.Psql(t, s.DB, "select count(*) from pg_replication_slots where to_jsonb(pg_replication_slots)->>'failover' is null"); got != "1" {
			t.Errorf("%s slots without failover", got)
		}
		return
	}
	testenv.Exec(t, s.DB, "select pg_create_physical_replication_slot('standby', true)")
	settings["primary_conninfo"] = fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=%s", primary.Port(), s.Database())
	standby := testenv.CopyServer(t, primary, settings, "standby.signal")
	d := s.Run()
	s.Hooks()
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/hook", "created 1")
	testenv.Eventually(t, harness.Patience, "the standby to have fetched the slot", func() (bool, string) {
		// A server restarts its slot sync worker when it is woken, for instance by a new session, or once a minute.
		conn, err := pgx.Connect(t.Context(), standby.URL("postgres"))
		if err != nil {
			return false, err.Error()
		}
		defer conn.Close(t.Context())
		synced := false
		err = conn.QueryRow(t.Context(), "select synced and not temporary and invalidation_reason is null from pg_replication_slots where slot_name = $1", s.Env["SLOT"]).Scan(&synced)
		return synced, fmt.Sprint(synced, err)
	})
	end := testenv.Psql(t, s.DB, "select pg_current_wal_lsn()")
	testenv.Eventually(t, harness.Patience, "the standby to have replayed everything", func() (bool, string) {
		got := testenv.Psql(t, standby.URL("postgres"), "select pg_last_wal_replay_lsn() >= '"+end+"'")
		return got == "t", got
	})
	wire.Cut()
	primary.Kill()
	testenv.Exec(t, standby.URL("postgres"), "select pg_promote()")
	s.MoveTo(standby)
	s.Exec("update respondent set finished_at = now() where id = 1; update respondent set finished_at = clock_timestamp() where id = 1")
	wire.Redirect(harness.HostPort(standby))
	wire.Restore()
	d.Ready()
	s.Expect("/hook", "created 1", "completed 1", "changed 1")
	if got := testenv.Psql(t, s.Store, "select count(*) from walhook.delivery_log where recovered"); got != "0" {
		t.Errorf("%s deliveries came from a comparison", got)
	}
}
