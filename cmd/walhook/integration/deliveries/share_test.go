package deliveries

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// New events, their retries and test deliveries do not wait behind a bulk redelivery to the same URL.
func TestFreshEventsPassBulkRedeliveries(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("ENDPOINT_CONCURRENCY", "1")
	s.Run()
	hook := s.Hook("/hook", "created")
	const failed = 2000
	s.Fence()
	testenv.Exec(t, s.Store, `insert into walhook.log (delivery_id, webhook_id, lsn, ordinal, committed_at, finished_at, attempts, http_status, event_type, kind, succeeded, response_id)
		select nextval('walhook.delivery_id'), $1, '0/1', n, now(), now(), 1, 500, 1, 0, false, (1000000 + n)::text from generate_series(1, $2::int) as n`, hook, failed)
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	var failedOnce atomic.Bool
	s.Receiver.Respond("/hook", func(r testenv.Request) testenv.Reply {
		<-held
		reply := testenv.Reply{Delay: time.Millisecond}
		if strings.Contains(r.Body, ":7}") && !failedOnce.Swap(true) {
			reply.Status = 500
		}
		return reply
	})
	if got := testenv.Value[int64](t, s.Store, "select walhook.redeliver_failed($1, '-infinity')", hook); got != failed {
		t.Fatalf("redeliver_failed queued %d deliveries, not %d", got, failed)
	}
	s.WaitRequests("/hook", 1)
	s.Exec("insert into respondent (id, assessment_id) values (7, 1)")
	s.WaitStored()
	testenv.Value[int64](t, s.Store, "select walhook.test_webhook($1, '8')", hook)
	release()
	s.Receiver.Wait(t, failed+3, harness.Patience)
	events := s.Events("/hook")
	slices.Reverse(events) // to find each one's last attempt
	for _, event := range []string{"created 7", "created 8"} {
		if at := len(events) - slices.Index(events, event); at > failed*3/4 {
			t.Errorf("%q arrived at position %d, behind a redelivery of %d", event, at, failed)
		}
	}
}
