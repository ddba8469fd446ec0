package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"walhook/sql"
)

// timeIndexInterval is how often the log's indexes on local times are checked: a change of the site's time zone makes
// them stale.
const timeIndexInterval = 10 * time.Second

// timeIndexLoop builds the indexes on local times that queries on the log need. It builds one at a time, so that
// recording never waits for long.
func (s *Scheduler) timeIndexLoop(ctx context.Context) {
	for {
		built, err := s.buildTimeIndex(ctx)
		pause := timeIndexInterval
		if built > 0 {
			pause = 0
		}
		switch answer := (*pgconn.PgError)(nil); {
		case ctx.Err() != nil:
			return
		case err == nil:
			s.health.note(timeIndexes, nil)
		default:
			pause = upkeepRetry
			if errors.As(err, &answer) && answer.Code[:2] != "57" { // an outage, or a server that shuts down, is reported by others
				s.health.note(timeIndexes, err)
				s.cfg.Log.Warn("an index of the log could not be built; retrying", "error", err, "in", pause)
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func (s *Scheduler) buildTimeIndex(ctx context.Context) (built int, err error) {
	if err := s.pool.QueryRow(ctx, sql.EnsureTimeIndexes.SQL, 1).Scan(&built); err != nil {
		return 0, fmt.Errorf("build the log's indexes: %w", err)
	}
	return built, nil
}
