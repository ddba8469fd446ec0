package dispatch

import (
	"context"
	"time"

	"github.com/jackc/pgerrcode"

	"walhook/cdc"
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
type recordFunc func(ctx context.Context, to destination, results []result) (recorded, waiting []result, err error)

// recordOrOverflow records results in the log, or in its overflow while the log refuses some.
func (s *Scheduler) recordOrOverflow(
	ctx context.Context, results []result, record recordFunc,
) (recorded, waiting []result, err error) {
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
		s.upkeepWanted.signal()
	}
	return recorded, waiting, nil
}

// recordParts records results. It halves batches that are refused until only results remain that are refused alone.
// These are rejected, so that they hold up no others. It returns the results that are left if the store accepts
// nothing, and those that have to wait because of a lock.
func (s *Scheduler) recordParts(
	ctx context.Context, results []result, record recordFunc,
) (left, waiting []result, err error) {
	parts := [][]result{results}
	var rejected []result
	for len(parts) > 0 {
		last := len(parts) - 1
		part := parts[last]
		recorded, locked, partErr := s.recordOrOverflow(ctx, part, record)
		if partErr == nil {
			s.resultsRecorded(recorded)
			parts, waiting = parts[:last], append(waiting, locked...)
			continue
		}
		err = partErr
		if !refused(err) || s.rejectedCount()+len(rejected) >= rejectedLimit {
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

func (s *Scheduler) rejectedCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.rejected)
}

func (s *Scheduler) reject(results []result, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range results {
		r := &results[i]
		s.cfg.Log.Error("a result cannot be recorded; trying again now and then",
			"delivery_id", r.d.id, "webhook_id", r.d.webhookID, "error", err)
	}
	s.rejected = append(s.rejected, results...)
}

func (s *Scheduler) takeRejected() (results []result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	results, s.rejected = s.rejected, nil
	return results
}
