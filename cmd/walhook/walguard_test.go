package main

import (
	"fmt"
	"strings"
	"testing"

	"walhook/testenv"
)

// fillWAL writes about n MB of WAL that concerns nobody.
func (s *site) fillWAL(n int) {
	s.t.Helper()
	s.exec("select count(pg_logical_emit_message(false, 'filler', repeat('x', 1000000))) from generate_series(1, $1::int)", n)
}

// slotStatus waits for the slot's wal_status, "none" for a slot that is gone.
func (s *site) slotStatus(want string) {
	s.t.Helper()
	testenv.Eventually(s.t, patience, "the slot's WAL to be "+want, func() (bool, string) {
		got := testenv.Psql(s.t, s.db, "select coalesce((select wal_status from pg_replication_slots where slot_name = '"+s.env["SLOT"]+"'), 'none')")
		return got == want, got
	})
}

// While the store is away the slot holds back WAL. The daemon warns in time; what gives the slot up is WALHOOK_MAX_SLOT_LAG or
// the server itself, and in either case nothing is lost that the rows still show.
func TestSlotHoldsBackTooMuch(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settings     map[string]string
		limit        string
		fill         int    // MB that bring it near
		afterwards   string // of the slot
		warned, told string
	}{
		"WALHOOK_MAX_SLOT_LAG": {
			settings: nil, limit: "64MB", fill: 58, afterwards: "none",
			warned: "WALHOOK_MAX_SLOT_LAG", told: "was given up: it held back",
		},
		"max_slot_wal_keep_size": {
			settings: map[string]string{"max_slot_wal_keep_size": "160MB"}, limit: "0", fill: 150, afterwards: "lost",
			warned: "max_slot_wal_keep_size", told: "was invalidated",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSiteOn(t, testenv.NewServer(t, c.settings), sampleSchema).withStore(testenv.Postgres(t)).with("MAX_SLOT_LAG", c.limit)
			wire := s.behindWire("STORE_URL", s.store)
			s.exec(beforeGap)
			d := s.run()
			s.hooks()
			wire.Cut()
			s.exec(gapHistory)
			s.fillWAL(c.fill)
			testenv.Eventually(t, patience, "a warning", func() (bool, string) {
				_, metrics := d.get("/metrics")
				return strings.Contains(metrics, "walhook_slot_in_danger 1") && strings.Contains(d.log.String(), c.warned), d.log.String()
			})
			s.fillWAL(80)
			s.exec("checkpoint")
			s.slotStatus(c.afterwards)
			wire.Restore()
			d.ready()
			s.expectRecovered("/hook", missedInGap...)
			const query = "select count(*)::int from walhook.incident where kind = 'slot_lost' and resolved_at is not null and detail like '%%%s%%'"
			if n := testenv.Value[int](t, s.store, fmt.Sprintf(query, c.told)); n != 1 {
				t.Errorf("%d incidents tell that the slot %s, not 1: %s", n, c.told, testenv.Psql(t, s.store, "select * from walhook.incident"))
			}
			testenv.Eventually(t, patience, "the danger to be over", func() (bool, string) {
				_, metrics := d.get("/metrics")
				return strings.Contains(metrics, "walhook_slot_in_danger 0"), metrics
			})
		})
	}
}

// A comparison may take long, and the new slot holds back WAL meanwhile: so it does no longer than WALHOOK_MAX_SLOT_LAG allows.
func TestSlotHoldsBackTooMuchWhileComparing(t *testing.T) {
	t.Parallel()
	s := newSiteOn(t, testenv.NewServer(t, nil), sampleSchema).withStore(testenv.Postgres(t)).with("MAX_SLOT_LAG", "64MB")
	s.exec(beforeGap)
	d := s.run()
	s.hooks()
	release := s.holdComparison(d)
	s.fillWAL(80)
	s.slotStatus("none")
	s.exec("insert into respondent (id, assessment_id) values (11, 1)")
	release()
	s.expect("/hook", append(missedInGap, "created 11")...)
	d.ready()
	if n := testenv.Value[int](t, s.store, "select count(*)::int from walhook.incident where kind = 'slot_lost' and resolved_at is not null and detail like '%was given up: it held back%'"); n != 1 {
		t.Errorf("%d incidents tell that the slot was given up, not 1: %s", n, testenv.Psql(t, s.store, "select * from walhook.incident"))
	}
}

// What other tables and databases write releases its WAL within seconds, however little it is and whatever is idle besides.
func TestIdleSlotAdvances(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	other := testenv.Database(t, server, "create table other (n int)")
	sites := map[string]*site{
		"store in the same database": newSiteOn(t, server, sampleSchema+"; create table other (n int)"),
		"store on another server":    newSiteOn(t, server, sampleSchema+"; create table other (n int)").withStore(testenv.Postgres(t)),
	}
	for _, s := range sites {
		s.run()
	}
	for name, s := range sites {
		for where, db := range map[string]string{"another table": s.db, "another database": other} {
			testenv.Exec(t, db, "insert into other values (1)")
			written := testenv.Psql(t, s.db, "select pg_current_wal_insert_lsn()")
			testenv.Eventually(t, patience, name+": the WAL of "+where+" to be released", func() (bool, string) {
				got := testenv.Psql(t, s.db, "select confirmed_flush_lsn >= '"+written+"', confirmed_flush_lsn from pg_replication_slots where slot_name = '"+s.env["SLOT"]+"'")
				return strings.HasPrefix(got, "t"), got + " of " + written
			})
		}
	}
}
