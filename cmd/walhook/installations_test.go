package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/testenv"
)

// must runs a command that is to succeed, and returns what it printed.
func (s *site) must(args ...string) string {
	s.t.Helper()
	out, errOut, status := s.walhook(args...)
	if status != 0 {
		s.t.Fatalf("walhook %v: status %d\n%s%s", args, status, out, errOut)
	}
	return out + errOut
}

// beside returns another installation on the same application's database, with slot, publication and store of its own.
func (s *site) beside(name string) *site {
	s.t.Helper()
	b := s.copied(s.db).with("SLOT", s.env["SLOT"]+"_"+name, "PUBLICATION", name)
	b.receiver = testenv.NewReceiver(s.t)
	b.fences = 1000 * len(name)
	return b.withStore(testenv.Postgres(s.t))
}

// Installations on one database attach, stream, are silenced and detach without each other, whichever goes first, with the store of one
// in the application's database, or of none.
func TestInstallationsSideBySide(t *testing.T) {
	t.Parallel()
	for _, apart := range []bool{false, true} {
		for _, first := range []string{"a", "b"} {
			t.Run(fmt.Sprintf("apart=%t,%s first", apart, first), func(t *testing.T) {
				t.Parallel()
				a := newSite(t, sampleSchema)
				if apart {
					a.withStore(testenv.Postgres(t))
				}
				da := a.run()
				a.hook("/hook", "created")
				b := a.beside("other")

				// What is a's is not taken.
				slot, publication := b.env["SLOT"], b.env["PUBLICATION"]
				b.with("PUBLICATION", "walhook").mustFail("attach", `publication "walhook" is that of another walhook, which reads slot "`+a.env["SLOT"]+`"`, "WALHOOK_PUBLICATION")
				b.with("PUBLICATION", publication, "SLOT", a.env["SLOT"]).mustFail("attach", "this store knows nothing of it", "another WALHOOK_SLOT")
				b.with("SLOT", slot)
				plan := b.must("plan")
				db := b.run()
				b.hook("/hook", "created")

				id := 0
				both := func(sites ...*site) {
					t.Helper()
					id++
					a.exec(fmt.Sprintf("begin; select walhook.silence(); insert into respondent (id, assessment_id) values (%d, 1); commit", 500+id))
					a.exec("insert into respondent (id, assessment_id) values ($1, 1)", id)
					for _, s := range sites {
						s.waitRequests("/hook", id)
						s.fence()
						if got := s.events("/hook"); len(got) != id || got[id-1] != fmt.Sprintf("created %d", id) {
							t.Fatalf("events are %v after %d inserts", got, id)
						}
					}
				}
				both(a, b)
				a.exec("select walhook.unpublish('other', 'respondent'::regclass)")
				if got := testenv.Psql(t, a.db, "select pubname from pg_publication_tables where tablename = 'respondent'"); got != "walhook" {
					t.Errorf("unpublish of one leaves the table in %s", got)
				}
				b.resolved("publication_changed")
				db.ready()
				both(a, b)

				goes, dgoes, stays, dstays := a, da, b, db
				if first == "b" {
					goes, dgoes, stays, dstays = b, db, a, da
				}
				dgoes.stop()
				stays.undisturbed("detach of another installation", func() {
					if first == "b" { // by the undo of its plan, and then by detach
						b.dropSlot()
						if out, err := testenv.TryPsql(t, b.db, undoOf(plan)); err != nil {
							t.Errorf("the undo of a plan: %v\n%s", err, out)
						}
					}
					goes.must("detach", "--drop-schema")
				})
				dstays.readyz(200, "streaming")
				both(stays)
				got := testenv.Psql(t, a.db, "select string_agg(pubname, ','), (select string_agg(slot_name, ',') from pg_replication_slots where database = current_database()) from pg_publication")
				if want := stays.publication() + "|" + stays.env["SLOT"]; got != want {
					t.Errorf("publication and slot that are left: %s, not %s", got, want)
				}
				dstays.stop()
				stays.must("detach", "--drop-schema")
				if got := a.catalog(); strings.Contains(got, "walhook") || strings.Contains(got, "publication|") || strings.Contains(got, "slot|") {
					t.Errorf("the last one left:\n%s", got)
				}
			})
		}
	}
}

// A schema, a publication or a slot that walhook did not create is neither taken over nor dropped.
func TestWhatOthersCreatedIsLeftAlone(t *testing.T) {
	t.Parallel()
	const own = "create schema walhook; create table walhook.webhook (id int); create function walhook.f() returns int language sql return 1;"
	t.Run("schema", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, sampleSchema+own)
		for _, command := range []string{"attach", "plan", "doctor"} {
			s.mustFail(command, "schema walhook in the store is not walhook's", "WALHOOK_STORE_URL")
		}
		if out, errOut, status := s.walhook("detach", "--drop-schema"); status != 1 || !strings.Contains(errOut, "is not walhook's") {
			t.Errorf("detach --drop-schema: status %d\n%s%s", status, out, errOut)
		}
		s.withStore(testenv.Postgres(t)).mustFail("attach", "schema walhook in the application's database is not walhook's")
		if got := testenv.Psql(t, s.db, "select count(*) from walhook.webhook"); got != "0" {
			t.Errorf("the application's table has %s rows", got)
		}
	})
	t.Run("publication of all tables", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, sampleSchema+"create publication everything for all tables; comment on publication everything is 'for the warehouse';").with("PUBLICATION", "everything")
		if testenv.Postgres(t).Version() >= 150000 {
			for _, command := range []string{"attach", "plan"} {
				s.with("PUBLISH", "mapped").mustFail(command, `publication "everything" publishes every column of public.respondent`, "WALHOOK_PUBLICATION")
			}
		}
		s.with("PUBLISH", "all").attach()
		plan := s.must("plan")
		if strings.Contains(undoOf(plan), "drop publication") {
			t.Errorf("the undo drops it:\n%s", undoOf(plan))
		}
		if out := s.must("detach", "--drop-schema"); !strings.Contains(out, `publication "everything" stays`) {
			t.Errorf("detach says\n%s", out)
		}
		if got := testenv.Psql(t, s.db, "select pubname, puballtables, obj_description(oid, 'pg_publication') from pg_publication"); got != "everything|t|for the warehouse" {
			t.Errorf("the publication is %s", got)
		}
	})
	t.Run("publication that lacks the table", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, sampleSchema+"create publication theirs for table assessment;").with("PUBLICATION", "theirs")
		s.mustFail("attach", `publication "theirs" is there, and walhook did not create it`, "lacks table public.respondent", "WALHOOK_PUBLICATION")
		s.mustFail("plan", "walhook did not create it")
	})
	t.Run("slot", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, sampleSchema)
		s.exec("select pg_create_logical_replication_slot($1, 'pgoutput')", s.env["SLOT"])
		s.mustFail("attach", "this store knows nothing of it", "another WALHOOK_SLOT")
		s.must("detach")
		if got := testenv.Psql(t, s.db, "select count(*) from pg_replication_slots where database = current_database()"); got != "1" {
			t.Errorf("%s slots are left", got)
		}
	})
}

// An attach that was interrupted leaves neither slot nor publication behind, also where another one is to be attached next.
func TestInterruptedAttachUnderOtherNames(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema)
	s.attach()
	s.exec("update walhook.attachment set phase = 'attaching', attached_at = null") // as kill -9 leaves it once the slot is there
	s.with("SLOT", s.env["SLOT"]+"_next", "PUBLICATION", "next").attach()
	got := testenv.Psql(t, s.db, "select slot_name from pg_replication_slots where database = current_database(); select pubname from pg_publication")
	if want := s.env["SLOT"] + "\nnext"; got != want {
		t.Errorf("slots and publications are\n%s\ninstead of\n%s", got, want)
	}
	s.start().ready()
	s.hooks()
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.expect("/hook", "created 1")
}

// What waited when a store was detached goes on once it is attached elsewhere, whose transaction ids mean something else.
func TestPendingGoesOnAfterAttachElsewhere(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).withStore(testenv.Postgres(t))
	d := s.run()
	s.hook("/hook", "created", "enabled", "true")
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{Status: 500}))
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.waitLog("select count(*) from walhook.delivery_log where status = 'pending' and attempts > 0", "1")
	d.stop()
	testenv.Exec(t, s.store, "update walhook.queue set xid = 4000000000") // of a server that has written much
	s.must("detach")
	s.db = testenv.Database(t, testenv.NewServer(t, nil), sampleSchema)
	s.with("DATABASE_URL", s.db).attach()
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	s.start().ready()
	s.waitLog("select status from walhook.delivery_log", "success")
}

// A dump of the schema alone, as test databases are made from, has the tables of a store and no rows: attach completes it.
func TestSchemaRestoredWithoutRows(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema)
	s.attach()
	text := s.dumpText(testenv.Postgres(t), "--schema-only")
	c := s.copied(testenv.Database(t, testenv.Postgres(t), "")).with("SLOT", s.env["SLOT"]+"_ci")
	testenv.Psql(t, c.db, text)
	c.mustFail("run", "nothing is attached yet", "walhook attach")
	c.mustFail("status", "nothing is attached yet")
	c.must("plan")
	c.attach()
	c.start().ready()
	c.hooks()
	c.exec("insert into respondent (id, assessment_id) values (1, 1)")
	c.expect("/hook", "created 1")
	if got := testenv.Psql(t, c.db, "select count(*), (select count(*) from walhook.settings), (select version from walhook.schema_version) > 0 from walhook.schema_version"); got != "1|1|t" {
		t.Errorf("versions and settings are %s", got)
	}
}

// If another database takes the slot's name while attach is at work, attach says whose the slot is and leaves nothing.
func TestSlotNameTakenDuringAttach(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema)
	other := newSite(t, sampleSchema)
	other.exec("select pg_create_logical_replication_slot($1, 'pgoutput')", other.env["SLOT"])
	lock, err := pgx.Connect(t.Context(), s.db)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close(context.Background())
	if _, err := lock.Exec(t.Context(), "begin; lock table respondent in share update exclusive mode"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan string, 1)
	go func() {
		out, errOut, status := s.walhook("attach")
		ended <- fmt.Sprintf("status %d\n%s%s", status, out, errOut)
	}()
	testenv.Eventually(t, patience, "attach to wait for the lock", func() (bool, string) {
		n := testenv.Value[int](t, s.db, "select count(*)::int from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query ilike 'create publication%'")
		return n == 1, "it does not"
	})
	other.exec("select pg_copy_logical_replication_slot($1, $2)", other.env["SLOT"], s.env["SLOT"]) // unlike creation it waits for no transaction
	if _, err := lock.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	out := <-ended
	for _, text := range []string{"status 1", fmt.Sprintf("belongs to database %q", other.database()), "another WALHOOK_SLOT"} {
		if !strings.Contains(out, text) {
			t.Errorf("attach does not say %q:\n%s", text, out)
		}
	}
	got := testenv.Psql(t, s.db, "select count(*) from pg_publication; select count(*) from walhook.attachment; select count(*) from pg_replication_slots where database = current_database()")
	if got != "0\n0\n0" {
		t.Errorf("publications, attachments and slots that are left:\n%s", got)
	}
	other.exec("select pg_drop_replication_slot($1)", s.env["SLOT"])
	other.dropSlot()
	s.attach()
}

// An attach that is killed at any instant, and again, is completed by the next one, which leaves one slot and one publication.
func TestAttachKilledAtAnyInstant(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"--adopt", "--fresh"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, sampleSchema+"insert into respondent (id, assessment_id) select g, 1 from generate_series(1, 20000) g;")
			s.attach()
			s.must("detach")
			s.attach()
			c := s.copied(s.templated(testenv.Postgres(t))).with("SLOT", s.env["SLOT"]+"_copy")
			interrupt := func(way string, after time.Duration) {
				t.Helper()
				cmd := c.command("attach", way)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
				defer timer.Stop()
				_ = cmd.Wait()
			}
			began := time.Now()
			_, _, _ = c.walhook("attach", way+"x") // bad usage: what it takes to start
			start := time.Since(began)
			for round := range 6 {
				c.with("SLOT", fmt.Sprintf("%s_copy%d", s.env["SLOT"], round%2))
				interrupt(way, start+time.Duration(rand.IntN(400))*time.Millisecond)
				interrupt(way, start+time.Duration(rand.IntN(400))*time.Millisecond)
				if testenv.Value[string](t, c.store, "select database || ' ' || phase from walhook.attachment") == c.database()+" attached" {
					break // it was through before it was killed
				}
			}
			c.must("attach", way)
			got := testenv.Psql(t, c.db, "select slot_name from pg_replication_slots where database = current_database() and not temporary; select pubname from pg_publication")
			if want := c.env["SLOT"] + "\nwalhook"; got != want {
				t.Errorf("slots and publications are\n%s\ninstead of\n%s", got, want)
			}
			c.start().ready()
			c.hook("/copy", "created")
			c.exec("insert into respondent (id, assessment_id) values (30000, 1)")
			c.expect("/copy", "created 30000")
		})
	}
}

// An adoption that was interrupted does not stand in the way of starting anew, and its slot goes.
func TestFreshAfterAnInterruptedAdoption(t *testing.T) {
	t.Parallel()
	for _, same := range []bool{true, false} {
		s := newSite(t, sampleSchema)
		s.attach()
		c := s.copied(s.templated(testenv.Postgres(t)))
		next := s.env["SLOT"] + "_next"
		c.exec("update walhook.attachment set next_slot = $1", next) // as kill -9 leaves it once the slot is there
		c.exec("select pg_create_logical_replication_slot($1, 'pgoutput')", next)
		c.with("SLOT", next)
		if !same {
			c.with("SLOT", next+"_but_one")
		}
		c.must("attach", "--fresh")
		if got := testenv.Psql(t, c.db, "select slot_name from pg_replication_slots where database = current_database()"); got != c.env["SLOT"] {
			t.Errorf("slots are %s, not %s", got, c.env["SLOT"])
		}
	}
}
