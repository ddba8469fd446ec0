package dispatch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/sql"
)

// look is a look into the store for one endpoint: what is asked for, and what came of it.
type look struct {
	endpoint   *endpoint
	generation int // of its memory when it was asked
	asked      sql.Look

	tests, due []*delivery
	fresh      []fresh
	waiting    int
	dueAt      time.Time
	stale      bool // what was found may stand behind a delivery of a webhook that has come to the URL meanwhile
}

// found returns all deliveries that were found.
func (l *look) found(yield func(*delivery) bool) {
	for _, list := range [][]*delivery{l.tests, l.due} {
		for _, d := range list {
			if !yield(d) {
				return
			}
		}
	}
	for _, f := range l.fresh {
		if !yield(f.delivery) {
			return
		}
	}
}

// fresh is a delivery that was never tried.
type fresh struct {
	*delivery
	keeps bool // the order

	// others is told at the first one about a response: what else is pending about it, and is not fresh in the same look.
	others []int64
}

// look begins a look into the store.
func (e *endpoint) look() *look {
	l := &look{endpoint: e, generation: e.generation, asked: sql.Look{
		Ordered: e.ordered(), Held: slices.Collect(maps.Keys(e.held)), After: e.cursor, Room: e.room(), RoomDue: e.roomDue(),
	}}
	asked := &l.asked
	for _, h := range e.hooks {
		if e.waits(h) {
			// Behind what waits until a webhook has come here, or is free, others wait as well.
			asked.Moving = append(asked.Moving, h.id)
			continue
		}
		asked.Tests = append(asked.Tests, h.id)
		if h.enabled {
			asked.Enabled, asked.Keeps = append(asked.Enabled, h.id), append(asked.Keeps, h.ordered)
		}
	}
	e.missed = false
	return l
}

const (
	// lookRoom is how many never-tried deliveries one look into the store asks for, about all of its endpoints.
	lookRoom = window
	// lookAt is how many endpoints it asks about at most.
	lookAt = 128
)

// load looks into the store for deliveries of some endpoints, in one round trip.
func (s *Scheduler) load(ctx context.Context, looks []*look) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	asked := sql.NewRows()
	defer asked.Release()
	endpoints := make([]int64, len(looks))
	for i, l := range looks {
		asked.Look(&l.asked)
		endpoints[i] = l.endpoint.id
	}
	batch := &pgx.Batch{}
	batch.Queue(sql.FetchTests.SQL, asked).Query(collect(looks, func(l *look, d *delivery) { l.tests = append(l.tests, d) }))
	batch.Queue(sql.FetchDue.SQL, asked).Query(collect(looks, func(l *look, d *delivery) { l.due = append(l.due, d) }))
	var f fresh
	batch.Queue(sql.FetchFresh.SQL, asked).Query(collect(looks, func(l *look, d *delivery) {
		f.delivery = d
		l.fresh = append(l.fresh, f)
	}, &f.keeps, &f.others))
	batch.Queue(sql.WaitingSummary.SQL, sql.WaitingSummary.Bind(sql.Args{"looks": asked, "endpoint_ids": endpoints})...).Query(func(rows pgx.Rows) error {
		var (
			n       int
			waiting int
			dueIn   *time.Duration
			stale   bool
		)
		_, err := pgx.ForEachRow(rows, []any{&n, &waiting, &dueIn, &stale}, func() error {
			l := looks[n-1]
			l.waiting, l.stale = waiting, stale
			if dueIn != nil {
				// The store's clock decides what is due; ours only how long to wait.
				l.dueAt = time.Now().Add(*dueIn)
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

// collect reads deliveries of several endpoints, each with the number of its look and what extra holds of it.
func collect(looks []*look, to func(*look, *delivery), extra ...any) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		var n int
		for rows.Next() {
			d, err := scanDelivery(rows, append([]any{&n}, extra...)...)
			if err != nil {
				return err
			}
			to(looks[n-1], d)
		}
		return rows.Err()
	}
}

// successor looks up the first pending delivery about a response at an endpoint, nil where there is none, and reports whether it is due. stale
// is as of a look.
func (s *Scheduler) successor(ctx context.Context, endpointID int64, responseID string, ordered []int64) (next *delivery, due, stale bool, err error) {
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

// scanDelivery reads the columns that all the Fetch queries begin with, and what follows them into extra.
func scanDelivery(rows pgx.Rows, extra ...any) (*delivery, error) {
	d := &delivery{}
	var n nullable
	to := append([]any{&d.id, &d.webhookID, &n.lsn, &d.ordinal, &n.xid, &d.committedAt, &d.attempts, &n.event, &d.kind, &d.responseID, &n.edition, &n.origin}, extra...)
	if err := rows.Scan(to...); err != nil {
		return nil, fmt.Errorf("read a pending delivery: %w", err)
	}
	n.into(d)
	return d, nil
}
