package commands

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
	"walhook/testenv/pgserver"
)

// twoWays are the texts that every message about a copy contains.
var twoWays = []string{"copy", "walhook attach --adopt", "walhook attach --fresh"}

// copied returns the site of a copy: another database with the same configuration. A store in the application's
// database was copied with it.
func copied(s *harness.Site, db string) *harness.Site {
	s.T.Helper()
	c := &harness.Site{T: s.T, DB: db, Store: db, Receiver: s.Receiver, Env: maps.Clone(s.Env), Sentinel: s.Sentinel, Fences: 1000}
	if store, apart := s.Env["STORE_URL"]; apart {
		c.Store = store
	}
	return c.With("DATABASE_URL", db)
}

// dumpedTo restores a dump of the application's database on another server, as people do every day. Roles are not part
// of a dump.
func dumpedTo(s *harness.Site, server *pgserver.Server) (db string) {
	s.T.Helper()
	text := dumpText(s, server)
	db = testenv.Database(s.T, server, "")
	testenv.Exec(s.T, db, groupRoles)
	testenv.Psql(s.T, db, text)
	return db
}

const groupRoles = `do $$ declare r text; begin
	foreach r in array array['walhook_admin', 'walhook_viewer', 'walhook_daemon'] loop
	  if not exists (select from pg_roles where rolname = r) then execute format('create role %I', r); end if;
	end loop; end $$`

// templated copies the application's database on the same server, under another name. Nobody may be connected to it.
func templated(s *harness.Site, server *pgserver.Server) (db string) {
	s.T.Helper()
	testenv.Exec(s.T, server.URL("postgres"), "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", s.Database())
	return testenv.Clone(s.T, server, s.Database())
}

// undisturbed verifies that actions elsewhere do not affect an installation: its objects on store and server stay, and
// no foreign requests arrive.
func undisturbed(s *harness.Site, what string, do func()) {
	s.T.Helper()
	look := func() string {
		return testenv.Psql(s.T, s.Store, `select a::text from walhook.attachment a; select w::text from walhook.webhook w order by id;
			select count(*) from walhook.daemon; select delivery_id, status, attempts from walhook.delivery_log order by 1;
			select max(version) from walhook.schema_version; select count(*) from walhook.incident`) + "\n" +
			testenv.Psql(s.T, s.DB, `select slot_name, plugin, database, confirmed_flush_lsn is not null from pg_replication_slots where slot_name = '`+s.Env["SLOT"]+`';
			select pubname, oid from pg_publication where pubname = '`+publicationOf(s)+`'`)
	}
	before, requests := look(), len(s.Receiver.Requests())
	do()
	if diff := cmp.Diff(before, look()); diff != "" {
		s.T.Errorf("%s disturbed the original (-before +after):\n%s", what, diff)
	}
	if got := len(s.Receiver.Requests()); got != requests {
		s.T.Errorf("%s sent %d requests", what, got-requests)
	}
}

// publicationOf returns the name of the site's publication.
func publicationOf(s *harness.Site) string {
	if name := s.Env["PUBLICATION"]; name != "" {
		return name
	}
	return "walhook"
}

// refusesAsCopy verifies that no command and no daemon changes anything, and that all of them give the reason and name
// the two ways to continue.
func refusesAsCopy(s *harness.Site) {
	s.T.Helper()
	for _, command := range []string{"attach", "plan", "reconcile", "detach", "status", "doctor"} {
		harness.MustFail(s, command, twoWays...)
	}
	if out, errOut, status := s.Walhook("detach", "--drop-schema"); status != 1 || !strings.Contains(errOut, "--adopt") {
		s.T.Errorf("detach --drop-schema: status %d\n%s%s", status, out, errOut)
	}
	for _, auto := range []string{"false", "true"} {
		before := harness.CatalogOf(s)
		d := s.With("AUTO_ATTACH", auto).Start()
		for _, text := range twoWays {
			d.Readyz(503, text)
		}
		if status := d.Stop(); status != 0 {
			s.T.Errorf("the daemon of a copy exited with status %d", status)
		}
		if diff := cmp.Diff(before, harness.CatalogOf(s)); diff != "" {
			s.T.Errorf("the daemon of a copy changed it (-before +after):\n%s", diff)
		}
	}
	delete(s.Env, "AUTO_ATTACH")
}

// pendingSite runs production until one delivery has arrived and two are pending. It returns their webhook-ids.
func pendingSite(t *testing.T, s *harness.Site) (sent []string) {
	t.Helper()
	s.With("MAX_ATTEMPTS", "1000")
	s.Exec("insert into respondent (id, assessment_id) values (100, 1), (101, 1)")
	d := s.Run()
	s.Hook("/hook", "created")
	s.Hook("/hook", "started")
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/hook", "created 1")
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{Status: 500}))
	s.Exec("insert into respondent (id, assessment_id) values (2, 1), (3, 1)")
	s.WaitLog("select count(*) from walhook.delivery_log where status = 'pending' and attempts > 0", "2")
	d.Stop()
	return s.Events("/hook")
}

// A dump of production, restored on another server, has its webhooks and its pending deliveries. Nothing there sends
// them or takes anything over until somebody decides which of the two it is.
func TestDumpRestoredElsewhere(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	sent := pendingSite(t, s)
	another := testenv.NewServer(t, nil)
	staging, moved := copied(s, dumpedTo(s, another)), copied(s, dumpedTo(s, another)).With("SLOT", "moved")
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	undisturbed(s, "a copy", func() {
		refusesAsCopy(staging)
	})
	ids := testenv.Psql(t, s.Store, "select message_id from walhook.delivery_log where status = 'pending' order by 1")
	d := s.Start().Ready()
	s.Expect("/hook", append(sent, "created 2", "created 3")...)
	requests := len(s.Receiver.Requests())

	// Staging's daemon starts on its own once this is decided.
	waiting := staging.Start()
	waiting.Readyz(503, "copy")
	out, errOut, status := staging.Walhook("attach", "--fresh")
	if status != 0 {
		t.Fatalf("attach --fresh: status %d\n%s%s", status, out, errOut)
	}
	waiting.Ready()
	staging.Exec("insert into respondent (id, assessment_id) values (50, 1); update respondent set started_at = now() where id = 100")
	staging.WaitStored()
	if got := testenv.Psql(t, staging.Store, "select count(*), bool_or(enabled), bool_and(disabled_reason ~ 'copy') from walhook.webhook; select count(*) from walhook.queue"); got != "2|f|t\n0" {
		t.Errorf("after attach --fresh there are %s webhooks, any enabled, all with a reason, pending deliveries", got)
	}
	staging.Hook("/staging", "created")
	staging.Exec("insert into respondent (id, assessment_id) values (51, 1)")
	staging.Expect("/staging", "created 51")
	waiting.Stop()
	if out, errOut, status := staging.Walhook("attach", "--fresh"); status != 0 { // safe to repeat
		t.Errorf("attach --fresh again: status %d\n%s%s", status, out, errOut)
	}
	if got := testenv.Psql(t, staging.Store, "select count(*) from walhook.webhook where enabled"); got != "1" {
		t.Errorf("attach --fresh disabled webhooks again: %s are enabled", got)
	}
	if got := len(s.Receiver.Requests()) - len(s.Receiver.Bodies("/staging")); got != requests {
		t.Errorf("staging sent %d requests to production's receiver", got-requests)
	}

	// Production moves to the other copy: pending deliveries keep their ids, and events that happened there before are
	// fired.
	d.Stop()
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	before := len(s.Receiver.Requests())
	moved.Exec("insert into respondent (id, assessment_id) values (60, 1); update respondent set started_at = now() where id = 101")
	if out, errOut, status := moved.Walhook("attach", "--adopt"); status != 0 {
		t.Fatalf("attach --adopt: status %d\n%s%s", status, out, errOut)
	}
	if out, errOut, status := moved.Walhook("attach", "--adopt"); status != 0 {
		t.Errorf("attach --adopt again: status %d\n%s%s", status, out, errOut)
	}
	adopted := moved.Start().Ready()
	moved.Exec("insert into respondent (id, assessment_id) values (61, 1)")
	moved.Fence()
	var got []string
	for _, r := range s.Receiver.Requests()[before:] {
		match := harness.EventOf.FindStringSubmatch(string(r.Body))
		got = append(got, match[1]+" "+match[2])
	}
	slices.Sort(got)
	if want := []string{"created 2", "created 3", "created 60", "created 61", "started 101"}; !slices.Equal(got, want) {
		t.Errorf("the adopted copy sent %v, not %v", got, want)
	}
	if got := testenv.Psql(t, moved.Store, "select message_id from walhook.delivery_log where response_id in ('2', '3') order by 1"); got != ids {
		t.Errorf("the pending deliveries were sent with the ids\n%s\ninstead of\n%s", got, ids)
	}
	adopted.Stop()
	if out, errOut, status := moved.Walhook("status"); strings.Contains(out+errOut, "copy") {
		t.Errorf("status of the adopted copy: %d\n%s%s", status, out, errOut)
	}
}

// A template copy is a database on the same server, whose slots share their names. Nothing there touches the original's
// slot, or advises to do so.
func TestTemplateCopy(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, server, harness.SampleSchema)
	sent := pendingSite(t, s)
	staging := copied(s, templated(s, server))
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	slot := s.Env["SLOT"]
	undisturbed(s, "a copy", func() {
		refusesAsCopy(staging)
		refusesAsCopy(staging.With("SLOT", slot+"_copy"))
		staging.With("SLOT", slot)
		// Nor is an upgrade what a copy of an older version needs.
		testenv.Psql(t, staging.Store, "update walhook.schema_version set version = version - 1")
		for _, command := range []string{"reconcile", "detach", "status", "doctor"} {
			harness.MustFail(staging, command, twoWays...)
		}
		old := staging.Start()
		old.Readyz(503, "--adopt")
		old.Stop()
		testenv.Psql(t, staging.Store, "update walhook.schema_version set version = version + 1")
		for _, way := range []string{"--adopt", "--fresh"} {
			out, errOut, status := staging.Walhook("attach", way)
			if status != 1 || !strings.Contains(errOut, fmt.Sprintf("belongs to database %q", s.Database())) || !strings.Contains(errOut, "another WALHOOK_SLOT") {
				t.Errorf("attach %s with the original's slot: status %d\n%s%s", way, status, out, errOut)
			}
			for _, harm := range []string{"drop", "DROP"} {
				if strings.Contains(errOut, harm) {
					t.Errorf("attach %s advises to drop something: %s", way, errOut)
				}
			}
		}
		out, _, _ := staging.Walhook("plan")
		head, _, _ := strings.Cut(out, "\n\\set")
		if undoOf(out) != "" || !strings.Contains(head, "There is nothing to run in a copy") || strings.Contains(head, "Run it by") {
			t.Errorf("plan prints a script in a copy:\n%s", out)
		}
	})
	d := s.Start().Ready()
	sent = append(sent, "created 2", "created 3")
	s.Expect("/hook", sent...)

	staging.With("SLOT", slot+"_copy")
	undisturbed(s, "attach --fresh and detach of a copy", func() {
		if out, errOut, status := staging.Walhook("attach", "--fresh"); status != 0 {
			t.Fatalf("attach --fresh: status %d\n%s%s", status, out, errOut)
		}
		c := staging.Start().Ready()
		staging.Exec("insert into respondent (id, assessment_id) values (50, 1)")
		staging.WaitStored()
		c.Stop()
		harness.MustFail(staging.With("SLOT", slot), "detach", "set WALHOOK_SLOT")
		if out, errOut, status := staging.With("SLOT", slot+"_copy").Walhook("detach", "--drop-schema"); status != 0 {
			t.Fatalf("detach: status %d\n%s%s", status, out, errOut)
		}
	})
	s.Exec("insert into respondent (id, assessment_id) values (4, 1)")
	s.WaitStored()
	d.Readyz(200, "streaming")

	// The copy replaces the original: production stops, the copy is adopted.
	d.Stop()
	moved := copied(s, templated(s, server)).With("SLOT", slot+"_moved")
	moved.Exec("insert into respondent (id, assessment_id) values (60, 1)")
	refusesAsCopy(moved)
	if out, errOut, status := moved.Walhook("attach", "--adopt"); status != 0 {
		t.Fatalf("attach --adopt: status %d\n%s%s", status, out, errOut)
	}
	moved.Start().Ready()
	moved.Exec("insert into respondent (id, assessment_id) values (61, 1)")
	moved.WaitRequests("/hook", len(sent)+3)
	moved.Fence()
	if got := s.Events("/hook")[len(sent):]; !slices.Equal(got, []string{"created 4", "created 60", "created 61"}) {
		t.Errorf("the adopted copy continued with %v", got)
	}
	if got := testenv.Psql(t, s.DB, "select count(*) from pg_replication_slots where database = current_database()"); got != "1" {
		t.Errorf("the original has %s slots", got)
	}
}

// Staging with production's store URL neither works on production's store nor stands by, whichever daemon starts first.
func TestStoreOfTheOriginal(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.Postgres(t))
	sent := pendingSite(t, s)
	staging := copied(s, testenv.Database(t, testenv.NewServer(t, nil), harness.SampleSchema+"insert into respondent (id, assessment_id) values (70, 1), (71, 1);"))
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	waiting := staging.Start()
	waiting.Readyz(503, "copy")
	undisturbed(s, "staging with production's store", func() { refusesAsCopy(staging) })
	d := s.Start().Ready()
	d.Readyz(200, "streaming")
	sent = append(sent, "created 2", "created 3")
	s.Expect("/hook", sent...)
	undisturbed(s, "staging with production's store", func() {
		refusesAsCopy(staging)
		for _, way := range []string{"--adopt", "--fresh"} {
			if out, errOut, status := staging.Walhook("attach", way); status != 1 || !strings.Contains(errOut, "a daemon is running on this store") {
				t.Errorf("attach %s while the original runs: status %d\n%s%s", way, status, out, errOut)
			}
		}
	})
	waiting.Readyz(503, "--adopt")
	d.Kill()
	staging.Exec("insert into respondent (id, assessment_id) values (72, 1)")
	s.Exec("insert into respondent (id, assessment_id) values (4, 1)")
	s.Start().Ready()
	s.Expect("/hook", append(sent, "created 4")...)
}

// A database that was renamed, or restored in place, is the original.
func TestRenamedAndRestoredInPlace(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, server, harness.SampleSchema).WithStore(testenv.Postgres(t))
	d := s.Run()
	s.Hooks()
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/hook", "created 1")
	d.Stop()
	backup := s.Database() + "_backup"
	admin := server.URL("postgres")
	rename := func(to string) {
		t.Helper()
		testenv.Exec(t, admin, "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", s.Database())
		testenv.Exec(t, admin, "alter database "+s.Database()+" rename to "+to)
		s.DB = server.URL(to)
		s.With("DATABASE_URL", s.DB)
	}
	name := s.Database()
	rename("renamed")
	d = s.Start().Ready()
	s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
	s.Expect("/hook", "created 1", "created 2")
	d.Stop()
	if n := testenv.Value[int](t, s.Store, "select count(*)::int from walhook.incident"); n != 0 {
		t.Errorf("a renamed database opens %d incidents", n)
	}

	testenv.Exec(t, admin, "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", s.Database())
	testenv.Exec(t, admin, "create database "+backup+" template renamed")
	s.Exec("insert into respondent (id, assessment_id) values (3, 1)")
	s.DropSlot()
	testenv.Exec(t, admin, "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", s.Database())
	testenv.Exec(t, admin, "drop database renamed")
	testenv.Exec(t, admin, "create database renamed template "+backup)
	s.Exec("insert into respondent (id, assessment_id) values (5, 1)")
	d = s.Start().Ready()
	harness.WaitResolved(s, "slot_lost")
	s.Expect("/hook", "created 1", "created 2", "created 5")
	d.Stop()

	// The backup is a copy nevertheless, even with the original's name while the original has another one.
	harness.MustFail(copied(s, server.URL(backup)), "status", twoWays...)
	rename("away")
	testenv.Exec(t, admin, "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", backup)
	testenv.Exec(t, admin, "create database renamed template "+backup)
	harness.MustFail(copied(s, server.URL("renamed")), "status", twoWays...)
	if got := testenv.Psql(t, s.Store, "select database = 'renamed' from walhook.attachment"); got != "t" {
		t.Errorf("the attachment does not have the new name %s", name)
	}
}

// If the address of the source or the store starts to lead to a copy, stream and senders stop; once it leads back, they
// continue.
func TestAddressLeadsToACopy(t *testing.T) {
	t.Parallel()
	for _, which := range []string{"source", "store"} {
		t.Run(which, func(t *testing.T) {
			t.Parallel()
			sourceServer, storeServer, another := testenv.NewServer(t, nil), testenv.NewServer(t, nil), testenv.NewServer(t, nil)
			s := harness.NewSiteOn(t, sourceServer, harness.SampleSchema).WithStore(storeServer).With("MAX_ATTEMPTS", "1000")
			variable, database, original := "DATABASE_URL", s.DB, sourceServer
			if which == "store" {
				variable, database, original = "STORE_URL", s.Store, storeServer
			}
			wire := harness.BehindWire(s, variable, database)
			d := s.Run()
			s.Hook("/hook", "created")
			s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
			s.Expect("/hook", "created 1")
			s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{Status: 500}))
			s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
			s.WaitLog("select count(*) from walhook.delivery_log where status = 'pending' and attempts > 0", "1")

			name := (&harness.Site{T: t, DB: database}).Database()
			testenv.Exec(t, another.URL("postgres"), "create database "+name)
			c := &harness.Site{T: t, DB: another.URL(name), Env: map[string]string{}}
			if which == "source" {
				c.Exec(harness.SampleSchema + "create publication walhook for table respondent; insert into respondent (id, assessment_id) values (90, 1)")
			} else {
				text := dumpText((&harness.Site{T: t, DB: s.Store}), another)
				testenv.Exec(t, c.DB, groupRoles)
				testenv.Psql(t, c.DB, text)
			}
			look := func() string {
				daemons := ""
				if which == "store" {
					daemons = testenv.Psql(t, c.DB, "select d::text from walhook.daemon d")
				}
				return harness.CatalogOf(c) + daemons
			}
			before := look()
			wire.Cut()
			wire.Redirect(harness.HostPort(another))
			wire.Restore()
			d.Readyz(503, "copy")
			d.Readyz(503, "--adopt")
			s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
			requests := len(s.Receiver.Requests())
			if which == "source" {
				c.Exec("insert into respondent (id, assessment_id) values (91, 1)")
			}
			s.Exec("insert into respondent (id, assessment_id) values (3, 1)")
			if diff := cmp.Diff(before, look()); diff != "" {
				t.Errorf("the copy was changed (-before +after):\n%s", diff)
			}
			if got := len(s.Receiver.Requests()); got != requests {
				t.Errorf("%d requests were sent meanwhile", got-requests)
			}
			wire.Cut()
			wire.Redirect(harness.HostPort(original))
			wire.Restore()
			d.Ready()
			s.WaitLog("select count(distinct response_id) from walhook.delivery_log where status = 'success'", "3")
		})
	}
}

// dumpText returns a dump that psql restores into an existing database.
func dumpText(s *harness.Site, server *pgserver.Server, options ...string) string {
	s.T.Helper()
	text := dump(s.T, server.BinDir(), s.DB, options...)
	if text == "" {
		s.T.Skip("no pg_dump for this server; the template copies test the same")
	}
	_, script, found := strings.Cut(text, "\\connect ")
	if !found {
		s.T.Fatalf("the dump does not connect to a database:\n%s", text)
	}
	_, script, _ = strings.Cut(script, "\n")
	return script
}

// detach with the URL of a database that is not attached drops nothing, neither there nor here.
func TestDetachFromAnotherDatabase(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).WithStore(testenv.Postgres(t))
	s.Attach()
	other := harness.NewSite(t, harness.SampleSchema)
	other.With("SLOT", other.Env["SLOT"]).Attach()
	wrong := copied(s, other.DB)
	undisturbed(s, "detach from another database", func() {
		undisturbed(other, "detach of another installation", func() {
			harness.MustFail(wrong, "detach", twoWays...)
			harness.MustFail(wrong.With("SLOT", other.Env["SLOT"]), "detach", twoWays...)
		})
	})
	if out, errOut, status := s.Walhook("detach"); status != 0 || !strings.Contains(errOut, "dropped slot") {
		t.Errorf("detach: status %d\n%s%s", status, out, errOut)
	}
}
