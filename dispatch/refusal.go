package dispatch

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"walhook/sql"
)

// destination is where results are recorded.
type destination struct{ ended, retries sql.Query }

var (
	theLog      = destination{sql.RecordEnded, sql.RecordRetries}
	theOverflow = destination{sql.EndedOverflow, sql.RetriesOverflow}
)

const (
	lockNotAvailable = "55P03"

	// overflowFor is for how long results go straight to the overflow after the log has refused some.
	overflowFor = time.Second
	// rejectedLimit is how many results may be rejected. Where the store refuses more, it is not they that are at fault.
	rejectedLimit = 64
	// rejectedRetry is how often those are tried again.
	rejectedRetry = 3 * time.Second
)

// refused reports whether the store refuses what it was sent, so that something else may be taken: an error of the data, of a right, of a
// trigger or of a lock, and none of the connection or of the server.
func refused(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code[:2] {
	case "22", "23", "38", "39", "42", "44", "P0":
		return e.Code != "42P05" // a prepared statement of a pooler's
	}
	return e.Code == lockNotAvailable
}

// recordFunc records results at a destination. It returns those that wait for somebody's lock.
type recordFunc func(ctx context.Context, to destination, results []result) (recorded, waiting []result, err error)

// recordAnywhere records results in the log, or in its overflow while the log refuses some.
func (s *Scheduler) recordAnywhere(ctx context.Context, results []result, record recordFunc) (recorded, waiting []result, err error) {
	var refusal error
	if at := s.refusedAt.Load(); at == nil || time.Since(*at) > overflowFor {
		if recorded, waiting, refusal = record(ctx, theLog, results); refusal == nil || !refused(refusal) {
			return recorded, waiting, refusal
		}
	}
	if recorded, waiting, err = record(ctx, theOverflow, results); err != nil {
		return nil, nil, err
	}
	if refusal != nil {
		now := time.Now()
		if s.refusedAt.Swap(&now) == nil {
			s.cfg.Log.Warn("the log takes no results; they go to its overflow", "error", refusal)
		}
		s.health.note(Logging, refusal)
		signal(s.upkeepWanted)
	}
	return recorded, waiting, nil
}

// recordParts records results, and splits those that are refused until each that is refused by itself stands alone: it is rejected, and
// stops no other. It returns what is left where the store takes nothing, and what waits for somebody's lock.
func (s *Scheduler) recordParts(ctx context.Context, results []result, record recordFunc) (left, waiting []result, err error) {
	parts := [][]result{results}
	var rejected []result
	for len(parts) > 0 {
		last := len(parts) - 1
		part := parts[last]
		recorded, locked, partErr := s.recordAnywhere(ctx, part, record)
		if partErr == nil {
			s.finish(recorded)
			parts, waiting = parts[:last], append(waiting, locked...)
			continue
		}
		err = partErr
		if !refused(err) || s.rejectedCount()+len(rejected) >= rejectedLimit {
			// It is not the fault of those alone that stand alone.
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
		return nil, waiting, nil // the cause went while parts were tried
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
		s.cfg.Log.Error("a result cannot be recorded; trying again now and then", "delivery_id", r.d.id, "webhook_id", r.d.webhookID, "error", err)
	}
	s.rejected = append(s.rejected, results...)
}

func (s *Scheduler) takeRejected() (results []result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	results, s.rejected = s.rejected, nil
	return results
}
