package deliveries

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// longAgo shifts all failures so far into the past, by more than DISABLE_AFTER.
func longAgo(s *harness.Site) {
	s.T.Helper()
	testenv.Exec(s.T, s.Store, "update walhook.webhook_trouble set failing_since = failing_since - interval '1 year'")
}

// failsOnce answers only the next request at a path with a status, and returns once the failure is recorded.
func failsOnce(s *harness.Site, path string, status, response int) {
	s.T.Helper()
	s.Receiver.Respond(path, func(r testenv.Request) testenv.Reply {
		if strings.Contains(r.Body, fmt.Sprintf(":%d}", response)) {
			return testenv.Reply{Status: status}
		}
		return testenv.Reply{}
	})
	s.Exec("insert into respondent (id, assessment_id) values ($1, 1)", response)
	s.WaitLog(fmt.Sprintf("select status from walhook.delivery_log where response_id = '%d'", response), "failed")
}

// allEnabled verifies that no webhook was disabled, and that no incident reports one.
func allEnabled(s *harness.Site) {
	s.T.Helper()
	for _, query := range []string{
		"select coalesce(string_agg(id || ': ' || disabled_reason, ', '), '') from walhook.webhook where not enabled",
		"select coalesce(string_agg(detail, ', '), '') from walhook.incident where kind = 'webhook_disabled'",
	} {
		if disabled := testenv.Psql(s.T, s.Store, query); disabled != "" {
			s.T.Errorf("a working webhook was disabled: %s", disabled)
		}
	}
}

// newTroubledSite returns a site whose deliveries have one attempt each, so that each answer is a separate result.
func newTroubledSite(t *testing.T) *harness.Site {
	return harness.NewSite(t, harness.SampleSchema).With("DISABLE_AFTER", "1h", "MAX_ATTEMPTS", "1", "ENDPOINT_CONCURRENCY", "1")
}

// A success ends the webhook's trouble even if it is recorded in the same batch as the failure before it.
func TestSuccessInTheBatchOfAFailure(t *testing.T) {
	t.Parallel()
	s := newTroubledSite(t)
	s.Run()
	s.Hook("/hook", "created")
	s.Receiver.Respond("/hook", func(r testenv.Request) testenv.Reply {
		if strings.Contains(r.Body, ":3}") {
			return testenv.Reply{Status: 500}
		}
		return testenv.Reply{}
	})
	// While the recorder waits for the log with its first batch, further results accumulate in the next one.
	blocker := testenv.Connect(t, s.Store)
	for _, statement := range []string{"begin", "lock table walhook.log in share mode"} {
		if _, err := blocker.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	for id := 2; id <= 4; id++ {
		s.Exec("insert into respondent (id, assessment_id) values ($1, 1)", id)
		s.WaitRequests("/hook", id-1)
	}
	if _, err := blocker.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	s.Fence()
	longAgo(s)
	failsOnce(s, "/hook", 500, 5)
	allEnabled(s)
}

// Webhooks that fail occasionally under load are never disabled.
func TestWebhooksThatFailNowAndThen(t *testing.T) {
	t.Parallel()
	const hooks, waves, each = 10, 4, 300
	s := harness.NewSite(t, harness.SampleSchema).With("DISABLE_AFTER", "1h", "MAX_ATTEMPTS", "1000", "LOG_LEVEL", "info")
	s.Run()
	for n := range hooks {
		path := fmt.Sprintf("/hook%d", n)
		s.Hook(path, "created")
		s.Receiver.Respond(path, func(r testenv.Request) testenv.Reply {
			if r.Nth%(17+n) == 0 {
				return testenv.Reply{Status: 500}
			}
			return testenv.Reply{}
		})
	}
	for wave := range waves {
		s.Exec("insert into respondent (id, assessment_id) select g, 1 from generate_series($1::int + 1, $1::int + $2::int) g", wave*each, each)
		s.Fence()
		if left := testenv.Psql(t, s.Store, "select count(*) from walhook.webhook_trouble"); left != "0" {
			t.Errorf("after wave %d, in which every last attempt succeeded, %s webhooks count as failing", wave, left)
		}
		longAgo(s)
	}
	allEnabled(s)
}

// A success counts whichever daemon gets it, even if another one had recorded the failure.
func TestTroubleEndsInAnotherDaemon(t *testing.T) {
	t.Parallel()
	const endpoints = 12
	s := harness.NewSite(t, harness.SampleSchema).With("DISABLE_AFTER", "1h", "MAX_ATTEMPTS", "1")
	first := s.Run()
	s.Start().Readyz(200, "standing by")
	for n := range endpoints {
		path := fmt.Sprintf("/hook%d", n)
		s.Hook(path, "created", "assessment_id", fmt.Sprintf("'%d'", n))
		s.Receiver.Respond(path, harness.Once(500, ""))
	}
	testenv.Eventually(t, harness.Patience, "both daemons to own endpoints", func() (bool, string) {
		got := testenv.Psql(t, s.Store, "select count(distinct owner), count(*) - count(owner) from walhook.endpoint")
		return got == "2|0", got
	})
	s.Exec("insert into respondent (id, assessment_id) select n, n from generate_series(0, $1::int - 1) n", endpoints)
	s.WaitLog("select count(*) from walhook.delivery_log where status = 'failed'", fmt.Sprint(endpoints))
	longAgo(s)
	if status := first.Stop(); status != 0 {
		t.Errorf("the first daemon's exit status is %d", status)
	}
	for n := range endpoints {
		s.Exec("insert into respondent (id, assessment_id) values ($1, $2)", 100+n, n)
	}
	s.WaitLog("select count(*) from walhook.delivery_log where status = 'success'", fmt.Sprint(endpoints))
	for n := range endpoints {
		s.Receiver.Respond(fmt.Sprintf("/hook%d", n), testenv.Always(testenv.Reply{Status: 500}))
		s.Exec("insert into respondent (id, assessment_id) values ($1, $2)", 200+n, n)
	}
	s.WaitLog("select count(*) from walhook.delivery_log where status = 'failed'", fmt.Sprint(2*endpoints))
	allEnabled(s)
}

// Failures at the previous URL, or before an administrator enabled the webhook again, no longer count.
func TestTroubleIsOfTheURLAndOfTheTime(t *testing.T) {
	t.Parallel()
	s := newTroubledSite(t)
	s.Run()
	s.Hook("/old", "created")
	failsOnce(s, "/old", 500, 1)
	longAgo(s)
	s.Exec("update walhook.webhook set description = 'still the same'")
	s.Exec("update walhook.webhook set url = $1", s.Receiver.URL("/new"))
	failsOnce(s, "/new", 500, 2)
	allEnabled(s)

	longAgo(s)
	s.Exec("update walhook.webhook set enabled = false")
	s.Exec("update walhook.webhook set enabled = true")
	failsOnce(s, "/new", 500, 3)
	allEnabled(s)

	longAgo(s)
	s.Exec("update walhook.webhook set url = $1", s.Receiver.URL("/old"))
	s.Exec("update walhook.webhook set url = $1", s.Receiver.URL("/new"))
	failsOnce(s, "/new", 500, 4)
	allEnabled(s)

	// An edit of something else clears nothing.
	longAgo(s)
	s.Exec("update walhook.webhook set description = 'still the same'")
	s.Receiver.Respond("/new", testenv.Always(testenv.Reply{Status: 500}))
	s.Exec("insert into respondent (id, assessment_id) values (5, 1)")
	s.WaitLog("select enabled, disabled_reason like 'every attempt has failed since %' from walhook.webhook", "f|t")
}

// Attempts count in the order in which they started, even if an earlier one ends later.
func TestOlderAttemptThatEndsLater(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		older, newer int
		disabled     string
	}{
		"an older failure": {older: 500, newer: 200, disabled: "0"},
		"an older success": {older: 200, newer: 500, disabled: "0"}, // failing, but not for long
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema).With("DISABLE_AFTER", "1h", "MAX_ATTEMPTS", "1", "DELIVERY_TIMEOUT", "1h")
			s.Run()
			s.Hook("/hook", "created")
			s.Exec("insert into respondent (id, assessment_id) values (1, 1)") // after the first success there may be two in flight
			s.WaitLog("select status from walhook.delivery_log where response_id = '1'", "success")
			answer := make(chan struct{})
			answerOnce := sync.OnceFunc(func() { close(answer) })
			t.Cleanup(answerOnce)
			s.Receiver.Respond("/hook", func(r testenv.Request) testenv.Reply {
				switch {
				case strings.Contains(r.Body, ":2}"):
					<-answer
					return testenv.Reply{Status: c.older}
				case strings.Contains(r.Body, ":3}"):
					return testenv.Reply{Status: c.newer}
				default:
					return testenv.Reply{Status: 500}
				}
			})
			s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
			s.WaitRequests("/hook", 2)
			s.Exec("insert into respondent (id, assessment_id) values (3, 1)")
			s.WaitLog("select count(*) from walhook.delivery_log where response_id = '3' and status <> 'pending'", "1")
			longAgo(s)
			answerOnce()
			s.WaitLog("select count(*) from walhook.delivery_log where response_id = '2' and status <> 'pending'", "1")
			if c.older == 500 && c.newer == 200 {
				longAgo(s) // if it were marked, this would disable it
			}
			s.Exec("insert into respondent (id, assessment_id) values (4, 1)")
			s.WaitLog("select status from walhook.delivery_log where response_id = '4'", "failed")
			if disabled := testenv.Psql(t, s.Store, "select count(*) from walhook.webhook where not enabled"); disabled != c.disabled {
				t.Errorf("%s webhooks were disabled, not %s", disabled, c.disabled)
			}
		})
	}
}

// A 410 applies to the URL that sent it: a webhook whose URL has changed since stays enabled, and the delivery is sent
// to the new URL.
func TestGoneAtTheOldURL(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("DELIVERY_TIMEOUT", "1h")
	s.Run()
	s.Hook("/old", "created")
	answer := make(chan struct{})
	s.Receiver.Respond("/old", func(testenv.Request) testenv.Reply { <-answer; return testenv.Reply{Status: 410} })
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.WaitRequests("/old", 1)
	s.Exec("update walhook.webhook set url = $1", s.Receiver.URL("/new"))
	close(answer)
	s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
	s.Expect("/new", "created 1", "created 2")
	allEnabled(s)

	// The same holds if the webhook was enabled again meanwhile, at the same URL.
	again := make(chan struct{})
	s.Receiver.Respond("/new", func(r testenv.Request) testenv.Reply {
		if strings.Contains(r.Body, ":3}") && r.Nth == 3 {
			<-again
			return testenv.Reply{Status: 410}
		}
		return testenv.Reply{}
	})
	s.Exec("insert into respondent (id, assessment_id) values (3, 1)")
	s.WaitRequests("/new", 3)
	s.Exec("update walhook.webhook set enabled = false")
	s.Exec("update walhook.webhook set enabled = true")
	close(again)
	s.Expect("/new", "created 1", "created 2", "created 3", "created 3")
	allEnabled(s)
}

// Edits leave backoff and Retry-After unchanged, except a new URL, and enabling the webhook again.
func TestEditsLeaveTheBackoff(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("RETRY_CAP", "1h")
	s.Run()
	s.Hook("/busy", "created")
	busy := testenv.Always(testenv.Reply{Status: 429, Header: map[string]string{"Retry-After": "600"}})
	for _, path := range []string{"/busy", "/moved"} {
		s.Receiver.Respond(path, busy)
	}
	s.Exec("insert into respondent (id, assessment_id) values (1, 1), (2, 1)")
	s.WaitRequests("/busy", 1)
	s.WaitLog("select count(*) from walhook.delivery_log where attempts = 1 and http_status = 429", "1")
	for _, edit := range []string{
		"update walhook.webhook set description = 'edited'",
		"update walhook.webhook set secret = walhook.new_secret()",
		"update walhook.webhook set ordered = false",
		"insert into walhook.webhook (assessment_id, url, event_type) select '2', url, event_type from walhook.webhook",
	} {
		s.Exec(edit)
		s.WaitHeartbeat() // it is loaded
		if n := len(s.Events("/busy")); n != 1 {
			t.Fatalf("%s: %d requests arrived although the receiver requested a pause after the first", edit, n)
		}
	}

	s.Exec("update walhook.webhook set enabled = false where assessment_id = '1'; update walhook.webhook set enabled = true where assessment_id = '1'")
	s.WaitRequests("/busy", 2)
	s.WaitLog("select sum(attempts) from walhook.delivery_log", "2")

	s.Exec("update walhook.webhook set url = $1 where assessment_id = '1'", s.Receiver.URL("/moved"))
	s.WaitRequests("/moved", 1)
	s.WaitLog("select sum(attempts) from walhook.delivery_log", "3")
	s.Receiver.Respond("/free", nil)
	s.Exec("update walhook.webhook set url = $1 where assessment_id = '1'", s.Receiver.URL("/free"))
	s.Expect("/free", "created 1", "created 2")
}
