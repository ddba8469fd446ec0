package dispatch

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/dispatch/schedule"
	"walhook/sql"
)

// load asks the store for deliveries of several endpoints, in one round trip.
func (s *Scheduler) load(ctx context.Context, loads []*schedule.Load) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	asked := make(sql.Rows[sql.LoadRequest], len(loads))
	endpoints := make([]int64, len(loads))
	for i, l := range loads {
		asked[i] = sql.LoadRequest(l.Asked)
		endpoints[i] = l.EndpointID
	}
	batch := &pgx.Batch{}
	batch.Queue(sql.FetchTests.SQL, asked).Query(collectDeliveries(loads, func(l *schedule.Load, d *schedule.Delivery) {
		l.Tests = append(l.Tests, d)
	}))
	batch.Queue(sql.FetchDue.SQL, asked).Query(collectDeliveries(loads, func(l *schedule.Load, d *schedule.Delivery) {
		l.Due = append(l.Due, d)
	}))
	var f schedule.FreshDelivery
	batch.Queue(sql.FetchFresh.SQL, asked).Query(collectDeliveries(loads, func(l *schedule.Load, d *schedule.Delivery) {
		f.Delivery = d
		l.Fresh = append(l.Fresh, f)
	}, &f.KeepsOrder, &f.Others))
	args := sql.WaitingSummary.Bind(sql.Args{"requests": asked, "endpoint_ids": endpoints})
	batch.Queue(sql.WaitingSummary.SQL, args...).Query(func(rows pgx.Rows) error {
		var (
			n       int
			waiting int
			dueIn   *time.Duration
			stale   bool
		)
		_, err := pgx.ForEachRow(rows, []any{&n, &waiting, &dueIn, &stale}, func() error {
			l := loads[n-1]
			l.Retrying, l.Stale = waiting, stale
			if dueIn != nil {
				// The store's clock decides what is due. This process's clock only measures the wait.
				l.DueAt = time.Now().Add(*dueIn)
			}
			return nil
		})
		return err
	})
	if err := s.pool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("load pending deliveries: %w", err)
	}
	return nil
}

// collectDeliveries reads deliveries of several loads, each row with the number of its load and the extra columns.
func collectDeliveries(loads []*schedule.Load, to func(*schedule.Load, *schedule.Delivery), extra ...any) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		var n int
		for rows.Next() {
			d, err := scanDelivery(rows, append([]any{&n}, extra...)...)
			if err != nil {
				return err
			}
			to(loads[n-1], d)
		}
		return rows.Err()
	}
}

// successor asks the store for the first pending delivery about a response at an endpoint, nil if there is none, and
// whether it is due. stale is as in Load.
func (s *Scheduler) successor(
	ctx context.Context, endpointID int64, responseID string, ordered []int64,
) (next *schedule.Delivery, due, stale bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	rows, err := s.pool.Query(ctx, sql.FetchSuccessor.SQL, sql.FetchSuccessor.Bind(sql.Args{
		"endpoint_id": endpointID, "response_id": responseID, "ordered_ids": ordered,
	})...)
	if err != nil {
		return nil, false, false, fmt.Errorf("look up the next delivery about a response: %w", err)
	}
	defer rows.Close()
	if !rows.Next() {
		return nil, false, false, rows.Err()
	}
	next, err = scanDelivery(rows, &due, &stale)
	return next, due, stale, err
}

// scanDelivery reads the columns that all the Fetch queries begin with, and the columns after them into extra.
func scanDelivery(rows pgx.Rows, extra ...any) (*schedule.Delivery, error) {
	d := &schedule.Delivery{}
	var n nullableColumns
	to := append([]any{
		&d.ID, &d.WebhookID, &n.lsn, &d.Ordinal, &n.xid, &d.CommittedAt, &d.Attempts, &n.event, &d.Kind, &d.ResponseID,
		&n.version, &n.messageID, &n.origin,
	}, extra...)
	if err := rows.Scan(to...); err != nil {
		return nil, fmt.Errorf("read a pending delivery: %w", err)
	}
	n.into(d)
	return d, nil
}
