package sql

import (
	"fmt"
	"testing"
	"time"

	"walhook/testenv"
)

// The depth of a short queue is counted, that of a long one comes from statistics; what waits for a disabled webhook is pending,
// and makes nothing late, however much of it there is.
func TestQueueDepth(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, installed(t))
	exec := func(statement string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(minimum, maximum int64, estimated bool, hours float64) {
		t.Helper()
		var n int64
		var estimate bool
		var seconds float64
		if err := conn.QueryRow(t.Context(), QueueDepth.SQL).Scan(&n, &estimate, &seconds); err != nil {
			t.Fatal(err)
		}
		if n < minimum || n > maximum || estimate != estimated || seconds < hours*3600 || seconds > hours*3600+600 {
			t.Errorf("the depth is %d (estimated: %v), the oldest is %v s old; wanted are %d to %d, %v and %v h", n, estimate, seconds, minimum, maximum, estimated, hours)
		}
	}
	expect(0, 0, false, 0)
	exec("insert into walhook.webhook (url, event_type, enabled) values ('http://a', 'response.created', false), ('http://b', 'response.created', true)")
	const queue = "insert into walhook.queue (webhook_id, committed_at, event_type, response_id, next_attempt_at) select "
	exec(queue + "1, now() - interval '9 hours', 1, g::text, null from generate_series(1, 9000) g")
	expect(9000, 9000, false, 0)
	exec(queue + "2, now() - interval '2 hours', 1, 'due', now()")
	expect(9001, 9001, false, 2)
	exec(queue + "2, now() - interval '3 hours', 1, 'fresh', null")
	expect(9002, 9002, false, 3)
	exec("delete from walhook.queue where webhook_id = 2")
	exec(queue + "1, now() - interval '9 hours', 1, g::text, null from generate_series(1, 21000) g")
	exec(queue + "2, now() - interval '3 hours', 1, 'fresh', null")
	// A session's counts of before may reach the statistics after those of its ANALYZE, and be added to them: once more, then.
	testenv.Eventually(t, 30*time.Second, "statistics of the queue", func() (bool, string) {
		exec("analyze walhook.queue")
		n := testenv.Value[int64](t, conn.Config().ConnString(), "select pg_stat_get_live_tuples('walhook.queue'::regclass)")
		return n > 29_000 && n < 31_000, fmt.Sprintf("%d rows", n)
	})
	expect(29_000, 31_000, true, 3)
	exec("delete from walhook.queue where webhook_id = 1")
	expect(1, 1, false, 3)
}
