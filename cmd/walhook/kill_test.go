package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"walhook/testenv"
)

// exactlyOnce holds log and receiver against the application's table: each event of responses 1 to n was queued once, came at
// least once, and always under the delivery's own webhook-id.
func (s *site) exactlyOnce(n int, events ...string) {
	s.t.Helper()
	s.fence()
	for _, event := range events {
		got := testenv.Psql(s.t, s.store, fmt.Sprintf(`select count(*), count(distinct response_id), bool_and(status = 'success'), min(response_id::int), max(response_id::int)
			from walhook.delivery_log where event_type = 'response.%s'`, event))
		if want := fmt.Sprintf("%d|%d|t|1|%d", n, n, n); got != want {
			s.t.Errorf("%s: the log has %s (deliveries, responses, all successful, from, to), not %s", event, got, want)
		}
	}
	ids := map[string]map[string]bool{} // webhook-ids by event
	for _, r := range s.receiver.Requests() {
		match := eventOf.FindStringSubmatch(r.Body)
		if !slices.Contains(events, match[1]) {
			continue
		}
		key := match[1] + " " + match[2]
		if ids[key] == nil {
			ids[key] = map[string]bool{}
		}
		ids[key][r.Header.Get("Webhook-Id")] = true
	}
	for _, event := range events {
		for id := 1; id <= n; id++ {
			if seen := ids[fmt.Sprintf("%s %d", event, id)]; len(seen) != 1 {
				s.t.Fatalf("%s of response %d came under %d webhook-ids", event, id, len(seen))
			}
		}
	}
	if len(ids) != n*len(events) {
		s.t.Errorf("%d different events came, not %d", len(ids), n*len(events))
	}
}

// writers lets clients write responses 1 to n, each inserted, then started, in transactions of their own.
func (s *site) writers(n int) (wait func()) {
	const clients = 4
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			conn := testenv.Connect(s.t, s.db)
			for id := c + 1; id <= n; id += clients {
				_, err := conn.Exec(ctx, "insert into respondent (id, assessment_id) values ($1, 1)", id)
				if err == nil {
					_, err = conn.Exec(ctx, "update respondent set started_at = now() where id = $1", id)
				}
				if err != nil {
					s.t.Errorf("write response %d: %v", id, err)
					return
				}
			}
		})
	}
	return all.Wait
}

// queued waits until at least n deliveries have been queued.
func (s *site) queued(n int64) {
	s.t.Helper()
	testenv.Eventually(s.t, 3*patience, fmt.Sprintf("%d deliveries", n), func() (bool, string) {
		got := testenv.Value[int64](s.t, s.store, "select count(*) from walhook.delivery_log")
		return got >= n, fmt.Sprint(got)
	})
}

func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	const n = 3000
	s := newSite(t, sampleSchema)
	d := s.run()
	s.hook("/hook", "created")
	s.hook("/hook", "started")
	wait := s.writers(n)
	for round := range 4 {
		// At a moment that depends on how far it has come, not on the clock.
		s.queued(int64(round*1000 + rand.IntN(900)))
		d.kill()
		d = s.start()
	}
	wait()
	d.ready()
	s.exactlyOnce(n, "created", "started")
}

// A transaction of 100,000 rows spans many store transactions. A kill in its middle neither loses nor repeats one.
func TestKillInLargeTransaction(t *testing.T) {
	t.Parallel()
	const n = 100000
	s := newSite(t, sampleSchema)
	d := s.run()
	s.hook("/hook", "created")
	// Queued is what counts here: sending them all would take long.
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{Hang: true}))
	s.exec("insert into respondent (id, assessment_id) select g, 1 from generate_series(1, $1::int) g", n)
	for _, at := range []int64{1, 30000, 60000} {
		s.queued(at)
		d.kill()
		d = s.start()
	}
	d.ready()
	s.waitStored()
	got := testenv.Psql(t, s.store, "select count(*), count(distinct response_id), min(response_id::int), max(response_id::int) from walhook.delivery_log")
	if want := fmt.Sprintf("%d|%d|1|%d", n, n, n); got != want {
		t.Errorf("the log has %s, not %s", got, want)
	}
	if n := testenv.Value[int64](t, s.store, "select count(distinct message_id) from (select message_id from walhook.delivery_log limit 5000) m"); n != 5000 {
		t.Errorf("5000 deliveries have %d webhook-ids", n)
	}
}

// The server's crash, and the end of all connections, are waited out by the daemon itself.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := newSiteOn(t, server, sampleSchema)
	d := s.run()
	s.hook("/hook", "created")
	s.hook("/hook", "started")
	s.exec("insert into respondent (id, assessment_id) select n, 1 from generate_series(1, 1000) n")
	s.queued(1)
	server.Kill()
	d.readyz(503, "")
	s.up(server)
	s.exec("update respondent set started_at = now()")
	d.ready()
	s.exec("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'walhook%' and pid <> pg_backend_pid()")
	s.exec("insert into respondent (id, assessment_id, started_at) select n, 1, now() from generate_series(1001, 1500) n")
	d.ready()
	s.exactlyOnce(1500, "created", "started")
	if n := testenv.Value[int64](t, s.store, "select count(*) from walhook.incident where resolved_at is null"); n != 0 {
		t.Errorf("%d incidents are open", n)
	}
}

// A transaction is queued in part, and behind that part lies much that is of other tables. Until it comes again after a kill, the
// server reports how far it has read, which moves the position; a second kill then must not forget what was queued.
func TestKillTwiceInLargeTransaction(t *testing.T) {
	t.Parallel()
	const n = 30000
	s := newSite(t, sampleSchema+"create table other (n int);")
	d := s.run()
	s.hook("/hook", "created")
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{Hang: true})) // what counts is what is queued
	committed := make(chan error, 1)
	go func() {
		conn := testenv.Connect(t, s.db)
		_, err := conn.Exec(context.Background(), fmt.Sprintf(`begin;
			insert into respondent (id, assessment_id) select g, 1 from generate_series(1, %d) g;
			insert into other select g from generate_series(1, 1500000) g;
			commit`, n))
		committed <- err
	}()
	store := testenv.Connect(t, s.store)
	position := func() (text string, partial bool) {
		t.Helper()
		err := store.QueryRow(t.Context(), "select format('%s+%s of %s', lsn, partial_changes, partial_lsn), partial_lsn is not null from walhook.position").Scan(&text, &partial)
		if err != nil {
			t.Fatal(err)
		}
		return text, partial
	}
	testenv.Eventually(t, 3*patience, "a transaction that is queued in part", func() (bool, string) {
		text, partial := position()
		return partial, text
	})
	d.kill()
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	before, partial := position()
	if !partial {
		t.Fatal("the transaction was queued whole before the daemon was killed")
	}
	url := s.env["DATABASE_URL"]
	d = s.with("DATABASE_URL", url+"&wal_sender_timeout=4s").start() // the server reports more often
	testenv.Eventually(t, 3*patience, "another position", func() (bool, string) {
		text, _ := position()
		return text != before, text
	})
	d.kill()
	s.with("DATABASE_URL", url).start().ready()
	testenv.Eventually(t, 3*patience, "the whole transaction", func() (bool, string) {
		text, partial := position()
		return !partial, text
	})
	s.waitStored()
	got := testenv.Psql(t, s.store, "select count(*), count(distinct response_id), min(response_id::int), max(response_id::int) from walhook.delivery_log")
	if want := fmt.Sprintf("%d|%d|1|%d", n, n, n); got != want {
		t.Errorf("the log has %s, not %s", got, want)
	}
}
