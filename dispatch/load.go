package dispatch

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/sql"
)

// loaded is what one look into the store brought for an endpoint.
type loaded struct {
	tests, due, fresh []*delivery
	behind            []int64 // for each of fresh the earlier delivery that it waits for; 0: none
	room              int     // how many fresh ones were asked for
	waiting           int
	dueAt             time.Time
}

// loadArgs is what is asked for, taken under the mutex.
type loadArgs struct {
	enabled, ordered, all, held []int64
	cursor                      int64
	room, roomDue               int
}

// load looks into the store for deliveries of one endpoint, in one round trip.
func (s *Scheduler) load(ctx context.Context, a loadArgs) (*loaded, error) {
	result := &loaded{room: a.room}
	batch := &pgx.Batch{}
	batch.Queue(sql.FetchTests.SQL, sql.FetchTests.Bind(sql.Args{"webhook_ids": a.all, "held": a.held, "max": a.roomDue})...).
		Query(collectInto(&result.tests))
	batch.Queue(sql.FetchDue.SQL, sql.FetchDue.Bind(sql.Args{"webhook_ids": a.enabled, "ordered_ids": a.ordered, "held": a.held, "max": a.roomDue})...).
		Query(collectInto(&result.due))
	batch.Queue(sql.FetchFresh.SQL, sql.FetchFresh.Bind(sql.Args{
		"webhook_ids": a.enabled, "ordered_ids": a.ordered, "after": a.cursor, "max": a.room,
	})...).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var behind int64
			d, err := scanDelivery(rows, &behind)
			if err != nil {
				return err
			}
			result.fresh = append(result.fresh, d)
			result.behind = append(result.behind, behind)
		}
		return rows.Err()
	})
	batch.Queue(sql.WaitingSummary.SQL, sql.WaitingSummary.Bind(sql.Args{"webhook_ids": a.enabled, "all_ids": a.all, "held": a.held})...).
		QueryRow(func(row pgx.Row) error {
			var due *time.Time
			var now time.Time
			if err := row.Scan(&result.waiting, &due, &now); err != nil {
				return err
			}
			if due != nil {
				// The store's clock decides what is due; ours only how long to wait.
				result.dueAt = time.Now().Add(due.Sub(now))
			}
			return nil
		})
	if err := s.pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("load pending deliveries: %w", err)
	}
	return result, nil
}

// successor looks up the first pending delivery about a response.
func (s *Scheduler) successor(ctx context.Context, responseID string, ordered []int64) (*delivery, error) {
	rows, err := s.pool.Query(ctx, sql.FetchSuccessor.SQL, sql.FetchSuccessor.Bind(sql.Args{
		"response_id": responseID, "ordered_ids": ordered,
	})...)
	if err != nil {
		return nil, fmt.Errorf("look up the next delivery about a response: %w", err)
	}
	defer rows.Close()
	if !rows.Next() {
		return nil, rows.Err()
	}
	var due bool
	next, err := scanDelivery(rows, &due)
	if err != nil || !due {
		return nil, err
	}
	return next, nil
}

func collectInto(to *[]*delivery) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		for rows.Next() {
			d, err := scanDelivery(rows)
			if err != nil {
				return err
			}
			*to = append(*to, d)
		}
		return rows.Err()
	}
}

// scanDelivery reads the columns that all the Fetch queries begin with, and what follows them into extra.
func scanDelivery(rows pgx.Rows, extra ...any) (*delivery, error) {
	d := &delivery{}
	var n nullable
	to := append([]any{&d.id, &d.webhookID, &n.lsn, &d.ordinal, &n.xid, &d.committedAt, &d.attempts, &n.event, &d.kind, &d.responseID, &d.edition, &n.origin}, extra...)
	if err := rows.Scan(to...); err != nil {
		return nil, fmt.Errorf("read a pending delivery: %w", err)
	}
	n.into(d)
	return d, nil
}
