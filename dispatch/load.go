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

// endpointLoad is a load of pending deliveries for one endpoint: what it asks for, and what it has found.
type endpointLoad struct {
	endpoint *endpoint
	asked    sql.Look
	recorded map[int64]bool // deliveries whose results were recorded meanwhile: whether they have ended

	tests, due []*delivery
	fresh      []freshDelivery
	retrying   int
	dueAt      time.Time
	stale      bool // the store has webhooks of the URL that were not asked for, and whose deliveries may come first
}

// deliveries yields all deliveries that were found.
func (l *endpointLoad) deliveries(yield func(*delivery) bool) {
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

// freshDelivery is a delivery that was never tried.
type freshDelivery struct {
	*delivery
	keepsOrder bool

	// others is set with the first delivery about a response: the ids of other pending deliveries about it that are not
	// among those that this load has found.
	others []int64
}

// newLoad returns a load that asks for what the endpoint has room for.
func (e *endpoint) newLoad() *endpointLoad {
	l := &endpointLoad{endpoint: e, asked: sql.Look{
		Ordered: e.ordered(), Held: slices.Collect(maps.Keys(e.held)), After: e.cursor,
		Room: int32(e.room()), RoomDue: int32(e.roomDue()),
	}}
	asked := &l.asked
	for _, h := range e.hooks {
		if e.blocked(h) {
			// Its deliveries are not sent, but others wait behind them.
			asked.Moving = append(asked.Moving, h.id)
			continue
		}
		asked.Tests = append(asked.Tests, h.id)
		if h.enabled {
			asked.Enabled, asked.Keeps = append(asked.Enabled, h.id), append(asked.Keeps, h.ordered)
		}
	}
	return l
}

const (
	// maxLoadRoom is how many never-tried deliveries one round trip asks for, for all of its endpoints together.
	maxLoadRoom = maxWindow
	// maxLoadEndpoints is how many endpoints one round trip asks for.
	maxLoadEndpoints = 128
)

// load asks the store for deliveries of several endpoints, in one round trip.
func (s *Scheduler) load(ctx context.Context, loads []*endpointLoad) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	asked := make(sql.Rows[sql.Look], len(loads))
	endpoints := make([]int64, len(loads))
	for i, l := range loads {
		asked[i] = l.asked
		endpoints[i] = l.endpoint.id
	}
	batch := &pgx.Batch{}
	batch.Queue(sql.FetchTests.SQL, asked).Query(collectDeliveries(loads, func(l *endpointLoad, d *delivery) {
		l.tests = append(l.tests, d)
	}))
	batch.Queue(sql.FetchDue.SQL, asked).Query(collectDeliveries(loads, func(l *endpointLoad, d *delivery) {
		l.due = append(l.due, d)
	}))
	var f freshDelivery
	batch.Queue(sql.FetchFresh.SQL, asked).Query(collectDeliveries(loads, func(l *endpointLoad, d *delivery) {
		f.delivery = d
		l.fresh = append(l.fresh, f)
	}, &f.keepsOrder, &f.others))
	args := sql.WaitingSummary.Bind(sql.Args{"looks": asked, "endpoint_ids": endpoints})
	batch.Queue(sql.WaitingSummary.SQL, args...).Query(func(rows pgx.Rows) error {
		var (
			n       int
			waiting int
			dueIn   *time.Duration
			stale   bool
		)
		_, err := pgx.ForEachRow(rows, []any{&n, &waiting, &dueIn, &stale}, func() error {
			l := loads[n-1]
			l.retrying, l.stale = waiting, stale
			if dueIn != nil {
				// The store's clock decides what is due. This process's clock only measures the wait.
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

// collectDeliveries reads deliveries of several loads, each row with the number of its load and the extra columns.
func collectDeliveries(loads []*endpointLoad, to func(*endpointLoad, *delivery), extra ...any) func(pgx.Rows) error {
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
// whether it is due. stale is as in endpointLoad.
func (s *Scheduler) successor(
	ctx context.Context, endpointID int64, responseID string, ordered []int64,
) (next *delivery, due, stale bool, err error) {
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
func scanDelivery(rows pgx.Rows, extra ...any) (*delivery, error) {
	d := &delivery{}
	var n nullableColumns
	to := append([]any{
		&d.id, &d.webhookID, &n.lsn, &d.ordinal, &n.xid, &d.committedAt, &d.attempts, &n.event, &d.kind, &d.responseID,
		&n.version, &n.origin,
	}, extra...)
	if err := rows.Scan(to...); err != nil {
		return nil, fmt.Errorf("read a pending delivery: %w", err)
	}
	n.into(d)
	return d, nil
}
