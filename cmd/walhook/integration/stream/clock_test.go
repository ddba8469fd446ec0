//go:build linux

package stream

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
	"walhook/testenv/pgserver"
)

// storeWithClock moves the site's store to a server with a fast clock.
func storeWithClock(s *harness.Site, ahead time.Duration) *testenv.Clock {
	s.T.Helper()
	clock := testenv.NewClock(s.T, ahead)
	s.WithStore(testenv.NewServerWith(s.T, pgserver.Options{Env: clock.Env}))
	off := testenv.Value[float64](s.T, s.Store, "select extract(epoch from now())::float8")
	if got := time.Until(time.Unix(int64(off), 0)); got < ahead-time.Minute || got > ahead+time.Minute {
		s.T.Fatalf("the store's clock is %s ahead, not %s", got, ahead)
	}
	return clock
}

// The store's clock decides how long the previous secret is used, whatever the clock of the daemon's machine.
func TestRotateSecretWhileClocksDiffer(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{"the store is ahead": 3 * time.Hour, "the store is behind": -3 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema)
			storeWithClock(s, ahead)
			s.Run()
			s.Hook("/hook", "created")
			first := testenv.Psql(t, s.Store, "select walhook.rotate_secret((select id from walhook.webhook))")
			signedByFirst := func(id int) bool {
				t.Helper()
				s.WaitHeartbeat()
				s.Exec("insert into respondent (id, assessment_id) values ($1, 1)", id)
				s.Receiver.Wait(t, id, harness.Patience)
				wh, err := standardwebhooks.NewWebhook(first)
				if err != nil {
					t.Fatal(err)
				}
				request := s.Receiver.Requests()[id-1]
				header := http.Header{}
				for _, name := range []string{"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"} {
					header.Set(name, request.Header.Get(name))
				}
				return wh.Verify([]byte(request.Body), header) == nil
			}
			testenv.Psql(t, s.Store, "select walhook.rotate_secret((select id from walhook.webhook), '1 hour')")
			if !signedByFirst(1) {
				t.Error("the old secret signs nothing, though its hour has just begun")
			}
			testenv.Psql(t, s.Store, "update walhook.webhook set previous_secret_until = now() + interval '1 second'")
			if signedByFirst(2) {
				t.Error("the old secret still signs, though its second is over")
			}
		})
	}
}

// If the store's clock is set back, nothing waits longer than intended.
func TestStoreClockIsSetBack(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("RETRY_BASE", "2s", "RETRY_CAP", "2s", "DELIVERY_TIMEOUT", "1s")
	clock := storeWithClock(s, 0)
	first := s.Run()
	hook := s.Hook("/hook", "created")

	var works atomic.Bool
	s.Receiver.Respond("/hook", func(testenv.Request) testenv.Reply {
		if works.Load() {
			return testenv.Reply{}
		}
		return testenv.Reply{Status: 500}
	})
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.PendingAfterFailure(hook)
	clock.Set(-2 * time.Hour)
	works.Store(true)
	s.WaitLog("select status, attempts > 1 from walhook.delivery_log", "success|t")

	testenv.Exec(t, s.Store, "update walhook.settings set enabled = false")
	s.WaitHeartbeat()
	testenv.Psql(t, s.Store, "select walhook.test_webhook(1, '5')")
	clock.Set(-4 * time.Hour)
	testenv.Exec(t, s.Store, "update walhook.settings set enabled = true")
	s.WaitLog("select status from walhook.delivery_log where test", "success")

	// Nor does a killed daemon count as alive for longer.
	s.Start().Readyz(200, "standing by")
	s.WaitHeartbeat()
	clock.Set(-6 * time.Hour)
	first.Kill()
	s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
	s.WaitLog("select status from walhook.delivery_log where response_id = '2'", "success")
}
