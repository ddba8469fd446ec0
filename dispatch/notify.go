package dispatch

import (
	"context"
	"strconv"
	"strings"
	"time"
)

const (
	// queuedChannel is the channel on which the daemon that reads the slot names the endpoints of other daemons for
	// which it has queued something.
	queuedChannel = "walhook_queued"

	// queueTruncated is the payload that walhook.log_truncated sends there.
	queueTruncated = "truncated"

	// notifyPause is the least time between two notifications, because each goes to every daemon.
	notifyPause = 5 * time.Millisecond

	// notifyLimit is how many endpoints a notification names at most: a payload has 8,000 bytes. The empty payload
	// means all.
	notifyLimit = 400
)

// notifyLoop notifies other daemons of deliveries queued for their endpoints. A daemon that misses a notification finds
// the deliveries within findWorkInterval.
func (s *Scheduler) notifyLoop(ctx context.Context) {
	for {
		select {
		case <-s.schedule.NotificationPending:
		case <-ctx.Done():
			return
		}
		// A notification lost in a crash is harmless, so this commit need not wait for the disk.
		bounded, cancel := context.WithTimeout(ctx, statementTimeout)
		_, err := s.pool.Exec(bounded, "select set_config('synchronous_commit', 'off', true), pg_notify($1, $2)",
			queuedChannel, queuedPayload(s.schedule.TakeQueuedForOthers()))
		cancel()
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("could not notify other daemons of new deliveries; they will poll", "error", err, "in", findWorkInterval)
		}
		select {
		case <-time.After(notifyPause):
		case <-ctx.Done():
			return
		}
	}
}

// queuedPayload returns the payload that names these endpoints, or "" for all if there are too many.
func queuedPayload(ids []int64) string {
	if len(ids) > notifyLimit {
		return ""
	}
	fields := make([]string, len(ids))
	for i, id := range ids {
		fields[i] = strconv.FormatInt(id, 10)
	}
	return strings.Join(fields, " ")
}

// queuedNotification takes a notification of another daemon that it has queued something for this one's endpoints.
func (s *Scheduler) queuedNotification(payload string) {
	switch payload {
	case "":
		s.schedule.QueueLoadAll()
	case queueTruncated:
		s.schedule.InvalidateAll()
	default:
		s.schedule.QueuedElsewhere(parseIDs(payload))
	}
}

// parseIDs returns the ids in a payload, and skips everything else.
func parseIDs(payload string) (ids []int64) {
	for field := range strings.FieldsSeq(payload) {
		if id, err := strconv.ParseInt(field, 10, 64); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}
