package dispatch

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/sql"
)

// restartBatch bounds how many waits one statement restarts.
const restartBatch = 10_000

// apply takes over reloaded webhooks, and reports whether webhooks are gone.
func (s *Scheduler) apply(loaded *webhooks) (gone bool) {
	s.cfg.Loaded(len(loaded.byID))
	return s.schedule.apply(loaded)
}

// forgetEndpoints deletes the URLs that no webhook has any more.
func (s *Scheduler) forgetEndpoints(ctx context.Context) error {
	const batch = 1000
	for forgotten := int64(batch); forgotten == batch; {
		if err := s.pool.QueryRow(ctx, sql.ForgetEndpoints.SQL, batch).Scan(&forgotten); err != nil {
			return fmt.Errorf("forget URLs that no webhook has: %w", err)
		}
	}
	return nil
}

// findWork asks the store which of the endpoints that seem idle have something to send.
func (s *Scheduler) findWork(ctx context.Context) error {
	for restarted := int64(restartBatch); restarted == restartBatch; {
		tag, err := s.pool.Exec(ctx, sql.RestartWaits.SQL, restartBatch)
		if err != nil {
			return fmt.Errorf("restart waits: %w", err)
		}
		restarted = tag.RowsAffected()
	}
	asked, ids, cursors := s.idle()
	if len(ids) == 0 {
		return nil
	}
	rows, err := s.pool.Query(ctx, sql.FindWork.SQL, sql.FindWork.Bind(sql.Args{"webhook_ids": ids, "cursors": cursors})...)
	if err != nil {
		return fmt.Errorf("look for pending deliveries: %w", err)
	}
	pending, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return fmt.Errorf("look for pending deliveries: %w", err)
	}
	s.busy(asked, pending)
	return nil
}

// Ready reports whether the senders hold their lease, and why not.
func (s *Scheduler) Ready() (bool, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopping:
		return false, s.health.because("stopping", Leasing)
	case time.Now().After(s.aliveUntil):
		return false, s.health.because("the store does not answer", Leasing)
	}
	if reason := s.health.stopped(); reason != "" {
		return false, reason
	}
	return true, ""
}

// ReportedReady reports whether the store knows from the last heartbeat that this daemon is ready.
func (s *Scheduler) ReportedReady() bool { return s.reportedReady.Load() }

// Reader is another daemon, as it reports itself.
type Reader struct {
	Name    string
	Unready string        // as in Report
	Silent  time.Duration // since its last report
}

// Reader returns the other daemon that reads the slot, nil where none reports that it does.
func (s *Scheduler) Reader() *Reader { return s.reader.Load() }
