package commands

import (
	"net/url"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// The daemon's role suffices for everything a daemon does: it runs as a member of walhook_daemon that may replicate and
// read the mapped columns, through retries, a disabled webhook, a deleted one, copies, retention and a lost slot.
func TestDaemonRunsWithItsRoleAlone(t *testing.T) {
	t.Parallel()
	s := harness.NewSiteOn(t, testenv.NewServer(t, nil), harness.SampleSchema).With("ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_COPIED_FROM", "copied_from",
		"RETENTION", "9m", "DISABLE_AFTER", "1ms", "MAX_ATTEMPTS", "3")
	s.Attach()
	s.Exec(`create role runner login replication in role walhook_daemon; grant select (id, assessment_id, started_at, finished_at) on respondent to runner;
		grant select (id, external_id, copied_from) on assessment to runner`)
	runner, err := url.Parse(s.DB)
	if err != nil {
		t.Fatal(err)
	}
	runner.User = url.User("runner")
	s.With("DATABASE_URL", runner.String())
	d := s.Start().Ready()
	s.Receiver.Respond("/flaky", harness.Once(500, ""))
	s.Receiver.Respond("/gone", testenv.Always(testenv.Reply{Status: 410}))
	s.Receiver.Respond("/down", testenv.Always(testenv.Reply{Status: 500}))
	s.Hook("/flaky", "created")
	s.Hook("/gone", "created")
	down := s.Hook("/down", "created")
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.WaitLog("select count(*) from walhook.webhook where not enabled", "2") // one for a 410, one because every attempt failed
	testenv.Psql(t, s.Store, "select walhook.create_api_key('Zapier') is null; update walhook.webhook set enabled = true, description = 'of a key' where url like '%/gone'")
	testenv.Exec(t, s.Store, "insert into walhook.webhook (url, event_type, api_key_id) select url, 'response.started', 1 from walhook.webhook where description = 'of a key'")
	s.Exec("update respondent set started_at = now()")
	s.WaitLog("select count(*) from walhook.webhook where api_key_id is not null", "0") // deleted for a 410
	testenv.Exec(t, s.Store, "update walhook.webhook set enabled = false where description = 'of a key'")
	testenv.Exec(t, s.Store, "delete from walhook.webhook where id = $1", down)
	testenv.Exec(t, s.Store, "insert into walhook.queue (webhook_id, committed_at, event_type, response_id) values ($1, now(), 1, '9')", down)
	s.WaitLog("select count(*) from walhook.delivery_log where response_id = '9' and status = 'failed' and error = 'the webhook was deleted'", "1")
	testenv.Exec(t, s.Store, "delete from walhook.webhook where not enabled; delete from walhook.webhook w using walhook.webhook o where o.id < w.id")
	s.Exec("insert into assessment values (3, 'three', 'EXT-3', 1)")
	s.Exec("insert into respondent (id, assessment_id) values (2, 3)")
	s.WaitLog("select count(*) from walhook.delivery_log where response_id = '2' and status = 'success'", "1")
	s.Exec("update respondent set id = 20 where id = 2; delete from respondent where id = 20; truncate respondent")
	s.WaitStored()

	if status := d.Stop(); status != 0 {
		t.Errorf("the daemon exited with status %d", status)
	}
	s.DropSlot()
	s.Exec("insert into respondent (id, assessment_id) values (4, 1)")
	again := s.Start().Ready()
	s.WaitLog("select status, recovered from walhook.delivery_log where response_id = '4'", "success|t")
	for _, d := range []*harness.Daemon{d, again} {
		if text := d.Log.String(); strings.Contains(text, "permission denied") || strings.Contains(text, "must be owner") {
			t.Errorf("the daemon lacks a right:\n%s", text)
		}
	}
	for _, d := range []*harness.Daemon{d, again} {
		if text := d.Log.String(); strings.Contains(text, "could not recover from a lost slot") {
			t.Errorf("the daemon warns without reason:\n%s", text)
		}
	}
	// The stream does not need the right to read, but a comparison does. The daemon warns before it is too late.
	again.Stop()
	s.Exec("revoke select on respondent from runner")
	again = s.Start().Ready()
	harness.WaitIncident(s, "precondition_lost", "may not read id.*GRANT.*could not recover from a lost slot")
	if text := again.Log.String(); !strings.Contains(text, "could not recover from a lost slot") || !strings.Contains(text, "may not read id") {
		t.Errorf("the daemon does not warn that it may not read:\n%s", text)
	}
	s.Exec("grant select on respondent to runner")
	harness.WaitResolved(s, "precondition_lost")
	s.Exec("revoke select on assessment from runner; alter role runner noreplication; alter table assessment enable row level security; alter table respondent enable row level security")
	for _, says := range []string{
		"may not read id, external_id, copied_from of public.assessment", "may not replicate.*ALTER ROLE",
		"row-level security hides rows of public.assessment", "row-level security hides rows of public.respondent.*BYPASSRLS",
	} {
		harness.WaitIncident(s, "precondition_lost", says)
	}
	if got := testenv.Psql(t, s.Store, "select count(*) from walhook.partitions_of('walhook.log') p where p.upper < now() + interval '1 hour' and p.upper > now()"); got == "0" {
		t.Error("the daemon created no partitions that suit its retention")
	}
}
