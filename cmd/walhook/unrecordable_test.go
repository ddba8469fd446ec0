package main

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"walhook/testenv"
)

const refuseDDL = `
	create function public.refuse() returns event_trigger language plpgsql as $$ begin raise exception 'no DDL here'; end $$;
	create event trigger refuse on ddl_command_start when tag in ('CREATE TABLE') execute function public.refuse()`

const dropPartitions = `do $$ declare p record; begin
	for p in select q.part from unnest(array['walhook.log'::regclass, 'walhook.attempt']) t (parent) cross join lateral walhook.partitions_of(t.parent) q loop
		execute format('drop table %s', p.part); end loop; end $$`

// respond inserts respondents with these ids.
func (s *site) respond(from, to int) {
	s.t.Helper()
	s.exec("insert into respondent (id, assessment_id) select g, 1 from generate_series($1::int, $2::int) g", from, to)
}

// wrong waits until status ends with 1 and says so.
func (s *site) wrong(says string) {
	s.t.Helper()
	testenv.Eventually(s.t, patience, "status to say "+says, func() (bool, string) {
		out, errOut, status := s.walhook("status")
		return status == 1 && strings.Contains(out, says), fmt.Sprintf("%d\n%s%s", status, out, errOut)
	})
}

// right waits until status ends with 0.
func (s *site) right() {
	s.t.Helper()
	testenv.Eventually(s.t, patience, "status to find nothing wrong", func() (bool, string) {
		out, errOut, status := s.walhook("status")
		return status == 0, fmt.Sprintf("%d\n%s%s", status, out, errOut)
	})
}

// rightNow makes sure that status ends with 0 at the first look.
func (s *site) rightNow() {
	s.t.Helper()
	if out, errOut, status := s.walhook("status"); status != exitOK {
		s.t.Errorf("status ends with %d:\n%s%s", status, out, errOut)
	}
}

// incidents waits for exactly these incidents of a kind, as "resolved" or "open".
func (s *site) incidents(kind, want string) {
	s.t.Helper()
	s.waitLog("select string_agg(case when resolved_at is null then 'open' else 'resolved' end, ',' order by at) from walhook.incident where kind = '"+kind+"'", want)
}

// A log without partitions, and where none can be made, stops no delivery and loses no entry, also across kill -9. It is said everywhere, and
// once partitions can be made again, they take what was recorded meanwhile.
func TestLogWithoutPartitions(t *testing.T) {
	t.Parallel()
	const each = 3000
	s := newSite(t, sampleSchema)
	d := s.run()
	s.hook("/hook", "created")
	testenv.Exec(t, s.store, dropPartitions+";"+refuseDDL)
	s.respond(1, each)
	s.fence()
	d.readyz(503, "no DDL here")
	d.shows(1, "walhook_failing", "concern", "upkeep")
	s.incidents("log_upkeep", "open")
	s.wrong("no DDL here")
	if out, _, status := s.walhook("doctor"); status != 1 || !strings.Contains(out, "no DDL here") {
		t.Errorf("doctor: status %d\n%s", status, out)
	}
	s.respond(each+1, 2*each)
	s.waitRequests("/hook", each+each/2)
	d.kill()
	d = s.start()
	s.fence()
	testenv.Exec(t, s.store, "drop event trigger refuse")
	d.ready()
	s.waitLog("select (select count(*) from walhook.log_overflow), (select count(*) from walhook.log where succeeded)", fmt.Sprintf("0|%d", 2*each))
	s.incidents("log_upkeep", "resolved")
	s.right()
	s.exactlyOnce(2*each, "created")
}

// A locked log, and one that refuses rows, stops no delivery either.
func TestLogThatRefusesRows(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema)
	d := s.run()
	s.hook("/hook", "created")
	locker := testenv.Connect(t, s.store)
	if _, err := locker.Exec(t.Context(), "begin; lock table walhook.log, walhook.attempt in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	s.respond(1, 500)
	s.fence()
	if _, err := locker.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	s.waitLog("select (select count(*) from walhook.log_overflow), (select count(*) from walhook.log where succeeded)", "0|500")
	const open = "select count(*) from walhook.incident where kind = 'log_upkeep' and resolved_at is null"
	s.waitLog(open, "0")
	testenv.Exec(t, s.store, "alter table walhook.log add constraint odd check (response_id::bigint < 600 or response_id::bigint > 700)")
	s.respond(501, 1000)
	s.fence()
	s.waitLog(open, "1")
	s.wrong("odd")
	s.waitLog("select (select count(*) from walhook.log_overflow), (select count(*) from walhook.log where succeeded)", "101|899") // those that can
	testenv.Exec(t, s.store, "alter table walhook.log drop constraint odd")
	s.waitLog("select (select count(*) from walhook.log_overflow), (select count(*) from walhook.log where succeeded)", "0|1000")
	s.waitLog(open, "0")
	d.ready()
	s.right()
	s.exactlyOnce(1000, "created")
}

// An index of the log that cannot be built is reported like the rest of its upkeep, and stops nothing.
func TestLogIndexThatIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).attach()
	testenv.Exec(t, s.store, strings.ReplaceAll(refuseDDL, "CREATE TABLE", "CREATE INDEX")+"; update walhook.settings set time_zone = 'Europe/Berlin'")
	d := s.start().ready()
	s.incidents("log_upkeep", "open")
	d.shows(1, "walhook_failing", "concern", "upkeep")
	s.wrong("no DDL here")
	d.ready()
	testenv.Exec(t, s.store, "drop event trigger refuse")
	s.incidents("log_upkeep", "resolved")
	d.shows(0, "walhook_failing", "concern", "upkeep")
	s.right()
}

// A result that the store refuses by itself is set aside: it stops no other, and is said. Once the store takes it, it is recorded, once.
func TestResultThatIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema)
	d := s.run()
	s.hook("/hook", "created")
	testenv.Exec(t, s.store, `
		create function public.refuse() returns trigger language plpgsql as $$ begin raise exception 'not this one'; end $$;
		create trigger refuse before delete on walhook.queue for each row when (old.response_id in ('7', '1500')) execute function public.refuse()`)
	s.respond(1, 3000)
	s.waitLog("select count(*) from walhook.delivery_log where status = 'success'", "2998")
	d.readyz(503, "not this one")
	d.shows(2, "walhook_unrecorded_results")
	d.shows(1, "walhook_failing", "concern", "recording")
	s.incidents("deliveries_stopped", "open")
	s.wrong("not this one")
	if out, _, status := s.walhook("doctor"); status != 1 || !strings.Contains(out, "not this one") {
		t.Errorf("doctor: status %d\n%s", status, out)
	}
	testenv.Exec(t, s.store, "drop trigger refuse on walhook.queue")
	d.ready()
	s.incidents("deliveries_stopped", "resolved")
	s.right()
	s.exactlyOnce(3000, "created")
	if n := len(s.receiver.Bodies("/hook")); n != 3000 {
		t.Errorf("%d requests for 3000 deliveries", n)
	}

	// Nor does a stop wait for it.
	testenv.Exec(t, s.store, "create trigger refuse before delete on walhook.queue for each row when (old.response_id = '3001') execute function public.refuse()")
	s.respond(3001, 3002)
	d.readyz(503, "not this one")
	if status := d.stop(); status != 0 || strings.Contains(d.log.String(), "stopped with results") {
		t.Errorf("the stop waited for a result that the store refuses; status %d", status)
	}
}

// While the store records nothing at all, it is said as well, and soon after its end everything goes on.
func TestNoResultIsTaken(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema)
	d := s.run()
	s.hook("/hook", "created")
	testenv.Exec(t, s.store, `
		create function public.refuse() returns trigger language plpgsql as $$ begin raise exception 'none of them'; end $$;
		create trigger refuse before delete on walhook.queue for each row execute function public.refuse()`)
	s.respond(1, 3000)
	d.readyz(503, "none of them")
	s.incidents("deliveries_stopped", "open")
	s.wrong("none of them")
	testenv.Exec(t, s.store, "drop trigger refuse on walhook.queue")
	d.ready()
	s.incidents("deliveries_stopped", "resolved")
	s.right()
	s.exactlyOnce(3000, "created")
}

// A daemon that is no superuser, and whose schema's owner may create nothing there any more, stops no delivery. It is said everywhere, until the
// right is given back.
func TestRightToCreateRevoked(t *testing.T) {
	t.Parallel()
	s := newSiteOn(t, testenv.NewServer(t, nil), sampleSchema)
	s.exec("create role own login createrole replication; grant own to current_user; alter table respondent owner to own; grant create on schema public to own")
	db, err := url.Parse(s.db)
	if err != nil {
		t.Fatal(err)
	}
	s.exec("grant create on database " + strings.Trim(db.Path, "/") + " to own")
	db.User = url.User("own")
	s.with("DATABASE_URL", db.String())
	d := s.run()
	s.hook("/hook", "created")
	testenv.Exec(t, s.store, "revoke create on schema walhook from own;"+dropPartitions)
	s.respond(1, 100)
	s.fence()
	d.readyz(503, "permission denied")
	s.incidents("log_upkeep", "open")
	s.wrong("permission denied")
	if out, _, status := s.walhook("doctor"); status != 1 || !strings.Contains(out, "permission denied") || !strings.Contains(out, "GRANT CREATE, USAGE ON SCHEMA walhook") {
		t.Errorf("doctor: status %d\n%s", status, out)
	}
	testenv.Exec(t, s.store, "grant create on schema walhook to own")
	d.ready()
	s.incidents("log_upkeep", "resolved")
	s.exactlyOnce(100, "created")
}
