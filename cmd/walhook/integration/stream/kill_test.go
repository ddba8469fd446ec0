package stream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// writers starts clients that write responses 1 to n, inserting and starting each in separate transactions.
func writers(s *harness.Site, n int) (wait func()) {
	const clients = 4
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			conn := testenv.Connect(s.T, s.DB)
			for id := c + 1; id <= n; id += clients {
				_, err := conn.Exec(ctx, "insert into respondent (id, assessment_id) values ($1, 1)", id)
				if err == nil {
					_, err = conn.Exec(ctx, "update respondent set started_at = now() where id = $1", id)
				}
				if err != nil {
					s.T.Errorf("write response %d: %v", id, err)
					return
				}
			}
		})
	}
	return all.Wait
}

// queued waits until at least n deliveries have been queued.
func queued(s *harness.Site, n int64) {
	s.T.Helper()
	testenv.Eventually(s.T, 3*harness.Patience, fmt.Sprintf("%d deliveries", n), func() (bool, string) {
		got := testenv.Value[int64](s.T, s.Store, "select count(*) from walhook.delivery_log")
		return got >= n, fmt.Sprint(got)
	})
}

func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	const n = 3000
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	s.Hook("/hook", "created")
	s.Hook("/hook", "started")
	wait := writers(s, n)
	for round := range 4 {
		// At a moment that depends on its progress, not on the clock.
		queued(s, int64(round*1000+rand.IntN(900)))
		d.Kill()
		d = s.Start()
	}
	wait()
	d.Ready()
	harness.CheckExactlyOnce(s, n, "created", "started")
}

// A transaction of 100,000 rows spans many store transactions. A kill in the middle neither loses nor repeats any.
func TestKillInLargeTransaction(t *testing.T) {
	t.Parallel()
	const n = 100000
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	s.Hook("/hook", "created")
	// Only queueing matters here: sending them all would take long.
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{Hang: true}))
	s.Exec("insert into respondent (id, assessment_id) select g, 1 from generate_series(1, $1::int) g", n)
	for _, at := range []int64{1, 30000, 60000} {
		queued(s, at)
		d.Kill()
		d = s.Start()
	}
	d.Ready()
	s.WaitStored()
	got := testenv.Psql(t, s.Store, "select count(*), count(distinct response_id), min(response_id::int), max(response_id::int) from walhook.delivery_log")
	if want := fmt.Sprintf("%d|%d|1|%d", n, n, n); got != want {
		t.Errorf("the log has %s, not %s", got, want)
	}
	if n := testenv.Value[int64](t, s.Store, "select count(distinct message_id) from (select message_id from walhook.delivery_log limit 5000) m"); n != 5000 {
		t.Errorf("5000 deliveries have %d webhook-ids", n)
	}
}

// The daemon waits and reconnects after a server crash, and when all connections are terminated.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, server, harness.SampleSchema)
	d := s.Run()
	s.Hook("/hook", "created")
	s.Hook("/hook", "started")
	s.Exec("insert into respondent (id, assessment_id) select n, 1 from generate_series(1, 1000) n")
	queued(s, 1)
	server.Kill()
	d.Readyz(503, "")
	s.Up(server)
	s.Exec("update respondent set started_at = now()")
	d.Ready()
	s.Exec("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'walhook%' and pid <> pg_backend_pid()")
	s.Exec("insert into respondent (id, assessment_id, started_at) select n, 1, now() from generate_series(1001, 1500) n")
	d.Ready()
	harness.CheckExactlyOnce(s, 1500, "created", "started")
	if n := testenv.Value[int64](t, s.Store, "select count(*) from walhook.incident where resolved_at is null"); n != 0 {
		t.Errorf("%d incidents are open", n)
	}
}

// A transaction is partly queued, followed by many changes of other tables. Until the server sends it again after a
// kill, it reports how far it has read, which advances the position; a second kill must not forget what was queued.
func TestKillTwiceInLargeTransaction(t *testing.T) {
	t.Parallel()
	const n = 30000
	s := harness.NewSite(t, harness.SampleSchema+"create table other (n int);")
	d := s.Run()
	s.Hook("/hook", "created")
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{Hang: true})) // only queueing matters
	committed := make(chan error, 1)
	go func() {
		conn := testenv.Connect(t, s.DB)
		_, err := conn.Exec(context.Background(), fmt.Sprintf(`begin;
			insert into respondent (id, assessment_id) select g, 1 from generate_series(1, %d) g;
			insert into other select g from generate_series(1, 1500000) g;
			commit`, n))
		committed <- err
	}()
	store := testenv.Connect(t, s.Store)
	position := func() (text string, partial bool) {
		t.Helper()
		err := store.QueryRow(t.Context(), "select format('%s+%s of %s', lsn, partial_changes, partial_lsn), partial_lsn is not null from walhook.position").Scan(&text, &partial)
		if err != nil {
			t.Fatal(err)
		}
		return text, partial
	}
	testenv.Eventually(t, 3*harness.Patience, "a transaction that is queued in part", func() (bool, string) {
		text, partial := position()
		return partial, text
	})
	d.Kill()
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	before, partial := position()
	if !partial {
		t.Fatal("the whole transaction was queued before the daemon was killed")
	}
	url := s.Env["DATABASE_URL"]
	d = s.With("DATABASE_URL", url+"&wal_sender_timeout=4s").Start() // makes the server report more often
	testenv.Eventually(t, 3*harness.Patience, "another position", func() (bool, string) {
		text, _ := position()
		return text != before, text
	})
	d.Kill()
	s.With("DATABASE_URL", url).Start().Ready()
	testenv.Eventually(t, 3*harness.Patience, "the whole transaction", func() (bool, string) {
		text, partial := position()
		return !partial, text
	})
	s.WaitStored()
	got := testenv.Psql(t, s.Store, "select count(*), count(distinct response_id), min(response_id::int), max(response_id::int) from walhook.delivery_log")
	if want := fmt.Sprintf("%d|%d|1|%d", n, n, n); got != want {
		t.Errorf("the log has %s, not %s", got, want)
	}
}
