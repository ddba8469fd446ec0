package deliveries

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

const dropPartitions = `do $$ declare p record; begin
	for p in select q.part from unnest(array['walhook.log'::regclass, 'walhook.attempt']) t (parent) cross join lateral walhook.partitions_of(t.parent) q loop
		execute format('drop table %s', p.part); end loop; end $$`

// wrong waits until status exits with 1 and prints the text.
func wrong(s *harness.Site, says string) {
	s.T.Helper()
	testenv.Eventually(s.T, harness.Patience, "status to say "+says, func() (bool, string) {
		out, errOut, status := s.Walhook("status")
		return status == 1 && strings.Contains(out, says), fmt.Sprintf("%d\n%s%s", status, out, errOut)
	})
}

// incidents waits for exactly these incidents of a kind, as "resolved" or "open".
func incidents(s *harness.Site, kind, want string) {
	s.T.Helper()
	s.WaitLog("select string_agg(case when resolved_at is null then 'open' else 'resolved' end, ',' order by at) from walhook.incident where kind = '"+kind+"'", want)
}

// A log without partitions, in which none can be created, stops no delivery and loses no entry, even with kill -9. The
// problem is reported everywhere, and once partitions can be created again, they get what was recorded meanwhile.
func TestLogWithoutPartitions(t *testing.T) {
	t.Parallel()
	const each = 3000
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	s.Hook("/hook", "created")
	testenv.Exec(t, s.Store, dropPartitions+";"+harness.RefuseDDL)
	harness.AddRespondents(s, 1, each)
	s.Fence()
	d.Readyz(503, "no DDL here")
	d.Shows(1, "walhook_failing", "concern", "upkeep")
	incidents(s, "log_upkeep", "open")
	wrong(s, "no DDL here")
	if out, _, status := s.Walhook("doctor"); status != 1 || !strings.Contains(out, "no DDL here") {
		t.Errorf("doctor: status %d\n%s", status, out)
	}
	harness.AddRespondents(s, each+1, 2*each)
	s.WaitRequests("/hook", each+each/2)
	d.Kill()
	d = s.Start()
	s.Fence()
	testenv.Exec(t, s.Store, "drop event trigger refuse")
	d.Ready()
	s.WaitLog("select (select count(*) from walhook.log_overflow), (select count(*) from walhook.log where succeeded)", fmt.Sprintf("0|%d", 2*each))
	incidents(s, "log_upkeep", "resolved")
	harness.WaitHealthy(s)
	harness.CheckExactlyOnce(s, 2*each, "created")
}

// A locked log, and one that refuses rows, stops no delivery either.
func TestLogThatRefusesRows(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	s.Hook("/hook", "created")
	locker := testenv.Connect(t, s.Store)
	if _, err := locker.Exec(t.Context(), "begin; lock table walhook.log, walhook.attempt in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	harness.AddRespondents(s, 1, 500)
	s.Fence()
	if _, err := locker.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	s.WaitLog("select (select count(*) from walhook.log_overflow), (select count(*) from walhook.log where succeeded)", "0|500")
	const open = "select count(*) from walhook.incident where kind = 'log_upkeep' and resolved_at is null"
	s.WaitLog(open, "0")
	testenv.Exec(t, s.Store, "alter table walhook.log add constraint odd check (response_id::bigint < 600 or response_id::bigint > 700)")
	harness.AddRespondents(s, 501, 1000)
	s.Fence()
	s.WaitLog(open, "1")
	wrong(s, "odd")
	s.WaitLog("select (select count(*) from walhook.log_overflow), (select count(*) from walhook.log where succeeded)", "101|899") // those that can be moved
	testenv.Exec(t, s.Store, "alter table walhook.log drop constraint odd")
	s.WaitLog("select (select count(*) from walhook.log_overflow), (select count(*) from walhook.log where succeeded)", "0|1000")
	s.WaitLog(open, "0")
	d.Ready()
	harness.WaitHealthy(s)
	harness.CheckExactlyOnce(s, 1000, "created")
}

// A log index that cannot be built is reported like other upkeep problems, and stops nothing.
func TestLogIndexThatIsRefused(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).Attach()
	testenv.Exec(t, s.Store, strings.ReplaceAll(harness.RefuseDDL, "CREATE TABLE", "CREATE INDEX")+"; update walhook.settings set time_zone = 'Europe/Berlin'")
	d := s.Start().Ready()
	incidents(s, "log_upkeep", "open")
	d.Shows(1, "walhook_failing", "concern", "upkeep")
	wrong(s, "no DDL here")
	d.Ready()
	testenv.Exec(t, s.Store, "drop event trigger refuse")
	incidents(s, "log_upkeep", "resolved")
	d.Shows(0, "walhook_failing", "concern", "upkeep")
	harness.WaitHealthy(s)
}

// A single result that the store refuses is set aside and reported, and stops no other. Once the store accepts it, it
// is recorded, once.
func TestResultThatIsRefused(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	s.Hook("/hook", "created")
	testenv.Exec(t, s.Store, `
		create function public.refuse() returns trigger language plpgsql as $$ begin raise exception 'not this one'; end $$;
		create trigger refuse before delete on walhook.queue for each row when (old.response_id in ('7', '1500')) execute function public.refuse()`)
	harness.AddRespondents(s, 1, 3000)
	s.WaitLog("select count(*) from walhook.delivery_log where status = 'success'", "2998")
	d.Readyz(503, "not this one")
	d.Shows(2, "walhook_unrecorded_results")
	d.Shows(1, "walhook_failing", "concern", "recording")
	incidents(s, "deliveries_stopped", "open")
	wrong(s, "not this one")
	if out, _, status := s.Walhook("doctor"); status != 1 || !strings.Contains(out, "not this one") {
		t.Errorf("doctor: status %d\n%s", status, out)
	}
	testenv.Exec(t, s.Store, "drop trigger refuse on walhook.queue")
	d.Ready()
	incidents(s, "deliveries_stopped", "resolved")
	harness.WaitHealthy(s)
	harness.CheckExactlyOnce(s, 3000, "created")
	if n := len(s.Receiver.Bodies("/hook")); n != 3000 {
		t.Errorf("%d requests for 3000 deliveries", n)
	}

	// Nor does a stop wait for it.
	testenv.Exec(t, s.Store, "create trigger refuse before delete on walhook.queue for each row when (old.response_id = '3001') execute function public.refuse()")
	harness.AddRespondents(s, 3001, 3002)
	d.Readyz(503, "not this one")
	if status := d.Stop(); status != 0 || strings.Contains(d.Log.String(), "stopped with results") {
		t.Errorf("the stop waited for a result that the store refuses; status %d", status)
	}
}

// While the store records nothing at all, that is reported as well, and soon afterwards everything continues.
func TestNoResultIsTaken(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	s.Hook("/hook", "created")
	testenv.Exec(t, s.Store, `
		create function public.refuse() returns trigger language plpgsql as $$ begin raise exception 'none of them'; end $$;
		create trigger refuse before delete on walhook.queue for each row execute function public.refuse()`)
	harness.AddRespondents(s, 1, 3000)
	d.Readyz(503, "none of them")
	incidents(s, "deliveries_stopped", "open")
	wrong(s, "none of them")
	testenv.Exec(t, s.Store, "drop trigger refuse on walhook.queue")
	d.Ready()
	incidents(s, "deliveries_stopped", "resolved")
	harness.WaitHealthy(s)
	harness.CheckExactlyOnce(s, 3000, "created")
}

// If the daemon is not a superuser and the schema's owner has lost CREATE on it, no delivery stops. The problem is
// reported everywhere until the right is granted again.
func TestRightToCreateRevoked(t *testing.T) {
	t.Parallel()
	s := harness.NewSiteOn(t, testenv.NewServer(t, nil), harness.SampleSchema)
	s.Exec("create role own login createrole replication; grant own to current_user; alter table respondent owner to own; grant create on schema public to own")
	db, err := url.Parse(s.DB)
	if err != nil {
		t.Fatal(err)
	}
	s.Exec("grant create on database " + strings.Trim(db.Path, "/") + " to own")
	db.User = url.User("own")
	s.With("DATABASE_URL", db.String())
	d := s.Run()
	s.Hook("/hook", "created")
	testenv.Exec(t, s.Store, "revoke create on schema walhook from own;"+dropPartitions)
	harness.AddRespondents(s, 1, 100)
	s.Fence()
	d.Readyz(503, "permission denied")
	incidents(s, "log_upkeep", "open")
	wrong(s, "permission denied")
	if out, _, status := s.Walhook("doctor"); status != 1 || !strings.Contains(out, "permission denied") || !strings.Contains(out, "GRANT CREATE, USAGE ON SCHEMA walhook") {
		t.Errorf("doctor: status %d\n%s", status, out)
	}
	testenv.Exec(t, s.Store, "grant create on schema walhook to own")
	d.Ready()
	incidents(s, "log_upkeep", "resolved")
	harness.CheckExactlyOnce(s, 100, "created")
}
