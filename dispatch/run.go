package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/sethvargo/go-retry"

	"walhook/cdc/stream"
	"walhook/session"
	"walhook/sql"
)

// poolConns bounds the connections to the store besides those of the stream and the lease.
const poolConns = loaders + 3

// Run sends until the context ends, then waits for the attempts in flight and records them. Meanwhile it keeps its lease and
// releases each endpoint that has nothing in flight, so that other daemons send there. It returns nil after such a clean stop,
// a *cdc.CopyError if the store is not what it was, and a *sql.VersionError if its schema has become that of another version.
func (s *Scheduler) Run(ctx context.Context) error {
	var err error
	s.pool, err = session.NewPool(ctx, s.cfg.StoreURL, poolConns, func(ctx context.Context, conn *pgx.Conn) error {
		if err := s.cfg.Original.CheckStore(ctx, conn); err != nil {
			return err
		}
		encoding := conn.PgConn().ParameterStatus("server_encoding")
		s.asciiText.Store(encoding != "UTF8" && encoding != "SQL_ASCII")
		if err := boundLockWaits(ctx, conn); err != nil {
			return err
		}
		if err := sql.RegisterTypes(ctx, conn); err != nil {
			return err
		}
		return sql.ByIndex(ctx, conn)
	})
	if err != nil {
		return fmt.Errorf("connect to the store: %w", err)
	}
	defer s.closePool()

	// Whoever records and loads outlives the context by the attempts in flight.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var workers sync.WaitGroup
	for range loaders {
		workers.Go(func() { s.loadLoop(background) })
	}
	workers.Go(func() { s.recordLoop(background) })
	workers.Go(func() { s.gateLoop(background) })
	workers.Go(func() { s.tellLoop(background) })
	workers.Go(func() { s.sampleLoop(background) })
	workers.Go(func() { s.timeIndexLoop(background) })
	workers.Go(func() { s.upkeepLoop(background) })
	workers.Go(func() { s.healthLoop(background) })

	lease, pulse := &lease{s: s}, &pulse{s: s, name: stream.DaemonName()}
	leasing, endLease := context.WithCancel(background)
	defer endLease()
	ended := make(chan error, 2)
	go func() { ended <- lease.run(leasing) }()
	go func() { ended <- pulse.run(leasing) }()
	left := cap(ended)
	select {
	case <-ctx.Done():
	case err = <-ended:
		left--
		s.cfg.Failed(err)
	}
	s.drain()
	endLease()
	for range left {
		err = cmp.Or(err, <-ended)
	}
	stop()
	s.abort() // also looks for what nobody will send
	workers.Wait()
	s.lookups.Wait()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	pulse.close(closing)
	return err
}

// A clean stop ends within the timeout of an attempt and ten seconds, of which the stream takes a few. recordTimeout is how much longer than an
// attempt the results may take, and closeTimeout bounds giving everything back.
const (
	recordTimeout = 2 * time.Second
	closeTimeout  = time.Second
)

// closePool closes the connections to the store. It does not wait for those where the store does not answer.
func (s *Scheduler) closePool() {
	closed := make(chan struct{})
	go func() {
		s.pool.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(time.Second):
	}
}

// drain begins no attempt any more and waits for those in flight and for their results to be recorded.
func (s *Scheduler) drain() {
	s.mu.Lock()
	s.stopping = true
	for _, e := range s.endpoints {
		if e.timer != nil {
			e.timer.Stop()
		}
	}
	s.mu.Unlock()
	close(s.drains)
	deadline := time.Now().Add(s.cfg.Timeout + recordTimeout)
	giveUp := time.AfterFunc(s.cfg.Timeout+time.Second, s.abort)
	s.attempts.Wait()
	giveUp.Stop()
	for time.Now().Before(deadline) {
		s.mu.Lock()
		left := s.unrecorded - len(s.rejected)
		s.mu.Unlock()
		if left <= 0 {
			return
		}
		signal(s.recorded)
		time.Sleep(5 * time.Millisecond)
	}
	s.cfg.Log.Warn("stopped with results that the store did not take; these deliveries will be sent again")
}

// statementTimeout bounds what is asked of a session of the pool at once. Then it is replaced: its server process may have stopped, or what
// stands between may keep it open though the server is gone.
const statementTimeout = 15 * time.Second

// lockWait is how long a statement waits for a lock that somebody else has before it gives up, for now.
const lockWait = 250 * time.Millisecond

func boundLockWaits(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, "select pg_catalog.set_config('lock_timeout', $1, false)", lockWait.String()); err != nil {
		return fmt.Errorf("set up the store's session: %w", err)
	}
	return nil
}

func newStoreBackoff() retry.Backoff {
	return retry.WithJitterPercent(20, retry.WithCappedDuration(2*time.Second, retry.NewExponential(50*time.Millisecond)))
}

// asidePause is the wait before trying again to record results that wait for somebody's lock.
const asidePause = 250 * time.Millisecond

// recordLoop records results in batches: while one is on its way the next gathers. Those that wait for somebody's lock are set aside, so that
// they keep no others waiting; those that the store rejects are retried now and then.
func (s *Scheduler) recordLoop(ctx context.Context) {
	var aside []result
	retryAside := time.NewTimer(asidePause)
	defer retryAside.Stop()
	retryRejected := time.NewTicker(rejectedRetry)
	defer retryRejected.Stop()
	for ctx.Err() == nil {
		var locked []result
		select {
		case <-s.recorded:
			results, troubled := s.takeResults()
			locked = s.write(ctx, results, func(ctx context.Context, to destination, part []result) ([]result, []result, error) {
				return s.record(ctx, to, part, troubled)
			})
		case <-retryRejected.C:
			if results := s.takeRejected(); len(results) > 0 {
				locked = s.write(ctx, results, func(ctx context.Context, to destination, part []result) ([]result, []result, error) {
					return s.record(ctx, to, part, nil)
				})
			}
		case <-retryAside.C:
			results := aside
			aside = nil
			locked = s.write(ctx, results, s.recordAside)
		case <-ctx.Done():
		}
		if len(locked) > 0 {
			for _, id := range s.setAside(locked) {
				s.cfg.Log.Info("a webhook's deliveries wait for a transaction that has locked them", "webhook_id", id)
			}
			aside = append(aside, locked...)
			retryAside.Reset(asidePause)
		}
	}
	if len(aside) > 0 {
		s.cfg.Log.Warn("stopped with results that wait for a lock in the store; these deliveries will be sent again")
	}
}

// write records results until the store has taken or rejected those that nobody has locked, and returns the others.
func (s *Scheduler) write(ctx context.Context, left []result, record recordFunc) (locked []result) {
	err := retry.Do(ctx, newStoreBackoff(), func(ctx context.Context) error {
		rest, waiting, err := s.recordParts(ctx, left, record)
		left, locked = rest, append(locked, waiting...)
		if err != nil || s.rejectedCount() == 0 {
			s.noteUnless(ctx, Recording, err)
		}
		if len(left) == 0 && (err == nil || refused(err)) {
			return nil
		}
		s.cfg.Log.Warn("the store did not take results; trying again", "error", err)
		s.pool.Reset() // what a connection knows of the store's types may have been true of another store
		return retry.RetryableError(err)
	})
	if err != nil {
		return nil
	}
	return locked
}

// findSuccessor asks the store for the next delivery of a line.
func (s *Scheduler) findSuccessor(q *successorQuery) {
	s.lookups.Add(1)
	go func() {
		defer s.lookups.Done()
		var next *delivery
		var due, stale bool
		err := retry.Do(s.attemptCtx, newStoreBackoff(), func(ctx context.Context) error {
			var err error
			next, due, stale, err = s.successor(ctx, q.endpoint.id, q.line.response, q.ordered)
			s.noteUnless(ctx, Loading, err)
			return retry.RetryableError(err)
		})
		if err == nil {
			s.found(q, next, due, stale)
		}
	}()
}

// loadLoop looks into the store for those endpoints that have waited for it the longest.
func (s *Scheduler) loadLoop(ctx context.Context) {
	for {
		select {
		case <-s.loadable:
		case <-ctx.Done():
			return
		}
		looks := s.takeLooks()
		if len(looks) == 0 {
			continue
		}
		err := s.load(ctx, looks)
		s.noteUnless(ctx, Loading, err)
		if err != nil && !errors.Is(err, context.Canceled) {
			s.cfg.Log.Warn("could not look for pending deliveries; trying again", "error", err)
			s.pool.Reset() // as when results are not taken
		}
		s.loaded(looks, err)
	}
}

// gateLoop lets deliveries pass as the source begins to show their transactions. It asks while they are being queued, so that
// the answer is mostly there when they come to the gate.
func (s *Scheduler) gateLoop(ctx context.Context) {
	for {
		select {
		case <-s.gate:
		case <-s.foreseen:
			// Where this fails, the gate asks again and tells of it.
			_ = s.cfg.Horizon.Refresh(ctx)
			continue
		case <-ctx.Done():
			return
		}
		passed, refresh := time.Now(), s.cfg.Horizon.Refresh
		for pause := horizonPauseMin; ; pause = min(2*pause, horizonPauseMax) {
			left, released := 0, 0
			err := refresh(ctx)
			s.noteUnless(ctx, Visibility, err)
			if err == nil {
				left, released = s.release()
			} else if ctx.Err() == nil {
				s.cfg.Log.Warn("deliveries wait: the source cannot be asked what it shows", "error", err)
				left, pause = 1, time.Second
			}
			refresh = s.cfg.Horizon.Refresh
			if released > 0 {
				passed = time.Now()
			} else if left > 0 && time.Since(passed) > horizonPatience {
				s.cfg.Log.Warn("deliveries wait: the source does not show their transactions; connecting again", "deliveries", left)
				passed, refresh = time.Now(), s.cfg.Horizon.Reconnect
			}
			if left == 0 || ctx.Err() != nil {
				break
			}
			select {
			case <-time.After(pause):
			case <-s.gate:
			case <-ctx.Done():
				return
			}
		}
	}
}
