package stream

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// A commit that waits for a synchronous standby is in the WAL but not visible. Nothing is sent for it until it is
// released.
func TestCommitThatWaitsForAStandby(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, server, harness.SampleSchema).WithStore(testenv.Postgres(t))
	s.Run()
	s.Hooks()
	s.Exec("alter system set synchronous_standby_names = 'nobody'")
	s.Exec("select pg_reload_conf()")
	writer := testenv.Connect(t, s.DB) // a new session has the new setting
	s.Exec("checkpoint")               // run by the process that makes commits wait, after it has read the setting
	written := make(chan error, 1)
	go func() {
		_, err := writer.Exec(context.Background(), "insert into respondent (id, assessment_id) values (1, 1)")
		written <- err
	}()
	testenv.Eventually(t, harness.Patience, "the delivery to be queued", func() (bool, string) {
		got := testenv.Psql(t, s.Store, "select count(*) from walhook.queue where response_id = '1'")
		return got == "1", got
	})
	s.WaitHeartbeat()
	if waits := testenv.Psql(t, s.DB, "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"); waits != "1" {
		t.Errorf("%s commits wait for the standby, not 1", waits)
	}
	if got := s.Events("/hook"); len(got) != 0 {
		t.Errorf("%v arrived before the commit was visible", got)
	}
	if seen := testenv.Psql(t, s.DB, "select count(*) from respondent"); seen != "0" {
		t.Errorf("others see the row already")
	}
	s.Exec("alter system reset synchronous_standby_names")
	s.Exec("select pg_reload_conf()")
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	s.Expect("/hook", "created 1")
}

// A receiver that immediately queries the application's database on every request never reads old data.
func TestReceiverReadsBack(t *testing.T) {
	t.Parallel()
	const n = 5000 // with two events each
	s := harness.NewSite(t, harness.SampleSchema).With("ENDPOINT_CONCURRENCY", "32")
	pool, err := pgxpool.New(t.Context(), s.DB+"&pool_max_conns=16")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var mu sync.Mutex
	var past []string
	s.Receiver.Respond("/hook", func(r testenv.Request) testenv.Reply {
		match := harness.EventOf.FindStringSubmatch(r.Body)
		var started bool
		err := pool.QueryRow(context.Background(), "select started_at is not null from respondent where id = $1", match[2]).Scan(&started)
		if err != nil || match[1] == "started" && !started {
			mu.Lock()
			defer mu.Unlock()
			past = append(past, fmt.Sprintf("%s %s: %v", match[1], match[2], err))
		}
		return testenv.Reply{}
	})
	s.Run()
	s.Hook("/hook", "created")
	s.Hook("/hook", "started")
	writers(s, n)()
	harness.CheckExactlyOnce(s, n, "created", "started")
	mu.Lock()
	defer mu.Unlock()
	if len(past) > 0 {
		t.Errorf("%d requests arrived before their change was visible, such as %s", len(past), past[0])
	}
}
