package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"walhook/sql"
)

const (
	// housekeeping is the usual interval of upkeep. It is more frequent if partitions are shorter.
	housekeeping = 10 * time.Minute
	// upkeepRetry is the delay after upkeep failed, or while the overflow is in use.
	upkeepRetry = 3 * time.Second
	// upkeepTimeout bounds each of its statements.
	upkeepTimeout = time.Minute
	// upkeepShort is how far ahead the log must have partitions if it gets no new ones. With less, /readyz reports it.
	upkeepShort = 24 * time.Hour
)

// upkeepLoop creates the log's partitions ahead, drops expired ones, moves results from the overflow to the log, and
// counts the deliveries of each hour for the console.
func (s *Scheduler) upkeepLoop(ctx context.Context) {
	step, every := partitionUnit(s.cfg.Retention)
	for {
		covered, err := s.upkeep(ctx, step.name)
		if ctx.Err() != nil {
			return
		}
		pause := every
		switch {
		case isLocked(err) && covered > step.length:
			pause = upkeepRetry // another daemon does upkeep, or a long query runs
			s.cfg.Log.Debug("log upkeep found a lock taken", "error", err)
		case err != nil:
			pause = upkeepRetry
			s.health.noteAs(Upkeep, err, covered < min(step.length, upkeepShort))
			s.cfg.Log.Warn("log upkeep failed; retrying",
				"error", err, "in", pause, "partitions_reach", covered.Round(time.Second).String())
		default:
			s.health.note(Upkeep, nil)
		}
		if err := s.countHours(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("deliveries could not be counted for the console; retrying", "error", err, "in", every)
		}
		if at := s.refusedAt.Load(); at != nil {
			if pause = upkeepRetry; time.Since(*at) > 3*upkeepRetry && err == nil {
				s.refusedAt.CompareAndSwap(at, nil)
				s.health.note(Logging, nil)
			}
		}
		select {
		case <-time.After(pause):
		case <-s.upkeepWanted:
		case <-ctx.Done():
			return
		}
	}
}

// upkeep does each part even if others fail. It returns how far ahead the log has partitions.
func (s *Scheduler) upkeep(ctx context.Context, unit string) (covered time.Duration, err error) {
	do := func(what, query string, args ...any) error {
		ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
		defer cancel()
		if _, err := s.pool.Exec(ctx, query, args...); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
	errs := []error{do("create the log's partitions", sql.EnsurePartitions.SQL, unit), s.drainOverflow(ctx)}
	if s.cfg.Retention > 0 {
		errs = append(errs, do("drop old log entries", sql.DropPartitions.SQL, s.cfg.Retention),
			do("delete old entries of the log's overflow", sql.TrimOverflow.SQL, s.cfg.Retention))
	}
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	var ahead *time.Duration
	if e := s.pool.QueryRow(ctx, sql.LogCovered.SQL).Scan(&ahead); e != nil {
		errs = append(errs, fmt.Errorf("find how far ahead the log has partitions: %w", e))
	}
	if ahead != nil {
		covered = *ahead
	}
	return covered, errors.Join(errs...)
}

// countHours counts the deliveries of the hours that have passed. It takes none of them twice, so that it costs one read
// of each result.
func (s *Scheduler) countHours(ctx context.Context) error {
	for {
		ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
		var counted int
		err := s.pool.QueryRow(ctx, sql.CountHours.SQL).Scan(&counted)
		cancel()
		if err != nil || counted == 0 {
			return err
		}
	}
}

// drainOverflow moves results in transactions of bounded size.
func (s *Scheduler) drainOverflow(ctx context.Context) error {
	for {
		ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
		var moved int64
		var remain bool
		err := s.pool.QueryRow(ctx, sql.DrainOverflow.SQL).Scan(&moved, &remain)
		cancel()
		if err != nil {
			return fmt.Errorf("move entries from the log's overflow to the log: %w", err)
		}
		if !remain || moved == 0 {
			return nil
		}
	}
}

// unit is the length of the log's partitions.
type unit struct {
	name   string // as walhook.ensure_partitions knows it
	length time.Duration
}

// partitionUnit returns the unit that suits a retention, since only whole partitions are dropped, and the interval of
// upkeep.
func partitionUnit(retention time.Duration) (u unit, every time.Duration) {
	const day = 24 * time.Hour
	switch {
	case retention == 0 || retention > 180*day:
		return unit{"month", 28 * day}, housekeeping
	case retention > 3*day:
		return unit{"day", day}, housekeeping
	case retention > time.Hour:
		return unit{"hour", time.Hour}, housekeeping
	case retention > 10*time.Minute:
		return unit{"minute", time.Minute}, time.Minute
	default:
		return unit{"10 seconds", 10 * time.Second}, 5 * time.Second
	}
}
