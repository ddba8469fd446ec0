package stream

import (
	"fmt"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// slotStatus waits for the slot's wal_status, or "none" for a missing slot.
func slotStatus(s *harness.Site, want string) {
	s.T.Helper()
	testenv.Eventually(s.T, harness.Patience, "the slot's WAL to be "+want, func() (bool, string) {
		got := testenv.Psql(s.T, s.DB, "select coalesce((select wal_status from pg_replication_slots where slot_name = '"+s.Env["SLOT"]+"'), 'none')")
		return got == want, got
	})
}

// While the store is unavailable, the slot retains WAL. The daemon warns in time. WALHOOK_MAX_SLOT_LAG or the server
// itself ends the slot, and in both cases no event is lost that the rows still show.
func TestSlotHoldsBackTooMuch(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settings     map[string]string
		limit        string
		fill         int    // MB that bring it close to the limit
		afterwards   string // of the slot
		warned, told string
	}{
		"WALHOOK_MAX_SLOT_LAG": {
			settings: nil, limit: "64MB", fill: 58, afterwards: "none",
			warned: "WALHOOK_MAX_SLOT_LAG", told: "was dropped: it retained",
		},
		"max_slot_wal_keep_size": {
			settings: map[string]string{"max_slot_wal_keep_size": "160MB"}, limit: "0", fill: 150, afterwards: "lost",
			warned: "max_slot_wal_keep_size", told: "was invalidated",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSiteOn(t, testenv.NewServer(t, c.settings), harness.SampleSchema).WithStore(testenv.Postgres(t)).With("MAX_SLOT_LAG", c.limit)
			wire := harness.BehindWire(s, "STORE_URL", s.Store)
			s.Exec(beforeGap)
			d := s.Run()
			s.Hooks()
			wire.Cut()
			s.Exec(gapHistory)
			harness.FillWAL(s, c.fill)
			testenv.Eventually(t, harness.Patience, "a warning", func() (bool, string) {
				_, metrics := d.Get("/metrics")
				return strings.Contains(metrics, "walhook_slot_in_danger 1") && strings.Contains(d.Log.String(), c.warned), d.Log.String()
			})
			harness.FillWAL(s, 80)
			s.Exec("checkpoint")
			slotStatus(s, c.afterwards)
			wire.Restore()
			d.Ready()
			expectRecovered(s, "/hook", missedInGap...)
			const query = "select count(*)::int from walhook.incident where kind = 'slot_lost' and resolved_at is not null and detail like '%%%s%%'"
			if n := testenv.Value[int](t, s.Store, fmt.Sprintf(query, c.told)); n != 1 {
				t.Errorf("%d incidents report that the slot %s, not 1: %s", n, c.told, testenv.Psql(t, s.Store, "select * from walhook.incident"))
			}
			testenv.Eventually(t, harness.Patience, "the danger to be over", func() (bool, string) {
				_, metrics := d.Get("/metrics")
				return strings.Contains(metrics, "walhook_slot_in_danger 0"), metrics
			})
		})
	}
}

// A comparison may take long, and the new slot retains WAL meanwhile, but no more than WALHOOK_MAX_SLOT_LAG allows.
func TestSlotHoldsBackTooMuchWhileComparing(t *testing.T) {
	t.Parallel()
	s := harness.NewSiteOn(t, testenv.NewServer(t, nil), harness.SampleSchema).WithStore(testenv.Postgres(t)).With("MAX_SLOT_LAG", "64MB")
	s.Exec(beforeGap)
	d := s.Run()
	s.Hooks()
	release := holdComparison(s, d)
	harness.FillWAL(s, 80)
	slotStatus(s, "none")
	s.Exec("insert into respondent (id, assessment_id) values (11, 1)")
	release()
	s.Expect("/hook", append(missedInGap, "created 11")...)
	d.Ready()
	if n := testenv.Value[int](t, s.Store, "select count(*)::int from walhook.incident where kind = 'slot_lost' and resolved_at is not null and detail like '%was dropped: it retained%'"); n != 1 {
		t.Errorf("%d incidents report that the slot was dropped, not 1: %s", n, testenv.Psql(t, s.Store, "select * from walhook.incident"))
	}
}

// The slot releases WAL of other tables and databases within seconds, however little it is, even if everything else is
// idle.
func TestIdleSlotAdvances(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	other := testenv.Database(t, server, "create table other (n int)")
	sites := map[string]*harness.Site{
		"store in the same database": harness.NewSiteOn(t, server, harness.SampleSchema+"; create table other (n int)"),
		"store on another server":    harness.NewSiteOn(t, server, harness.SampleSchema+"; create table other (n int)").WithStore(testenv.Postgres(t)),
	}
	for _, s := range sites {
		s.Run()
	}
	for name, s := range sites {
		for where, db := range map[string]string{"another table": s.DB, "another database": other} {
			testenv.Exec(t, db, "insert into other values (1)")
			written := testenv.Psql(t, s.DB, "select pg_current_wal_insert_lsn()")
			testenv.Eventually(t, harness.Patience, name+": the WAL of "+where+" to be released", func() (bool, string) {
				got := testenv.Psql(t, s.DB, "select confirmed_flush_lsn >= '"+written+"', confirmed_flush_lsn from pg_replication_slots where slot_name = '"+s.Env["SLOT"]+"'")
				return strings.HasPrefix(got, "t"), got + " of " + written
			})
		}
	}
}
