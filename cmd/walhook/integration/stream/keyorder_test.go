package stream

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// The order per response holds across changes of its key: no delivery under a new key starts before those under earlier
// keys have ended.
func TestOrderHoldsAcrossKeyChanges(t *testing.T) {
	t.Parallel()
	s := harness.WithSentinel(harness.NewSite(t, "create table respondent (id numeric(10) primary key, assessment_id bigint, started_at timestamptz, finished_at timestamptz)").
		With("MAX_ATTEMPTS", "1000"), "insert into respondent (id, assessment_id) values (9%03d, 999)", "9%03d")
	s.Run()
	order := []string{"created", "started", "completed", "changed"}
	var hooks []int64
	for _, event := range order {
		hooks = append(hooks, s.Hook("/hook", event))
	}
	var mu sync.Mutex
	broken, delivered := true, map[string][]string{} // by the first digit of the key, which a response keeps
	s.Receiver.Respond("/hook", func(r testenv.Request) testenv.Reply {
		mu.Lock()
		defer mu.Unlock()
		event := harness.EventOf.FindStringSubmatch(r.Body)
		what, response := event[1], strings.Trim(event[2], `"-0.`)
		if got := delivered[response]; len(got) == len(order) || what != order[len(got)] {
			t.Errorf("%s %s is attempted after %v", what, event[2], got)
		}
		if broken {
			return testenv.Reply{Status: 500}
		}
		delivered[response] = append(delivered[response], what)
		return testenv.Reply{}
	})

	s.Exec("insert into respondent values (1, 1), (2, 1), (3, 1), (4, 1)")
	s.PendingAfterFailure(hooks[0])
	for _, statement := range []string{
		"update respondent set id = 10 where id = 1",
		"update respondent set started_at = now() where id = 10",
		"update respondent set id = -3 where id = 3; update respondent set id = 30, started_at = now() where id = -3",
		// Within one transaction, which is stored in one transaction.
		`begin; insert into respondent values (5, 1); update respondent set id = 50, started_at = now() where id = 5;
			update respondent set id = 500, finished_at = now() where id = 50; update respondent set finished_at = now() + interval '1 s' where id = 500; commit`,
		"update respondent set id = 100, finished_at = now() where id = 10",
		"update respondent set id = 20, started_at = now() where id = 2",
		"update respondent set id = 2, finished_at = now() where id = 20", // back
		"update respondent set finished_at = now() + interval '1 s' where id in (2, 100)",
		"update respondent set finished_at = now() where id = 30",
	} {
		s.Exec(statement)
	}
	s.WaitStored()
	s.Exec("alter table respondent alter id type numeric(12, 2)") // which changes the key as well
	s.Exec("update respondent set started_at = now() where id = 4")
	s.Exec("update respondent set finished_at = now() where id = 4")
	harness.WithSentinel(s, "insert into respondent (id, assessment_id) values (9%03d, 999)", "9%03d.00")
	s.WaitStored()
	s.Exec("update respondent set finished_at = now() + interval '1 s' where id in (4, 30)")

	mu.Lock()
	broken = false
	mu.Unlock()
	s.Fence()
	mu.Lock()
	defer mu.Unlock()
	for _, response := range []string{"1", "2", "3", "4", "5"} {
		if got := len(delivered[response]); got != 4 {
			t.Errorf("response %s: %d of 4 events arrived: %v", response, got, delivered[response])
		}
	}
}

// An event under a changed key, while one under the former key is in flight, is handed over as due. It is loaded at once
// even if it is alone in its batch, and later events do not pass it.
func TestEventUnderChangedKeyIsNotOvertaken(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, "create table respondent (id bigint primary key, assessment_id bigint, started_at timestamptz, finished_at timestamptz)")
	s.Run()
	s.Hook("/hook", "completed")
	s.Hook("/hook", "changed")
	attempted, answer := make(chan struct{}), make(chan struct{})
	s.Receiver.Respond("/hook", func(r testenv.Request) testenv.Reply {
		if strings.Contains(r.Body, "completed") {
			attempted <- struct{}{}
			<-answer
		}
		return testenv.Reply{}
	})
	deliveries := func(n int, which string) {
		t.Helper()
		testenv.Eventually(t, harness.Patience, fmt.Sprint(n, " deliveries"), func() (bool, string) { // no row of a fence is stored with them
			got := testenv.Value[int](t, s.Store, "select count(*) from walhook.delivery_log where "+which)
			return got == n, fmt.Sprint(got)
		})
	}
	var want []string
	for id := 1; id <= 4; id++ { // now and then something else loads the event
		s.Exec(fmt.Sprintf("insert into respondent values (%d, 1, now(), now())", id))
		<-attempted
		s.Exec(fmt.Sprintf("update respondent set id = 100 + id where id = %d", id))
		s.Exec(fmt.Sprintf("update respondent set finished_at = clock_timestamp() where id = 100 + %d", id))
		deliveries(3*id-1, "true")
		answer <- struct{}{}
		deliveries(1, fmt.Sprintf("response_id = '%d' and status = 'success'", id))
		s.Exec(fmt.Sprintf("update respondent set finished_at = clock_timestamp() where id = 100 + %d", id))
		deliveries(3*id, "status = 'success'")
		want = append(want, fmt.Sprintf("completed %d", id), fmt.Sprintf("changed %d", 100+id), fmt.Sprintf("changed %d", 100+id))
	}
	s.Expect("/hook", want...)
	sent := testenv.Value[[]int64](t, s.Store, `select array_agg(delivery_id order by delivered_at_tz, delivery_id)
		from walhook.delivery_log where response_id::bigint < 200`)
	if !slices.IsSorted(sent) {
		t.Errorf("deliveries ended in the order %v", sent)
	}
}
