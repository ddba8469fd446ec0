package deliveries

import (
	"fmt"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// Each answer of walhook.explain, as a viewer sees it.
func TestExplain(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("ASSESSMENT_TABLE", "public.assessment", "RESPONDENT_ORGANIZATION", "organization_id",
		"RETRY_BASE", "1h", "RETRY_CAP", "2h", "MAX_ATTEMPTS", "2")
	s.Exec("insert into respondent (id, assessment_id, started_at) values (1, 1, now())")
	s.Run()
	s.Receiver.Respond("/down-secret", testenv.Always(testenv.Reply{Status: 500}))
	s.Receiver.Respond("/gone-secret", testenv.Always(testenv.Reply{Status: 410}))
	var (
		ok       = s.Hook("/ok-secret", "created")
		down     = s.Hook("/down-secret", "created")
		gone     = s.Hook("/gone-secret", "created")
		other    = s.Hook("/ok-secret", "created", "assessment_id", "'7'")
		acme     = s.Hook("/ok-secret", "created", "organization_id", "'acme'")
		external = s.Hook("/ok-secret", "created", "assessment_id", "null")
		off      = s.Hook("/ok-secret", "created", "enabled", "false", "disabled_reason", "'moving house'")
		quiet    = s.Hook("/ok-secret", "created", "log_successes", "false")
		started  = s.Hook("/ok-secret", "started")
		finished = s.Hook("/ok-secret", "completed")
	)
	s.Exec("insert into respondent (id, assessment_id, organization_id) values (2, 1, 'globex')")
	s.WaitLog(fmt.Sprintf("select enabled from walhook.webhook where id = %d", gone), "f")
	s.Exec("insert into respondent (id, assessment_id) values (3, 2), (4, null)")
	s.Exec("begin; select walhook.silence(); insert into respondent (id, assessment_id) values (5, 1); commit")
	s.WaitStored()
	testenv.Exec(t, s.Store, "update walhook.settings set enabled = false")
	s.Exec("update respondent set started_at = now() where id = 5")
	s.WaitStored()
	testenv.Exec(t, s.Store, "update walhook.settings set enabled = true")
	s.Exec("begin; select walhook.silence(); update respondent set finished_at = now() where id = 5; commit")
	s.WaitStored()
	s.Exec("update respondent set finished_at = now() + interval '1 day' where id = 5") // a second finish, which no webhook is for
	s.Exec("insert into respondent (id, assessment_id) values (6, 1)")
	s.Exec("delete from respondent where id = 6")
	s.Exec("insert into respondent (id, assessment_id) values (7, 1)")
	s.WaitStored()
	s.Exec("update respondent set id = 70 where id = 7") // in another batch than the insert
	s.WaitStored()
	s.WaitLog(fmt.Sprintf("select count(*) from walhook.delivery_log where webhook_id in (%d, %d, %d) and response_id in ('2', '6') and attempts > 0 or webhook_id = %[2]d and status = 'pending'", ok, down, gone), "6")
	late := s.Hook("/ok-secret", "created")

	viewer := s.As("walhook_viewer")
	explain := func(response string, hook int64, event string) string {
		t.Helper()
		query := fmt.Sprintf("select happened, matched, status, reason from walhook.explain('%s') where event_type = 'response.%s'", response, event)
		if hook != 0 {
			query += fmt.Sprintf(" and webhook_id = %d", hook)
		}
		return testenv.Psql(t, viewer, query)
	}
	const cannotTell = "yes|f||no record of it, although the webhook matches now. The reason is not known: "
	for _, c := range []struct {
		response string
		hook     int64
		event    string
		want     string
	}{
		{"2", ok, "created", "yes|t|success|delivered"},
		{"2", down, "created", "yes|t|pending|waits: backing off after 1 failed attempt"},
		{"2", gone, "created", "yes|t|failed|failed for good after 1 attempt"},
		{"2", other, "created", "yes|f||assessment differs: the webhook is for 7, the response is of 1"},
		{"2", acme, "created", "yes|f||other organization: the webhook is for acme, the response is of globex"},
		{"2", external, "created", "yes|t|success|delivered"},
		{"3", external, "created", "yes|f||assessment 2 has no external id, and the webhook is for all assessments that have one"},
		{"4", external, "created", "yes|f||assessment none has no external id"},
		{"4", ok, "created", "yes|f||assessment differs: the webhook is for 1, the response is of none"},
		{"2", off, "created", "yes|f||webhook disabled since "},
		{"2", quiet, "created", cannotTell + "either it was delivered (successes of this webhook are not logged), or "},
		{"2", late, "created", "yes|f||the webhook was created after it, at "},
		{"2", started, "started", "no|f||not started yet"},
		{"2", finished, "completed", "no|f||not finished yet"},
		{"2", 0, "changed", "no|||not finished yet"},
		{"1", ok, "created", "before attach|f||it happened before walhook attached"},
		{"1", started, "started", "before attach|f||it happened before walhook attached"},
		{"5", ok, "created", "yes|f||its transaction called walhook.silence()"},
		{"5", started, "started", "yes|f||webhooks were switched off when it happened"},
		{"5", finished, "completed", "yes|f||its transaction called walhook.silence()"},
		{"5", 0, "changed", "yes|||there is no webhook for response.changed"},
		{"6", ok, "created", "yes|t|success|delivered"},
		{"7", ok, "created", "yes|t|success|delivered"},
		{"70", ok, "created", cannotTell + "either it was logged under an earlier key of the response, whose first was 7, or "},
		{"6", other, "created", "not known|f||walhook knows no such response: "},
	} {
		if got := explain(c.response, c.hook, c.event); !strings.HasPrefix(got, c.want) || strings.Contains(got, "\n") {
			t.Errorf("%s of response %s through webhook %d: %s\nwanted %s", c.event, c.response, c.hook, got, c.want)
		}
	}
	// Older than the webhook's last change: its filters at that time are unknown.
	testenv.Exec(t, s.Store, "update walhook.webhook set assessment_id = '1' where id = $1", other)
	if got := explain("2", other, "created"); !strings.HasPrefix(got, cannotTell) || !strings.Contains(got, "(the webhook was changed afterwards, at ") {
		t.Errorf("a webhook that was changed since: %s", got)
	}
	rows := func(response, want string) {
		t.Helper()
		if got := testenv.Psql(t, viewer, "select count(*), count(distinct (event_type, webhook_id)) from walhook.explain('"+response+"')"); got != want {
			t.Errorf("explain of %s has %s rows, not %s", response, got, want)
		}
	}
	rows("2", "12|12")
	rows("987", "1|1")
	// Of thousands of webhooks for other assessments it lists only some.
	testenv.Exec(t, s.Store, "insert into walhook.webhook (url, event_type, assessment_id) select 'http://127.0.0.1:1/', 'response.created', 1000 + g from generate_series(1, 2000) g")
	rows("2", "23|23")
	rows("987", "1|1")
	if got := testenv.Psql(t, viewer, "select event_type, happened, webhook_id, reason from walhook.explain('987')"); !strings.HasPrefix(got, "|not known||walhook knows no such response: ") {
		t.Errorf("explain of an unknown response: %s", got)
	}
	if got := explain("2", 0, "created' and webhook_id is null and matched = 'f"); got != "yes|f||assessment differs: the same for 1990 more webhooks" {
		t.Errorf("the rest of the webhooks: %s", got)
	}
	all := testenv.Psql(t, viewer, "select * from walhook.explain('2')")
	if strings.Contains(all, "-secret") || !strings.Contains(all, s.Receiver.URL("")) {
		t.Errorf("a viewer sees the wrong part of URLs:\n%s", all)
	}
}

// The views show what each pending delivery waits for, and the health of each endpoint.
func TestPendingAndEndpointHealth(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("RETRY_BASE", "1h", "RETRY_CAP", "2h")
	d := s.Run()
	s.Receiver.Respond("/down-secret", testenv.Always(testenv.Reply{Status: 500}))
	first := s.Hook("/down-secret", "created")
	second := s.Hook("/down-secret", "started")
	s.Hook("/ok-secret", "completed")
	off := s.Hook("/off-secret", "created")
	viewer := s.As("walhook_viewer")
	waits := func(want ...string) {
		t.Helper()
		testenv.Eventually(t, harness.Patience, "what is pending", func() (bool, string) {
			got := testenv.Psql(t, viewer, "select webhook_id, response_id, event_type, attempts, coalesce(error, '-'), next_attempt_at is not null, regexp_replace(waits_for, '[0-9]+', 'N') from walhook.pending order by delivery_id")
			return got == strings.Join(want, "\n"), "\n" + got
		})
	}
	s.Exec("insert into respondent (id, assessment_id, started_at) values (1, 1, now())")
	testenv.Eventually(t, harness.Patience, "a failure at /down and a success at /off", func() (bool, string) {
		got := testenv.Psql(t, s.Store, "select count(*) filter (where attempts = 1 and status = 'pending'), count(*) filter (where status = 'success') from walhook.delivery_log")
		return got == "1|1", got
	})
	testenv.Exec(t, s.Store, "update walhook.webhook set enabled = false, disabled_reason = 'moving house' where id = $1", off)
	testenv.Exec(t, s.Store, "insert into walhook.queue (webhook_id, committed_at, event_type, response_id) values ($1, now(), 1, '9')", off)
	hook := func(id int64, rest string) string { return fmt.Sprintf("%d|%s", id, rest) }
	failed := hook(first, "1|response.created|1|HTTP 500 Internal Server Error|t|backing off after N failed attempt")
	behind := hook(second, "1|response.started|0|-|f|behind delivery N about the same response")
	waits(failed, behind, hook(off, "9|response.created|0|-|f|webhook disabled: moving house"))

	const health = "select host like '%://127.0.0.1:%' and host not like '%secret%', webhook_ids, failures, failing_since is not null, last_error, waiting, daemon is not null, next_attempt_at = (select min(next_attempt_at) from walhook.pending) from walhook.endpoint_health where failures > 0"
	if got, want := testenv.Psql(t, viewer, health), fmt.Sprintf("t|{%d,%d}|1|t|HTTP 500 Internal Server Error|2|t|t", first, second); got != want {
		t.Errorf("the health of endpoints is\n%s\ninstead of\n%s", got, want)
	}
	if got := testenv.Psql(t, viewer, "select count(*), count(*) filter (where failures = 0 and last_error is null and failing_since is null and next_attempt_at is null) from walhook.endpoint_health"); got != "3|2" {
		t.Errorf("endpoints, and those that answer: %s", got)
	}

	testenv.Exec(t, s.Store, "update walhook.settings set enabled = false")
	off3 := "webhooks are switched off (walhook.settings)"
	waits(hook(first, "1|response.created|1|HTTP 500 Internal Server Error|t|"+off3), hook(second, "1|response.started|0|-|f|"+off3), hook(off, "9|response.created|0|-|f|"+off3))
	if status := d.Stop(); status != 0 {
		t.Errorf("the daemon exited with status %d", status)
	}
	testenv.Exec(t, s.Store, "update walhook.settings set enabled = true; update walhook.queue set next_attempt_at = null, attempts = 0; update walhook.endpoint set failures = 9, not_before = now() + interval '1 hour'; delete from walhook.queue where event_type = 2")
	waits(hook(first, "1|response.created|0|HTTP 500 Internal Server Error|f|endpoint in trouble: N failures in a row"), hook(off, "9|response.created|0|-|f|webhook disabled: moving house"))
	testenv.Exec(t, s.Store, "update walhook.endpoint set failures = 0, not_before = null")
	waits(hook(first, "1|response.created|0|HTTP 500 Internal Server Error|f|due; no daemon is running"), hook(off, "9|response.created|0|-|f|webhook disabled: moving house"))
}
