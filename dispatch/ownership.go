package dispatch

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/dispatch/schedule"
	"walhook/sql"
)

// restartBatch bounds how many deliveries one statement makes due again.
const restartBatch = 10_000

func (s *Scheduler) applyWebhooks(loaded *schedule.Webhooks) (deleted bool) {
	s.cfg.Loaded(len(loaded.ByID))
	return s.schedule.ApplyWebhooks(loaded)
}

// forgetEndpoints deletes URLs that no webhook has any more.
func (s *Scheduler) forgetEndpoints(ctx context.Context) error {
	const batch = 1000
	for deleted := int64(batch); deleted == batch; {
		if err := s.pool.QueryRow(ctx, sql.ForgetEndpoints.SQL, batch).Scan(&deleted); err != nil {
			return fmt.Errorf("delete URLs that no webhook has: %w", err)
		}
	}
	return nil
}

// findWork queries which of the seemingly idle endpoints have pending deliveries.
func (s *Scheduler) findWork(ctx context.Context) error {
	for restarted := int64(restartBatch); restarted == restartBatch; {
		tag, err := s.pool.Exec(ctx, sql.RestartWaits.SQL, restartBatch)
		if err != nil {
			return fmt.Errorf("restart waits: %w", err)
		}
		restarted = tag.RowsAffected()
	}
	asked, ids, cursors := s.schedule.IdleEndpoints()
	if len(ids) == 0 {
		return nil
	}
	rows, err := s.pool.Query(ctx, sql.FindWork.SQL, sql.FindWork.Bind(sql.Args{"webhook_ids": ids, "cursors": cursors})...)
	if err != nil {
		return fmt.Errorf("find pending deliveries: %w", err)
	}
	pending, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return fmt.Errorf("find pending deliveries: %w", err)
	}
	s.schedule.WorkFound(asked, pending)
	return nil
}

// Ready reports whether this daemon sends deliveries, and if not, why.
func (s *Scheduler) Ready() (bool, string) {
	c := s.schedule.Counts()
	switch {
	case c.Stopping:
		return false, s.health.withReason("stopping", Leasing)
	case time.Now().After(c.StartsUntil):
		return false, s.health.withReason("the store does not answer", Leasing)
	}
	if reason := s.health.stoppedBecause(); reason != "" {
		return false, reason
	}
	return true, ""
}

// ReportedReady reports whether the last heartbeat stored that this daemon is ready.
func (s *Scheduler) ReportedReady() bool { return s.reportedReady.Load() }

// Reader is another daemon, as it reports itself.
type Reader struct {
	Name    string
	Unready string        // as in Report
	Silent  time.Duration // since its last report
}

// Reader returns the other daemon that reads the slot, or nil.
func (s *Scheduler) Reader() *Reader { return s.reader.Load() }
