package dispatch

import (
	"context"
	"time"
)

const (
	// queuedChannel is where the daemon that reads the slot tells the others for which endpoints it has queued something.
	queuedChannel = "walhook_queued"

	// queueTruncated is what walhook.log_truncated says there.
	queueTruncated = "truncated"

	// tellPause is the least time between two notifications. Each goes to every daemon.
	tellPause = 5 * time.Millisecond

	// tellLimit is how many endpoints a notification names: it has room for 8,000 bytes. One that names none means all.
	tellLimit = 400
)

// tellLoop tells other daemons what was queued for their endpoints. One that misses it finds out at its next look.
func (s *Scheduler) tellLoop(ctx context.Context) {
	for {
		select {
		case <-s.tell:
		case <-ctx.Done():
			return
		}
		// Nothing depends on the store's disk.
		telling, cancel := context.WithTimeout(ctx, statementTimeout)
		_, err := s.pool.Exec(telling, "select set_config('synchronous_commit', 'off', true), pg_notify($1, $2)", queuedChannel, s.takeElsewhere())
		cancel()
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("could not tell other daemons what was queued; they look by themselves", "error", err, "in", lookInterval)
		}
		select {
		case <-time.After(tellPause):
		case <-ctx.Done():
			return
		}
	}
}
