package integration

import (
	"strings"
	"sync"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// The order about a response holds across changes of its key: nothing under the new key starts before what was pending under the former
// ones has ended.
func TestOrderHoldsAcrossKeyChanges(t *testing.T) {
	t.Parallel()
	s := sentinelOf(harness.NewSite(t, "create table respondent (id numeric(10) primary key, assessment_id bigint, started_at timestamptz, finished_at timestamptz)").
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
		// Within one transaction, which is stored in one.
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
	s.Exec("alter table respondent alter id type numeric(12, 2)") // which is another key as well
	s.Exec("update respondent set started_at = now() where id = 4")
	s.Exec("update respondent set finished_at = now() where id = 4")
	sentinelOf(s, "insert into respondent (id, assessment_id) values (9%03d, 999)", "9%03d.00")
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
			t.Errorf("response %s: %d of 4 events came: %v", response, got, delivered[response])
		}
	}
}
