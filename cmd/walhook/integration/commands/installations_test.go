package commands

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// must runs a command that must succeed, and returns its output.
func must(s *harness.Site, args ...string) string {
	s.T.Helper()
	out, errOut, status := s.Walhook(args...)
	if status != 0 {
		s.T.Fatalf("walhook %v: status %d\n%s%s", args, status, out, errOut)
	}
	return out + errOut
}

// beside returns another installation on the same application's database, with its own slot, publication and store.
func beside(s *harness.Site, name string) *harness.Site {
	s.T.Helper()
	b := copied(s, s.DB).With("SLOT", s.Env["SLOT"]+"_"+name, "PUBLICATION", name)
	b.Receiver = testenv.NewReceiver(s.T)
	b.Fences = 1000 * len(name)
	return b.WithStore(testenv.Postgres(s.T))
}

// Installations on one database attach, stream, are silenced and detach independently, in any order, with or without a
// store in the application's database.
func TestInstallationsSideBySide(t *testing.T) {
	t.Parallel()
	for _, apart := range []bool{false, true} {
		for _, first := range []string{"a", "b"} {
			t.Run(fmt.Sprintf("apart=%t,%s first", apart, first), func(t *testing.T) {
				t.Parallel()
				a := harness.NewSite(t, harness.SampleSchema)
				if apart {
					a.WithStore(testenv.Postgres(t))
				}
				da := a.Run()
				a.Hook("/hook", "created")
				b := beside(a, "other")

				// b cannot take what belongs to a.
				slot, publication := b.Env["SLOT"], b.Env["PUBLICATION"]
				harness.MustFail(b.With("PUBLICATION", "walhook"), "attach", `publication "walhook" belongs to another walhook, which reads slot "`+a.Env["SLOT"]+`"`, "WALHOOK_PUBLICATION")
				harness.MustFail(b.With("PUBLICATION", publication, "SLOT", a.Env["SLOT"]), "attach", "this store did not create it", "another WALHOOK_SLOT")
				b.With("SLOT", slot)
				plan := must(b, "plan")
				db := b.Run()
				b.Hook("/hook", "created")

				id := 0
				both := func(sites ...*harness.Site) {
					t.Helper()
					id++
					a.Exec(fmt.Sprintf("begin; select walhook.silence(); insert into respondent (id, assessment_id) values (%d, 1); commit", 500+id))
					a.Exec("insert into respondent (id, assessment_id) values ($1, 1)", id)
					for _, s := range sites {
						s.WaitRequests("/hook", id)
						s.Fence()
						if got := s.Events("/hook"); len(got) != id || got[id-1] != fmt.Sprintf("created %d", id) {
							t.Fatalf("events are %v after %d inserts", got, id)
						}
					}
				}
				both(a, b)
				a.Exec("select walhook.unpublish('other', 'respondent'::regclass)")
				if got := testenv.Psql(t, a.DB, "select pubname from pg_publication_tables where tablename = 'respondent'"); got != "walhook" {
					t.Errorf("after unpublish of one, the table is published in %s", got)
				}
				harness.WaitResolved(b, "publication_changed")
				db.Ready()
				both(a, b)

				goes, dgoes, stays, dstays := a, da, b, db
				if first == "b" {
					goes, dgoes, stays, dstays = b, db, a, da
				}
				dgoes.Stop()
				undisturbed(stays, "detach of another installation", func() {
					if first == "b" { // with the undo of its plan, and then with detach
						b.DropSlot()
						if out, err := testenv.TryPsql(t, b.DB, undoOf(plan)); err != nil {
							t.Errorf("the undo of a plan: %v\n%s", err, out)
						}
					}
					must(goes, "detach", "--drop-schema")
				})
				dstays.Readyz(200, "streaming")
				both(stays)
				got := testenv.Psql(t, a.DB, "select string_agg(pubname, ','), (select string_agg(slot_name, ',') from pg_replication_slots where database = current_database()) from pg_publication")
				if want := publicationOf(stays) + "|" + stays.Env["SLOT"]; got != want {
					t.Errorf("the remaining publication and slot are %s, not %s", got, want)
				}
				dstays.Stop()
				must(stays, "detach", "--drop-schema")
				if got := harness.CatalogOf(a); strings.Contains(got, "walhook") || strings.Contains(got, "publication|") || strings.Contains(got, "slot|") {
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
		s := harness.NewSite(t, harness.SampleSchema+own)
		for _, command := range []string{"attach", "plan", "doctor"} {
			harness.MustFail(s, command, "schema walhook in the store is not walhook's", "WALHOOK_STORE_URL")
		}
		if out, errOut, status := s.Walhook("detach", "--drop-schema"); status != 1 || !strings.Contains(errOut, "is not walhook's") {
			t.Errorf("detach --drop-schema: status %d\n%s%s", status, out, errOut)
		}
		harness.MustFail(s.WithStore(testenv.Postgres(t)), "attach", "schema walhook in the application's database is not walhook's")
		if got := testenv.Psql(t, s.DB, "select count(*) from walhook.webhook"); got != "0" {
			t.Errorf("the application's table has %s rows", got)
		}
	})
	t.Run("publication of all tables", func(t *testing.T) {
		t.Parallel()
		s := harness.NewSite(t, harness.SampleSchema+"create publication everything for all tables; comment on publication everything is 'for the warehouse';").With("PUBLICATION", "everything")
		if testenv.Postgres(t).Version() >= 150000 {
			for _, command := range []string{"attach", "plan"} {
				harness.MustFail(s.With("PUBLISH", "mapped"), command, `publication "everything" publishes every column of public.respondent`, "WALHOOK_PUBLICATION")
			}
		}
		s.With("PUBLISH", "all").Attach()
		plan := must(s, "plan")
		if strings.Contains(undoOf(plan), "drop publication") {
			t.Errorf("the undo drops it:\n%s", undoOf(plan))
		}
		if out := must(s, "detach", "--drop-schema"); !strings.Contains(out, `publication "everything" stays`) {
			t.Errorf("detach says\n%s", out)
		}
		if got := testenv.Psql(t, s.DB, "select pubname, puballtables, obj_description(oid, 'pg_publication') from pg_publication"); got != "everything|t|for the warehouse" {
			t.Errorf("the publication is %s", got)
		}
	})
	t.Run("publication that lacks the table", func(t *testing.T) {
		t.Parallel()
		s := harness.NewSite(t, harness.SampleSchema+"create publication theirs for table assessment;").With("PUBLICATION", "theirs")
		harness.MustFail(s, "attach", `publication "theirs" exists, and walhook did not create it`, "lacks table public.respondent", "WALHOOK_PUBLICATION")
		harness.MustFail(s, "plan", "walhook did not create it")
	})
	t.Run("slot", func(t *testing.T) {
		t.Parallel()
		s := harness.NewSite(t, harness.SampleSchema)
		s.Exec("select pg_create_logical_replication_slot($1, 'pgoutput')", s.Env["SLOT"])
		harness.MustFail(s, "attach", "this store did not create it", "another WALHOOK_SLOT")
		must(s, "detach")
		if got := testenv.Psql(t, s.DB, "select count(*) from pg_replication_slots where database = current_database()"); got != "1" {
			t.Errorf("%s slots are left", got)
		}
	})
}

// An interrupted attach leaves neither slot nor publication behind, even if the next attach uses other names.
func TestInterruptedAttachUnderOtherNames(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Attach()
	s.Exec("update walhook.attachment set phase = 'attaching', attached_at = null") // the state after kill -9 once the slot exists
	s.With("SLOT", s.Env["SLOT"]+"_next", "PUBLICATION", "next").Attach()
	got := testenv.Psql(t, s.DB, "select slot_name from pg_replication_slots where database = current_database(); select pubname from pg_publication")
	if want := s.Env["SLOT"] + "\nnext"; got != want {
		t.Errorf("slots and publications are\n%s\ninstead of\n%s", got, want)
	}
	s.Start().Ready()
	s.Hooks()
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/hook", "created 1")
}

// Deliveries that were pending at detach are sent once the store is attached elsewhere, though transaction ids mean
// something else there.
func TestPendingGoesOnAfterAttachElsewhere(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.Postgres(t))
	d := s.Run()
	s.Hook("/hook", "created", "enabled", "true")
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{Status: 500}))
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.WaitLog("select count(*) from walhook.delivery_log where status = 'pending' and attempts > 0", "1")
	d.Stop()
	testenv.Exec(t, s.Store, "update walhook.queue set xid = 4000000000") // of a server with many transactions
	must(s, "detach")
	s.DB = testenv.Database(t, testenv.NewServer(t, nil), harness.SampleSchema)
	s.With("DATABASE_URL", s.DB).Attach()
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	s.Start().Ready()
	s.WaitLog("select status from walhook.delivery_log", "success")
}

// A dump of only the schema, as used for test databases, has a store's tables but no rows: attach completes it.
func TestSchemaRestoredWithoutRows(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Attach()
	text := dumpText(s, testenv.Postgres(t), "--schema-only")
	c := copied(s, testenv.Database(t, testenv.Postgres(t), "")).With("SLOT", s.Env["SLOT"]+"_ci")
	testenv.Psql(t, c.DB, text)
	harness.MustFail(c, "run", "nothing is attached yet", "walhook attach")
	harness.MustFail(c, "status", "nothing is attached yet")
	must(c, "plan")
	c.Attach()
	c.Start().Ready()
	c.Hooks()
	c.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	c.Expect("/hook", "created 1")
	if got := testenv.Psql(t, c.DB, "select count(*), (select count(*) from walhook.settings), (select version from walhook.schema_version) > 0 from walhook.schema_version"); got != "1|1|t" {
		t.Errorf("versions and settings are %s", got)
	}
}

// If another database takes the slot's name during attach, attach names that database and leaves nothing behind.
func TestSlotNameTakenDuringAttach(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	other := harness.NewSite(t, harness.SampleSchema)
	other.Exec("select pg_create_logical_replication_slot($1, 'pgoutput')", other.Env["SLOT"])
	lock, err := pgx.Connect(t.Context(), s.DB)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close(context.Background())
	if _, err := lock.Exec(t.Context(), "begin; lock table respondent in share update exclusive mode"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan string, 1)
	go func() {
		out, errOut, status := s.Walhook("attach")
		ended <- fmt.Sprintf("status %d\n%s%s", status, out, errOut)
	}()
	testenv.Eventually(t, harness.Patience, "attach to wait for the lock", func() (bool, string) {
		n := testenv.Value[int](t, s.DB, "select count(*)::int from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query ilike 'create publication%'")
		return n == 1, "it does not"
	})
	other.Exec("select pg_copy_logical_replication_slot($1, $2)", other.Env["SLOT"], s.Env["SLOT"]) // unlike creation, this does not wait for transactions
	if _, err := lock.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	out := <-ended
	for _, text := range []string{"status 1", fmt.Sprintf("belongs to database %q", other.Database()), "another WALHOOK_SLOT"} {
		if !strings.Contains(out, text) {
			t.Errorf("attach does not say %q:\n%s", text, out)
		}
	}
	got := testenv.Psql(t, s.DB, "select count(*) from pg_publication; select count(*) from walhook.attachment; select count(*) from pg_replication_slots where database = current_database()")
	if got != "0\n0\n0" {
		t.Errorf("attach left publications, attachments and slots:\n%s", got)
	}
	other.Exec("select pg_drop_replication_slot($1)", s.Env["SLOT"])
	other.DropSlot()
	s.Attach()
}

// An attach that is repeatedly killed at any instant is completed by the next one, with one slot and one publication.
func TestAttachKilledAtAnyInstant(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"--adopt", "--fresh"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema+"insert into respondent (id, assessment_id) select g, 1 from generate_series(1, 20000) g;")
			s.Attach()
			must(s, "detach")
			indexed := func(s *harness.Site) {
				t.Helper()
				if got := testenv.Psql(t, s.Store, "select count(*) from pg_indexes where starts_with(indexname, 'response_newest')"); got != "3" {
					t.Errorf("%s indexes over the newest responses are left of 3", got)
				}
			}
			s.Attach()
			indexed(s)
			c := copied(s, templated(s, testenv.Postgres(t))).With("SLOT", s.Env["SLOT"]+"_copy")
			interrupt := func(way string, after time.Duration) {
				t.Helper()
				cmd := c.Command("attach", way)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
				defer timer.Stop()
				_ = cmd.Wait()
			}
			began := time.Now()
			_, _, _ = c.Walhook("attach", way+"x") // invalid usage, to measure the startup time
			start := time.Since(began)
			for round := range 6 {
				c.With("SLOT", fmt.Sprintf("%s_copy%d", s.Env["SLOT"], round%2))
				interrupt(way, start+time.Duration(rand.IntN(400))*time.Millisecond)
				interrupt(way, start+time.Duration(rand.IntN(400))*time.Millisecond)
				if testenv.Value[string](t, c.Store, "select database || ' ' || phase from walhook.attachment") == c.Database()+" attached" {
					break // it had finished before it was killed
				}
			}
			must(c, "attach", way)
			got := testenv.Psql(t, c.DB, "select slot_name from pg_replication_slots where database = current_database() and not temporary; select pubname from pg_publication")
			if want := c.Env["SLOT"] + "\nwalhook"; got != want {
				t.Errorf("slots and publications are\n%s\ninstead of\n%s", got, want)
			}
			indexed(c)
			c.Start().Ready()
			c.Hook("/copy", "created")
			c.Exec("insert into respondent (id, assessment_id) values (30000, 1)")
			c.Expect("/copy", "created 30000")
		})
	}
}

// An interrupted adoption does not prevent attach --fresh, which drops its slot.
func TestFreshAfterAnInterruptedAdoption(t *testing.T) {
	t.Parallel()
	for _, same := range []bool{true, false} {
		s := harness.NewSite(t, harness.SampleSchema)
		s.Attach()
		c := copied(s, templated(s, testenv.Postgres(t)))
		next := s.Env["SLOT"] + "_next"
		c.Exec("update walhook.attachment set next_slot = $1", next) // the state after kill -9 once the slot exists
		c.Exec("select pg_create_logical_replication_slot($1, 'pgoutput')", next)
		c.With("SLOT", next)
		if !same {
			c.With("SLOT", next+"_but_one")
		}
		must(c, "attach", "--fresh")
		if got := testenv.Psql(t, c.DB, "select slot_name from pg_replication_slots where database = current_database()"); got != c.Env["SLOT"] {
			t.Errorf("slots are %s, not %s", got, c.Env["SLOT"])
		}
	}
}
