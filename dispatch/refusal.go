package dispatch

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgerrcode"

	"walhook/cdc"
	"walhook/dispatch/post"
	"walhook/dispatch/schedule"
	"walhook/sql"
)

// destination is the pair of statements that record results in the log or in its overflow.
type destination struct{ ended, retries sql.Query }

var (
	logDestination      = destination{sql.RecordEnded, sql.RecordRetries}
	overflowDestination = destination{sql.EndedOverflow, sql.RetriesOverflow}
)

const (
	// overflowFor is how long results go straight to the overflow after the log has refused some.
	overflowFor = time.Second
	// rejectedLimit is how many results may be rejected. If the store refuses more, the fault is not in single results.
	rejectedLimit = 64
	// rejectedRetry is how often rejected results are retried.
	rejectedRetry = 3 * time.Second
)

// refused reports whether the store refused a statement for a reason that may lie in its data: an error of data, a
// permission, a trigger or a lock, but not of the connection or the server. Other data may be accepted.
func refused(err error) bool {
	state := cdc.SQLState(err)
	if state == "" {
		return false
	}
	switch state[:2] {
	case "22", "23", "38", "39", "42", "44", "P0":
		return state != pgerrcode.DuplicatePreparedStatement // the fault of a pooler
	}
	return state == pgerrcode.LockNotAvailable
}

// recordFunc records results at a destination. It returns the results that have to wait because of a lock.
type recordFunc func(ctx context.Context, to destination, results []schedule.Result) (recorded, waiting []schedule.Result, err error)

// recordOrOverflow records results in the log, or in its overflow while the log refuses some.
func (s *Scheduler) recordOrOverflow(
	ctx context.Context, results []schedule.Result, record recordFunc,
) (recorded, waiting []schedule.Result, err error) {
	var refusal error
	if at := s.refusedAt.Load(); at == nil || time.Since(*at) > overflowFor {
		if recorded, waiting, refusal = record(ctx, logDestination, results); refusal == nil || !refused(refusal) {
			return recorded, waiting, refusal
		}
	}
	if recorded, waiting, err = record(ctx, overflowDestination, results); err != nil {
		return nil, nil, err
	}
	if refusal != nil {
		now := time.Now()
		if s.refusedAt.Swap(&now) == nil {
			s.cfg.Log.Warn("the log takes no results; they go to its overflow", "error", refusal)
		}
		s.health.note(Logging, refusal)
		s.upkeepWanted.Signal()
	}
	return recorded, waiting, nil
}

// recordParts records results. It halves batches that are refused until only results remain that are refused alone.
// These are rejected, so that they hold up no others. It returns the results that are left if the store accepts
// nothing, and those that have to wait because of a lock.
func (s *Scheduler) recordParts(
	ctx context.Context, results []schedule.Result, record recordFunc,
) (left, waiting []schedule.Result, err error) {
	parts := [][]schedule.Result{results}
	var rejected []schedule.Result
	for len(parts) > 0 {
		last := len(parts) - 1
		part := parts[last]
		recorded, locked, partErr := s.recordOrOverflow(ctx, part, record)
		if partErr == nil {
			s.schedule.ResultsRecorded(recorded)
			if slices.ContainsFunc(recorded, func(r schedule.Result) bool { return r.Outcome.Kind == post.Gone }) {
				if err := s.deleteGone(ctx); err != nil {
					s.cfg.Log.Debug("webhooks whose receiver is gone are deleted later", "error", err)
				}
			}
			parts, waiting = parts[:last], append(waiting, locked...)
			continue
		}
		err = partErr
		if !refused(err) || s.rejected.count()+len(rejected) >= rejectedLimit {
			// The fault is not in single results.
			for _, part := range parts {
				left = append(left, part...)
			}
			return append(left, rejected...), waiting, err
		}
		if parts = parts[:last]; len(part) <= 1 {
			rejected = append(rejected, part...)
			continue
		}
		half := len(part) / 2
		parts = append(parts, part[half:], part[:half])
	}
	if len(rejected) == 0 {
		return nil, waiting, nil // the cause has gone meanwhile
	}
	s.reject(rejected, err)
	return nil, waiting, err
}

func (s *Scheduler) reject(results []schedule.Result, err error) {
	for i := range results {
		r := &results[i]
		s.cfg.Log.Error("a result cannot be recorded; retrying from time to time",
			"delivery_id", r.Delivery.ID, "webhook_id", r.Delivery.WebhookID, "error", err)
	}
	s.rejected.add(results)
}

// rejected are results that the store refuses one by one. They count as unrecorded.
type rejected struct {
	mu      sync.Mutex
	results []schedule.Result
}

func (r *rejected) add(results []schedule.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, results...)
}

func (r *rejected) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.results)
}

func (r *rejected) take() (results []schedule.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	results, r.results = r.results, nil
	return results
}
