package main

import (
	"fmt"
	"testing"

	"walhook/testenv"
)

// An owner who truncates the queue finds what was pending in the log, and an incident; daemons go on without it.
func TestQueueTruncated(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).with("RETRY_BASE", "1h", "RETRY_CAP", "2h")
	s.run()
	created, started := s.hook("/hook", "created"), s.hook("/hook", "started")
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{Status: 500}))
	s.exec("insert into respondent (id, assessment_id) values (1, 1), (2, 1)")
	s.waitRequests("/hook", 2)
	s.exec("update respondent set started_at = now()") // waits behind what failed
	s.waitStored()
	s.waitLog("select count(*) from walhook.delivery_log where status = 'pending' and attempts > 0", "2")
	testenv.Exec(t, s.store, "truncate walhook.queue")
	s.waitLog("select count(*) filter (where webhook_id = "+fmt.Sprint(started)+") from walhook.delivery_log where status = 'failed' and error = 'walhook.queue was truncated'", "2")
	s.waitLog("select count(*) from walhook.incident where kind = 'queue_truncated' and detail like '% 4 pending deliveries %'", "1")

	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{}))
	s.receiver.Forget()
	s.exec("insert into respondent (id, assessment_id, started_at) values (3, 1, now())")
	s.expect("/hook", "created 3", "started 3")
	if got := testenv.Value[int64](t, s.store, "select walhook.redeliver_failed($1, '-infinity')", created); got != 2 {
		t.Errorf("%d deliveries were queued again, not 2", got)
	}
	s.expect("/hook", "created 3", "started 3", "created 1", "created 2")
}
