package stream

import (
	"fmt"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// If an owner truncates the queue, the pending deliveries fail in the log, with an incident, and daemons continue
// without them.
func TestQueueTruncated(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("RETRY_BASE", "1h", "RETRY_CAP", "2h")
	s.Run()
	created, started := s.Hook("/hook", "created"), s.Hook("/hook", "started")
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{Status: 500}))
	s.Exec("insert into respondent (id, assessment_id) values (1, 1), (2, 1)")
	s.WaitRequests("/hook", 2)
	s.Exec("update respondent set started_at = now()") // waits behind the failed one
	s.WaitStored()
	s.WaitLog("select count(*) from walhook.delivery_log where status = 'pending' and attempts > 0", "2")
	testenv.Exec(t, s.Store, "truncate walhook.queue")
	s.WaitLog("select count(*) filter (where webhook_id = "+fmt.Sprint(started)+") from walhook.delivery_log where status = 'failed' and error = 'walhook.queue was truncated'", "2")
	s.WaitLog("select count(*) from walhook.incident where kind = 'queue_truncated' and detail like '% 4 pending deliveries %'", "1")

	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	s.Receiver.Forget()
	s.Exec("insert into respondent (id, assessment_id, started_at) values (3, 1, now())")
	s.Expect("/hook", "created 3", "started 3")
	if got := testenv.Value[int64](t, s.Store, "select walhook.redeliver_failed($1, '-infinity')", created); got != 2 {
		t.Errorf("%d deliveries were queued again, not 2", got)
	}
	s.Expect("/hook", "created 3", "started 3", "created 1", "created 2")
}
