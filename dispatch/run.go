package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sethvargo/go-retry"

	"walhook/cdc"
	"walhook/sql"
)

// poolConns bounds the connections to the store besides those of the stream and the lease.
const poolConns = loaders + 3

// Run sends until the context ends, then waits for the attempts in flight, records them and gives its endpoints back. It
// returns nil after such a clean stop, and a *cdc.CopyError when it ended because the store is not what it was.
func (s *Scheduler) Run(ctx context.Context) error {
	config, err := pgxpool.ParseConfig(s.cfg.StoreURL)
	if err != nil {
		return fmt.Errorf("parse the URL of the store: %w", err)
	}
	config.MaxConns = poolConns
	config.ConnConfig.RuntimeParams["client_encoding"] = "UTF8"
	cdc.Prepare(&config.ConnConfig.Config)
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if err := s.cfg.Original.CheckStore(ctx, conn); err != nil {
			return err
		}
		if err := sql.RegisterTypes(ctx, conn); err != nil {
			return err
		}
		return sql.ByIndex(ctx, conn)
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return fmt.Errorf("connect to the store: %w", err)
	}
	defer s.pool.Close()

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

	lease := &lease{s: s, name: cdc.DaemonName()}
	err = lease.run(ctx)

	s.drain()
	stop()
	workers.Wait()
	s.lookups.Wait()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseMargin)
	defer cancel()
	lease.close(closing)
	return err
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
	giveUp := time.AfterFunc(s.cfg.Timeout+time.Second, s.abort)
	s.attempts.Wait()
	giveUp.Stop()
	deadline := time.Now().Add(leaseMargin)
	for time.Now().Before(deadline) {
		s.mu.Lock()
		left := s.unrecorded
		s.mu.Unlock()
		if left == 0 {
			return
		}
		signal(s.recorded)
		time.Sleep(5 * time.Millisecond)
	}
	s.cfg.Log.Warn("stopped with results that the store did not take; these deliveries will be sent again")
}

func newStoreBackoff() retry.Backoff {
	return retry.WithJitterPercent(20, retry.WithCappedDuration(2*time.Second, retry.NewExponential(50*time.Millisecond)))
}

// recordLoop records results in batches: while one is on its way the next gathers.
func (s *Scheduler) recordLoop(ctx context.Context) {
	for {
		select {
		case <-s.recorded:
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		results := s.results
		s.results = nil
		troubled := make([]*endpoint, 0, len(s.troubled))
		for e := range s.troubled {
			e.troubled = e.failures > 0
			troubled = append(troubled, e)
		}
		clear(s.troubled)
		s.mu.Unlock()
		if len(results) == 0 && len(troubled) == 0 {
			continue
		}
		err := retry.Do(ctx, newStoreBackoff(), func(ctx context.Context) error {
			err := s.record(ctx, results, troubled)
			if err != nil {
				s.cfg.Log.Warn("the store did not take results; trying again", "error", err)
				s.pool.Reset() // what a connection knows of the store's types may have been true of another store
			}
			return retry.RetryableError(err)
		})
		if err != nil {
			return
		}
		s.finish(results)
	}
}

// finish lets go of what has been recorded and makes the next of each line ready.
func (s *Scheduler) finish(results []result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	for i := range results {
		r := &results[i]
		e := r.d.endpoint
		s.unrecorded--
		next, line := e.finished(r.d, r.final)
		if next != nil {
			s.pass(next)
		}
		if line != nil {
			s.lookUp(e, line)
		}
		if w := s.webhooks.byID[r.d.webhookID]; w != nil && w.moving() {
			changed = true // it may have waited for this one
		}
		if r.unknown {
			// What was queued anew in its place waits behind a retry that will not come.
			e.forget()
			s.wantLoad(e)
		}
		if !r.final {
			if at := r.at.Add(r.delay); e.dueAt.IsZero() || at.Before(e.dueAt) {
				e.dueAt = at
			}
		}
		s.turn(e)
		s.rearm(e)
		changed = changed || e.leaving && len(e.flying) == 0
	}
	s.pump()
	if changed {
		s.wake() // an endpoint may be released, or a webhook go on
	}
}

// lookUp finds the next delivery of a line in the store.
func (s *Scheduler) lookUp(e *endpoint, l *line) {
	if s.stopping {
		return
	}
	ordered, generation := e.ordered(), e.generation
	s.lookups.Add(1)
	go func() {
		defer s.lookups.Done()
		var next *delivery
		var due, stale bool
		err := retry.Do(s.attemptCtx, newStoreBackoff(), func(ctx context.Context) error {
			var err error
			next, due, stale, err = s.successor(ctx, e.id, l.response, ordered)
			return retry.RetryableError(err)
		})
		if err != nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if e.generation != generation {
			return // all of it is loaded anew
		}
		if stale || next != nil && !s.current(next, e) {
			e.forget()
			s.outdated(e)
			return
		}
		if next != nil && !(due && s.adopt(next)) {
			next = nil
		}
		goes, again := e.succeeded(l, next)
		if goes {
			s.pass(next)
			s.pump()
		}
		if again {
			s.lookUp(e, l)
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
		s.mu.Lock()
		looks := s.takeLooks()
		s.mu.Unlock()
		if len(looks) == 0 {
			continue
		}
		err := s.load(ctx, looks)
		if err != nil && !errors.Is(err, context.Canceled) {
			s.cfg.Log.Warn("could not look for pending deliveries; trying again", "error", err)
			s.pool.Reset() // as when results are not taken
		}
		s.mu.Lock()
		for _, l := range looks {
			s.loaded(l, err)
		}
		s.pump()
		for _, l := range looks {
			s.rearm(l.endpoint)
		}
		s.mu.Unlock()
	}
}

// loaded takes what a look brought to its endpoint.
func (s *Scheduler) loaded(l *look, err error) {
	e := l.endpoint
	e.loading = false
	switch {
	case err != nil:
		e.lookLater(time.Now())
	case e.generation != l.generation || !e.owned:
		s.wantLoad(e)
	case l.stale || !s.allCurrent(l):
		s.outdated(e)
	default:
		e.integrate(l, time.Now(), func(d *delivery) {
			s.adopt(d)
			s.admit(d)
		})
		if e.low() {
			s.wantLoad(e)
		}
	}
	s.turn(e)
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
		for pause := horizonPauseMin; ; pause = min(2*pause, horizonPauseMax) {
			left := 0
			if err := s.cfg.Horizon.Refresh(ctx); err == nil {
				left = s.release()
			} else if ctx.Err() == nil {
				s.cfg.Log.Warn("deliveries wait: the source cannot be asked what it shows", "error", err)
				left, pause = 1, time.Second
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

// release passes on what has become visible and returns how much has not.
func (s *Scheduler) release() (left int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.gated
	kept := waiting[:0]
	for _, d := range waiting {
		switch {
		case d.generation != d.endpoint.generation:
			// forgotten; it will be loaded again
		case s.cfg.Horizon.Visible(d.xid):
			d.endpoint.ready(d)
			s.turn(d.endpoint)
		default:
			kept = append(kept, d)
		}
	}
	clear(s.gated[len(kept):])
	s.gated = kept
	s.pump()
	return len(kept)
}
