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
	"walhook/dispatch/schedule"
	"walhook/session"
	"walhook/sql"
)

// poolConns bounds the connections to the store besides those of the stream, the coordinator and the membership.
const poolConns = loaders + 3

// Run sends until the context ends, then waits for the attempts in flight and records their results. Meanwhile it keeps
// its lease, and releases each endpoint that has nothing in flight, so that other daemons send there. It returns nil
// after such a clean stop, a *catalog.CopyError if the store is not the original one, and a *sql.VersionError if its
// schema has changed to another version.
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

	// The loops outlive the context until the attempts in flight are recorded.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var workers sync.WaitGroup
	for range loaders {
		workers.Go(func() { s.loadLoop(background) })
	}
	workers.Go(func() { s.recordLoop(background) })
	workers.Go(func() { s.visibilityLoop(background) })
	workers.Go(func() { s.notifyLoop(background) })
	workers.Go(func() { s.sampleLoop(background) })
	workers.Go(func() { s.timeIndexLoop(background) })
	workers.Go(func() { s.upkeepLoop(background) })
	workers.Go(func() { s.healthLoop(background) })

	coordinator, membership := &coordinator{s: s}, &membership{s: s, name: stream.DaemonName()}
	sessions, endSessions := context.WithCancel(background)
	defer endSessions()
	ended := make(chan error, 2)
	go func() { ended <- coordinator.run(sessions) }()
	go func() { ended <- membership.run(sessions) }()
	left := cap(ended)
	select {
	case <-ctx.Done():
	case err = <-ended:
		left--
		s.cfg.Failed(err)
	}
	s.drain()
	endSessions()
	for range left {
		err = cmp.Or(err, <-ended)
	}
	stop()
	s.abort() // also ends queries for successors, which nobody would send
	workers.Wait()
	s.queries.Wait()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	membership.close(closing)
	return err
}

// A clean stop takes no longer than an attempt's timeout and ten seconds, a few of which the stream needs.
// recordTimeout is how much longer than an attempt its result may take, and closeTimeout bounds the release of
// endpoints.
const (
	recordTimeout = 2 * time.Second
	closeTimeout  = time.Second
)

// closePool closes the connections to the store, but does not wait for a store that does not answer.
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

// drain stops new attempts, and waits until those in flight have ended and are recorded.
func (s *Scheduler) drain() {
	s.schedule.Stop()
	if n := s.schedule.Counts().InFlight; n > 0 {
		s.cfg.Log.Info("stopping; waiting for attempts in flight", "in_flight", n)
	}
	close(s.stopRequested)
	deadline := time.Now().Add(s.cfg.Timeout + recordTimeout)
	giveUp := time.AfterFunc(s.cfg.Timeout+time.Second, s.abort)
	s.attempts.Wait()
	giveUp.Stop()
	for time.Now().Before(deadline) {
		if s.schedule.Counts().Unrecorded <= s.rejected.count() {
			return
		}
		s.schedule.ResultsPending.Signal()
		time.Sleep(5 * time.Millisecond)
	}
	s.cfg.Log.Warn("stopped with results that the store did not take; these deliveries will be sent again")
}

// statementTimeout bounds each use of a pooled session, which is replaced then: its server process may be stopped, or a
// balancer may keep the connection open after the server is gone.
const statementTimeout = 15 * time.Second

// lockWait is how long a statement waits for a lock before it fails, to be retried.
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

// lockedRetry is the delay before results are recorded again that were deferred because of a lock.
const lockedRetry = 250 * time.Millisecond

// recordLoop records results in batches: one batch gathers while the previous one is sent. Results that other
// transactions have locked are deferred, so that they hold up no others. Results that the store rejects are retried now
// and then.
func (s *Scheduler) recordLoop(ctx context.Context) {
	var deferred []schedule.Result
	retryDeferred := time.NewTimer(lockedRetry)
	defer retryDeferred.Stop()
	retryRejected := time.NewTicker(rejectedRetry)
	defer retryRejected.Stop()
	for ctx.Err() == nil {
		var locked []schedule.Result
		select {
		case <-s.schedule.ResultsPending:
			results, endpoints := s.schedule.TakeResults()
			locked = s.recordAll(ctx, results, s.recordWith(endpoints))
		case <-retryRejected.C:
			if results := s.rejected.take(); len(results) > 0 {
				locked = s.recordAll(ctx, results, s.recordWith(nil))
			}
		case <-retryDeferred.C:
			results := deferred
			deferred = nil
			locked = s.recordAll(ctx, results, s.recordLocked)
		case <-ctx.Done():
		}
		if len(locked) > 0 {
			for _, id := range s.schedule.DeferLocked(locked) {
				s.cfg.Log.Info("a webhook's deliveries wait for a transaction that has locked them", "webhook_id", id)
			}
			deferred = append(deferred, locked...)
			retryDeferred.Reset(lockedRetry)
		}
	}
	if len(deferred) > 0 {
		s.cfg.Log.Warn("stopped with results that wait for a lock in the store; these deliveries will be sent again")
	}
}

// recordAll records results until the store has accepted or rejected each, except those that other transactions have
// locked, which it returns.
func (s *Scheduler) recordAll(ctx context.Context, left []schedule.Result, record recordFunc) (locked []schedule.Result) {
	err := retry.Do(ctx, newStoreBackoff(), func(ctx context.Context) error {
		rest, waiting, err := s.recordParts(ctx, left, record)
		left, locked = rest, append(locked, waiting...)
		if err != nil || s.rejected.count() == 0 {
			s.noteUnless(ctx, Recording, err)
		}
		if len(left) == 0 && (err == nil || refused(err)) {
			return nil
		}
		s.cfg.Log.Warn("the store did not accept results; retrying", "error", err)
		s.pool.Reset() // the OIDs that a connection has cached may be those of another store
		return retry.RetryableError(err)
	})
	if err != nil {
		return nil
	}
	return locked
}

// findSuccessor queries the next delivery of a line in a goroutine of its own.
func (s *Scheduler) findSuccessor(q *schedule.SuccessorQuery) {
	s.queries.Add(1)
	go func() {
		defer s.queries.Done()
		var next *schedule.Delivery
		var due, stale bool
		err := retry.Do(s.attemptCtx, newStoreBackoff(), func(ctx context.Context) error {
			var err error
			next, due, stale, err = s.successor(ctx, q.EndpointID, q.ResponseID, q.Ordered)
			s.noteUnless(ctx, Loading, err)
			return retry.RetryableError(err)
		})
		if err == nil {
			s.schedule.SuccessorFound(q, next, due, stale)
		}
	}()
}

// loadLoop loads deliveries for the endpoints that have waited the longest.
func (s *Scheduler) loadLoop(ctx context.Context) {
	for {
		select {
		case <-s.schedule.LoadsPending:
		case <-ctx.Done():
			return
		}
		loads := s.schedule.TakeLoads()
		if len(loads) == 0 {
			continue
		}
		err := s.load(ctx, loads)
		s.noteUnless(ctx, Loading, err)
		if err != nil && !errors.Is(err, context.Canceled) {
			s.cfg.Log.Warn("could not query pending deliveries; retrying", "error", err)
			s.pool.Reset() // as in recordAll
		}
		s.schedule.LoadsEnded(loads, err)
	}
}

// visibilityLoop makes deliveries ready as the source begins to show their transactions. It refreshes the horizon while
// they are being queued, so that most are visible as soon as they are handed over.
func (s *Scheduler) visibilityLoop(ctx context.Context) {
	for {
		select {
		case <-s.schedule.VisibilityPending:
		case <-s.horizonPrefetch:
			// If this fails, the refresh below fails as well, and reports it.
			_ = s.cfg.Horizon.Refresh(ctx)
			continue
		case <-ctx.Done():
			return
		}
		progress, refresh := time.Now(), s.cfg.Horizon.Refresh
		for pause := horizonPauseMin; ; pause = min(2*pause, horizonPauseMax) {
			left, ready := 0, 0
			err := refresh(ctx)
			s.noteUnless(ctx, Visibility, err)
			if err == nil {
				left, ready = s.schedule.RecheckVisibility()
			} else if ctx.Err() == nil {
				s.cfg.Log.Warn("deliveries wait: the source cannot be asked what it shows", "error", err)
				left, pause = 1, time.Second
			}
			refresh = s.cfg.Horizon.Refresh
			if ready > 0 {
				progress = time.Now()
			} else if left > 0 && time.Since(progress) > horizonPatience {
				s.cfg.Log.Warn("deliveries wait: the source does not show their transactions; connecting again", "deliveries", left)
				progress, refresh = time.Now(), s.cfg.Horizon.Reconnect
			}
			if left == 0 || ctx.Err() != nil {
				break
			}
			select {
			case <-time.After(pause):
			case <-s.schedule.VisibilityPending:
			case <-ctx.Done():
				return
			}
		}
	}
}
