package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walhook/testenv"
	"walhook/testenv/pgserver"
)

// twoWays are what everything says of a copy.
var twoWays = []string{"copy", "walhook attach --adopt", "walhook attach --fresh"}

// copied returns the site of a copy: another database, and otherwise the same configuration. A store in the application's database was
// copied with it.
func (s *site) copied(db string) *site {
	s.t.Helper()
	c := &site{t: s.t, db: db, store: db, receiver: s.receiver, env: maps.Clone(s.env), sentinel: s.sentinel, fences: 1000}
	if store, apart := s.env["STORE_URL"]; apart {
		c.store = store
	}
	return c.with("DATABASE_URL", db)
}

// dumpedTo restores a dump of the application's database in a database of another server, as it is done every day. Roles are not part
// of a dump.
func (s *site) dumpedTo(server *pgserver.Server) (db string) {
	s.t.Helper()
	text := s.dumpText(server)
	db = testenv.Database(s.t, server, "")
	testenv.Exec(s.t, db, groupRoles)
	testenv.Psql(s.t, db, text)
	return db
}

const groupRoles = `do $$ declare r text; begin
	foreach r in array array['walhook_admin', 'walhook_viewer', 'walhook_daemon'] loop
	  if not exists (select from pg_roles where rolname = r) then execute format('create role %I', r); end if;
	end loop; end $$`

// templated copies the application's database on its own server, under another name. Nobody may be connected to it.
func (s *site) templated(server *pgserver.Server) (db string) {
	s.t.Helper()
	testenv.Exec(s.t, server.URL("postgres"), "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", s.database())
	return testenv.Clone(s.t, server, s.database())
}

// undisturbed makes sure of an installation that what is done elsewhere does not touch it: what its store and its server have for it stays,
// and no request comes that is not its own.
func (s *site) undisturbed(what string, do func()) {
	s.t.Helper()
	look := func() string {
		return testenv.Psql(s.t, s.store, `select a::text from walhook.attachment a; select w::text from walhook.webhook w order by id;
			select count(*) from walhook.daemon; select delivery_id, status, attempts from walhook.delivery_log order by 1;
			select max(version) from walhook.schema_version; select count(*) from walhook.incident`) + "\n" +
			testenv.Psql(s.t, s.db, `select slot_name, plugin, database, confirmed_flush_lsn is not null from pg_replication_slots where slot_name = '`+s.env["SLOT"]+`';
			select pubname, oid from pg_publication where pubname = '`+s.publication()+`'`)
	}
	before, requests := look(), len(s.receiver.Requests())
	do()
	if diff := cmp.Diff(before, look()); diff != "" {
		s.t.Errorf("%s disturbed the original (-before +after):\n%s", what, diff)
	}
	if got := len(s.receiver.Requests()); got != requests {
		s.t.Errorf("%s sent %d requests", what, got-requests)
	}
}

// publication returns the name of the site's publication.
func (s *site) publication() string {
	if name := s.env["PUBLICATION"]; name != "" {
		return name
	}
	return "walhook"
}

// refusesAsCopy makes sure that no command and no daemon does anything, and that all of them say why and name the two ways on.
func (s *site) refusesAsCopy() {
	s.t.Helper()
	for _, command := range []string{"attach", "plan", "reconcile", "detach", "status", "doctor"} {
		s.mustFail(command, twoWays...)
	}
	if out, errOut, status := s.walhook("detach", "--drop-schema"); status != 1 || !strings.Contains(errOut, "--adopt") {
		s.t.Errorf("detach --drop-schema: status %d\n%s%s", status, out, errOut)
	}
	for _, auto := range []string{"false", "true"} {
		before := s.catalog()
		d := s.with("AUTO_ATTACH", auto).start()
		for _, text := range twoWays {
			d.readyz(503, text)
		}
		if status := d.stop(); status != 0 {
			s.t.Errorf("the daemon of a copy ended with status %d", status)
		}
		if diff := cmp.Diff(before, s.catalog()); diff != "" {
			s.t.Errorf("the daemon of a copy changed it (-before +after):\n%s", diff)
		}
	}
	delete(s.env, "AUTO_ATTACH")
}

// pendingSite runs production until one delivery has arrived and two are pending. It returns what was sent.
func pendingSite(t *testing.T, s *site) (sent []string) {
	t.Helper()
	s.with("MAX_ATTEMPTS", "1000")
	s.exec("insert into respondent (id, assessment_id) values (100, 1), (101, 1)")
	d := s.run()
	s.hook("/hook", "created")
	s.hook("/hook", "started")
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.expect("/hook", "created 1")
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{Status: 500}))
	s.exec("insert into respondent (id, assessment_id) values (2, 1), (3, 1)")
	s.waitLog("select count(*) from walhook.delivery_log where status = 'pending' and attempts > 0", "2")
	d.stop()
	return s.events("/hook")
}

// A dump of production, restored on another server, has its webhooks and its pending deliveries. Nothing there sends them or takes
// anything, until somebody says which of the two it is.
func TestDumpRestoredElsewhere(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema)
	sent := pendingSite(t, s)
	another := testenv.NewServer(t, nil)
	staging, moved := s.copied(s.dumpedTo(another)), s.copied(s.dumpedTo(another)).with("SLOT", "moved")
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	s.undisturbed("a copy", func() {
		staging.refusesAsCopy()
	})
	ids := testenv.Psql(t, s.store, "select message_id from walhook.delivery_log where status = 'pending' order by 1")
	d := s.start().ready()
	s.expect("/hook", append(sent, "created 2", "created 3")...)
	requests := len(s.receiver.Requests())

	// The daemon of staging goes on by itself once it is resolved.
	waiting := staging.start()
	waiting.readyz(503, "copy")
	out, errOut, status := staging.walhook("attach", "--fresh")
	if status != 0 {
		t.Fatalf("attach --fresh: status %d\n%s%s", status, out, errOut)
	}
	waiting.ready()
	staging.exec("insert into respondent (id, assessment_id) values (50, 1); update respondent set started_at = now() where id = 100")
	staging.waitStored()
	if got := testenv.Psql(t, staging.store, "select count(*), bool_or(enabled), bool_and(disabled_reason ~ 'copy') from walhook.webhook; select count(*) from walhook.queue"); got != "2|f|t\n0" {
		t.Errorf("after attach --fresh there are %s webhooks, any enabled, all with a reason, pending deliveries", got)
	}
	staging.hook("/staging", "created")
	staging.exec("insert into respondent (id, assessment_id) values (51, 1)")
	staging.expect("/staging", "created 51")
	waiting.stop()
	if out, errOut, status := staging.walhook("attach", "--fresh"); status != 0 { // safe to repeat
		t.Errorf("attach --fresh again: status %d\n%s%s", status, out, errOut)
	}
	if got := testenv.Psql(t, staging.store, "select count(*) from walhook.webhook where enabled"); got != "1" {
		t.Errorf("attach --fresh disabled webhooks again: %s are enabled", got)
	}
	if got := len(s.receiver.Requests()) - len(s.receiver.Bodies("/staging")); got != requests {
		t.Errorf("staging sent %d requests to production's receiver", got-requests)
	}

	// Production has moved to the other copy: what is pending goes on under its ids, and what happened there before is made up for.
	d.stop()
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	before := len(s.receiver.Requests())
	moved.exec("insert into respondent (id, assessment_id) values (60, 1); update respondent set started_at = now() where id = 101")
	if out, errOut, status := moved.walhook("attach", "--adopt"); status != 0 {
		t.Fatalf("attach --adopt: status %d\n%s%s", status, out, errOut)
	}
	if out, errOut, status := moved.walhook("attach", "--adopt"); status != 0 {
		t.Errorf("attach --adopt again: status %d\n%s%s", status, out, errOut)
	}
	adopted := moved.start().ready()
	moved.exec("insert into respondent (id, assessment_id) values (61, 1)")
	moved.fence()
	var got []string
	for _, r := range s.receiver.Requests()[before:] {
		match := eventOf.FindStringSubmatch(string(r.Body))
		got = append(got, match[1]+" "+match[2])
	}
	slices.Sort(got)
	if want := []string{"created 2", "created 3", "created 60", "created 61", "started 101"}; !slices.Equal(got, want) {
		t.Errorf("the adopted copy sent %v, not %v", got, want)
	}
	if got := testenv.Psql(t, moved.store, "select message_id from walhook.delivery_log where response_id in ('2', '3') order by 1"); got != ids {
		t.Errorf("the pending deliveries went out under\n%s\ninstead of\n%s", got, ids)
	}
	adopted.stop()
	if out, errOut, status := moved.walhook("status"); strings.Contains(out+errOut, "copy") {
		t.Errorf("status of the adopted copy: %d\n%s%s", status, out, errOut)
	}
}

// A copy of a template is a database of the same server, whose slots have one set of names. What is done there never touches the original's
// slot, nor says to.
func TestTemplateCopy(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := newSiteOn(t, server, sampleSchema)
	sent := pendingSite(t, s)
	staging := s.copied(s.templated(server))
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	slot := s.env["SLOT"]
	s.undisturbed("a copy", func() {
		staging.refusesAsCopy()
		staging.with("SLOT", slot+"_copy").refusesAsCopy()
		staging.with("SLOT", slot)
		for _, way := range []string{"--adopt", "--fresh"} {
			out, errOut, status := staging.walhook("attach", way)
			if status != 1 || !strings.Contains(errOut, fmt.Sprintf("belongs to database %q", s.database())) || !strings.Contains(errOut, "another WALHOOK_SLOT") {
				t.Errorf("attach %s with the original's slot: status %d\n%s%s", way, status, out, errOut)
			}
			for _, harm := range []string{"drop", "DROP"} {
				if strings.Contains(errOut, harm) {
					t.Errorf("attach %s advises to drop something: %s", way, errOut)
				}
			}
		}
		if out, _, _ := staging.walhook("plan"); undoOf(out) != "" || !strings.Contains(out, "There is nothing to run in a copy") {
			t.Errorf("plan has a script in a copy:\n%s", out)
		}
	})
	d := s.start().ready()
	sent = append(sent, "created 2", "created 3")
	s.expect("/hook", sent...)

	staging.with("SLOT", slot+"_copy")
	s.undisturbed("attach --fresh and detach of a copy", func() {
		if out, errOut, status := staging.walhook("attach", "--fresh"); status != 0 {
			t.Fatalf("attach --fresh: status %d\n%s%s", status, out, errOut)
		}
		c := staging.start().ready()
		staging.exec("insert into respondent (id, assessment_id) values (50, 1)")
		staging.waitStored()
		c.stop()
		staging.with("SLOT", slot).mustFail("detach", "set WALHOOK_SLOT")
		if out, errOut, status := staging.with("SLOT", slot+"_copy").walhook("detach", "--drop-schema"); status != 0 {
			t.Fatalf("detach: status %d\n%s%s", status, out, errOut)
		}
	})
	s.exec("insert into respondent (id, assessment_id) values (4, 1)")
	s.waitStored()
	d.readyz(200, "streaming")

	// The copy takes the original's place: production stops, a copy is adopted.
	d.stop()
	moved := s.copied(s.templated(server)).with("SLOT", slot+"_moved")
	moved.exec("insert into respondent (id, assessment_id) values (60, 1)")
	moved.refusesAsCopy()
	if out, errOut, status := moved.walhook("attach", "--adopt"); status != 0 {
		t.Fatalf("attach --adopt: status %d\n%s%s", status, out, errOut)
	}
	moved.start().ready()
	moved.exec("insert into respondent (id, assessment_id) values (61, 1)")
	moved.waitRequests("/hook", len(sent)+3)
	moved.fence()
	if got := s.events("/hook")[len(sent):]; !slices.Equal(got, []string{"created 4", "created 60", "created 61"}) {
		t.Errorf("the adopted copy went on with %v", got)
	}
	if got := testenv.Psql(t, s.db, "select count(*) from pg_replication_slots where database = current_database()"); got != "1" {
		t.Errorf("the original has %s slots", got)
	}
}

// Staging whose store's URL was left at production's neither works on production's store nor stands by, whichever daemon comes first.
func TestStoreOfTheOriginal(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).withStore(testenv.Postgres(t))
	sent := pendingSite(t, s)
	staging := s.copied(testenv.Database(t, testenv.NewServer(t, nil), sampleSchema+"insert into respondent (id, assessment_id) values (70, 1), (71, 1);"))
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	waiting := staging.start()
	waiting.readyz(503, "copy")
	s.undisturbed("staging with production's store", staging.refusesAsCopy)
	d := s.start().ready()
	d.readyz(200, "streaming")
	sent = append(sent, "created 2", "created 3")
	s.expect("/hook", sent...)
	s.undisturbed("staging with production's store", func() {
		staging.refusesAsCopy()
		for _, way := range []string{"--adopt", "--fresh"} {
			if out, errOut, status := staging.walhook("attach", way); status != 1 || !strings.Contains(errOut, "a daemon is running on this store") {
				t.Errorf("attach %s while the original runs: status %d\n%s%s", way, status, out, errOut)
			}
		}
	})
	waiting.readyz(503, "--adopt")
	d.kill()
	staging.exec("insert into respondent (id, assessment_id) values (72, 1)")
	s.exec("insert into respondent (id, assessment_id) values (4, 1)")
	s.start().ready()
	s.expect("/hook", append(sent, "created 4")...)
}

// A database that was renamed, or restored in its place, is the original.
func TestRenamedAndRestoredInPlace(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := newSiteOn(t, server, sampleSchema).withStore(testenv.Postgres(t))
	d := s.run()
	s.hooks()
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.expect("/hook", "created 1")
	d.stop()
	backup := s.database() + "_backup"
	admin := server.URL("postgres")
	rename := func(to string) {
		t.Helper()
		testenv.Exec(t, admin, "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", s.database())
		testenv.Exec(t, admin, "alter database "+s.database()+" rename to "+to)
		s.db = server.URL(to)
		s.with("DATABASE_URL", s.db)
	}
	name := s.database()
	rename("renamed")
	d = s.start().ready()
	s.exec("insert into respondent (id, assessment_id) values (2, 1)")
	s.expect("/hook", "created 1", "created 2")
	d.stop()
	if n := testenv.Value[int](t, s.store, "select count(*)::int from walhook.incident"); n != 0 {
		t.Errorf("a renamed database makes %d incidents", n)
	}

	testenv.Exec(t, admin, "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", s.database())
	testenv.Exec(t, admin, "create database "+backup+" template renamed")
	s.exec("insert into respondent (id, assessment_id) values (3, 1)")
	s.dropSlot()
	testenv.Exec(t, admin, "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", s.database())
	testenv.Exec(t, admin, "drop database renamed")
	testenv.Exec(t, admin, "create database renamed template "+backup)
	s.exec("insert into respondent (id, assessment_id) values (5, 1)")
	s.start().ready()
	s.resolved("slot_lost")
	s.expect("/hook", "created 1", "created 2", "created 5")

	// The backup is a copy all the same.
	c := s.copied(server.URL(backup))
	c.mustFail("status", twoWays...)
	if got := testenv.Psql(t, s.store, "select database = 'renamed' from walhook.attachment"); got != "t" {
		t.Errorf("the attachment is recorded under another name than %s became", name)
	}
}

// An address that begins to lead to a copy stops the stream and the senders, whether it is the source's or the store's; when it leads back
// they go on.
func TestAddressLeadsToACopy(t *testing.T) {
	t.Parallel()
	for _, which := range []string{"source", "store"} {
		t.Run(which, func(t *testing.T) {
			t.Parallel()
			sourceServer, storeServer, another := testenv.NewServer(t, nil), testenv.NewServer(t, nil), testenv.NewServer(t, nil)
			s := newSiteOn(t, sourceServer, sampleSchema).withStore(storeServer).with("MAX_ATTEMPTS", "1000")
			variable, database, original := "DATABASE_URL", s.db, sourceServer
			if which == "store" {
				variable, database, original = "STORE_URL", s.store, storeServer
			}
			wire := s.behindWire(variable, database)
			d := s.run()
			s.hook("/hook", "created")
			s.exec("insert into respondent (id, assessment_id) values (1, 1)")
			s.expect("/hook", "created 1")
			s.receiver.Respond("/hook", testenv.Always(testenv.Reply{Status: 500}))
			s.exec("insert into respondent (id, assessment_id) values (2, 1)")
			s.waitLog("select count(*) from walhook.delivery_log where status = 'pending' and attempts > 0", "1")

			name := (&site{t: t, db: database}).database()
			testenv.Exec(t, another.URL("postgres"), "create database "+name)
			c := &site{t: t, db: another.URL(name), env: map[string]string{}}
			if which == "source" {
				c.exec(sampleSchema + "create publication walhook for table respondent; insert into respondent (id, assessment_id) values (90, 1)")
			} else {
				text := (&site{t: t, db: s.store}).dumpText(another)
				testenv.Exec(t, c.db, groupRoles)
				testenv.Psql(t, c.db, text)
			}
			look := func() string {
				daemons := ""
				if which == "store" {
					daemons = testenv.Psql(t, c.db, "select d::text from walhook.daemon d")
				}
				return c.catalog() + daemons
			}
			before := look()
			wire.Cut()
			wire.Redirect(hostPort(another))
			wire.Restore()
			d.readyz(503, "copy")
			d.readyz(503, "--adopt")
			s.receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
			requests := len(s.receiver.Requests())
			if which == "source" {
				c.exec("insert into respondent (id, assessment_id) values (91, 1)")
			}
			s.exec("insert into respondent (id, assessment_id) values (3, 1)")
			if diff := cmp.Diff(before, look()); diff != "" {
				t.Errorf("the copy was changed (-before +after):\n%s", diff)
			}
			if got := len(s.receiver.Requests()); got != requests {
				t.Errorf("%d requests were sent meanwhile", got-requests)
			}
			wire.Cut()
			wire.Redirect(hostPort(original))
			wire.Restore()
			d.ready()
			s.waitLog("select count(distinct response_id) from walhook.delivery_log where status = 'success'", "3")
		})
	}
}

// dumpText is a dump that psql restores in a database that is there.
func (s *site) dumpText(server *pgserver.Server, options ...string) string {
	s.t.Helper()
	text := dump(s.t, server.BinDir(), s.db, options...)
	if text == "" {
		s.t.Skip("there is no pg_dump for this server: the copies of a template test the same")
	}
	_, script, found := strings.Cut(text, "\\connect ")
	if !found {
		s.t.Fatalf("the dump connects to no database:\n%s", text)
	}
	_, script, _ = strings.Cut(script, "\n")
	return script
}

// detach with another DATABASE_URL than that of what is attached drops nothing, there or here.
func TestDetachFromAnotherDatabase(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).withStore(testenv.Postgres(t))
	s.attach()
	other := newSite(t, sampleSchema)
	other.with("SLOT", other.env["SLOT"]).attach()
	wrong := s.copied(other.db)
	s.undisturbed("detach from another database", func() {
		other.undisturbed("detach of another installation", func() {
			wrong.mustFail("detach", twoWays...)
			wrong.with("SLOT", other.env["SLOT"]).mustFail("detach", twoWays...)
		})
	})
	if out, errOut, status := s.walhook("detach"); status != 0 || !strings.Contains(errOut, "dropped slot") {
		t.Errorf("detach: status %d\n%s%s", status, out, errOut)
	}
}
