package dispatch

import (
	"context"
	"fmt"
	"unique"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"go.opentelemetry.io/otel/trace"

	"walhook/cdc"
	"walhook/cdc/stream"
	"walhook/sql"
)

// handOverLimit is how many deliveries of one store transaction are kept in memory to be handed over. The rest are loaded from
// the store in their turn.
const handOverLimit = 8192

// Queue matches events to webhooks inside the stream's store transaction, and hands what was queued to this process's own
// senders once it is committed. The stream's writer alone uses it.
type Queue struct {
	scheduler      *Scheduler
	horizon        *stream.Horizon
	hasAssessments bool

	queued []*delivery
	rest   map[int64]struct{} // webhooks for which more was queued than is in queued
	urls   map[int64]int64    // endpoints for which something was queued, with the edition of their webhooks then
}

// NewQueue returns a Queue. hasAssessments tells whether an assessment table is mapped, so that a webhook for all
// assessments means those that have an external id.
func NewQueue(scheduler *Scheduler, horizon *stream.Horizon, hasAssessments bool) *Queue {
	return &Queue{scheduler: scheduler, horizon: horizon, hasAssessments: hasAssessments}
}

// eventNames are the public names of the event types by their numbers.
var eventNames = []string{cdc.Created.String(), cdc.Started.String(), cdc.Completed.String(), cdc.Changed.String()}

// Add queues the matching statement for some events on the batch of the store transaction.
func (q *Queue) Add(batch *pgx.Batch, events []cdc.Event) {
	added := &added{events: events, rows: sql.NewRows()}
	for i := range events {
		e := &events[i]
		r := added.rows
		r.Row()
		r.Text(e.ResponseID)
		r.NullableText(e.AssessmentID)
		r.NullableText(e.OrganizationID)
		r.Int2(int16(e.Type))
		r.LSNOrNull(uint64(e.LSN))
		r.Int8(e.Ordinal)
		r.Int8OrNull(q.horizon.Widen(e.XID))
		r.TimeOrNull(e.CommitAt)
		r.Int2(kindOf(e))
		r.NullableText(e.FirstID)
	}
	signal(q.scheduler.foreseen)
	batch.Queue(sql.ReadOrigin.SQL).QueryRow(func(row pgx.Row) error {
		var origin string
		if err := row.Scan(&origin); err != nil {
			return fmt.Errorf("read the origin of deliveries: %w", err)
		}
		added.origin = unique.Make(origin).Value()
		return nil
	})
	batch.Queue(sql.Enqueue.SQL, sql.Enqueue.Bind(sql.Args{
		"events": added.rows, "event_names": eventNames, "has_assessments": q.hasAssessments,
	})...).Query(func(rows pgx.Rows) error { return q.collect(rows, added) })
}

// added are the events of one call of Add.
type added struct {
	events []cdc.Event
	rows   *sql.Rows
	origin string // what their webhook-ids are made from
}

// collect reads what the matching statement queued, which is in the order of the events.
func (q *Queue) collect(rows pgx.Rows, from *added) error {
	from.rows.Release()
	next := 0 // no event before it is looked for any more
	for rows.Next() {
		var (
			id, webhookID, ordinal, endpointID, edition pgtype.Int8
			lsn                                         pgtype.Uint64
			event                                       pgtype.Int2
			due                                         pgtype.Bool
		)
		if err := rows.Scan(&id, &webhookID, &lsn, &ordinal, &event, &due, &endpointID, &edition); err != nil {
			return fmt.Errorf("read what was queued: %w", err)
		}
		if endpointID.Valid {
			put(&q.urls, endpointID.Int64, edition.Int64)
			continue
		}
		if due.Bool || len(q.queued) >= handOverLimit { // what is due may stand behind something
			put(&q.rest, webhookID.Int64, struct{}{})
			continue
		}
		for next < len(from.events) && !is(&from.events[next], lsn.Uint64, ordinal.Int64, event.Int16) {
			next++
		}
		if next == len(from.events) {
			return fmt.Errorf("delivery %d was queued for event %d of change %d in the transaction at %s, which was not given",
				id.Int64, event.Int16, ordinal.Int64, pglogrepl.LSN(lsn.Uint64))
		}
		e := &from.events[next]
		d := &delivery{
			id: id.Int64, webhookID: webhookID.Int64, origin: from.origin, responseID: e.ResponseID,
			lsn: e.LSN, ordinal: e.Ordinal, xid: q.horizon.Widen(e.XID), committedAt: e.CommitAt, event: e.Type, kind: kindOf(e),
		}
		q.queued = append(q.queued, d)
	}
	return rows.Err()
}

// kindOf returns the kind of the deliveries of an event.
func kindOf(e *cdc.Event) int16 {
	if e.Recovered {
		return kindRecovered
	}
	return kindStream
}

// is tells whether this is the event that the store has under these columns.
func is(e *cdc.Event, lsn uint64, ordinal int64, event int16) bool {
	return e.Ordinal == ordinal && uint64(e.LSN) == lsn && int16(e.Type) == event
}

// Committed hands over what was queued. Where the context holds the span of the transaction, the attempts link to it.
func (q *Queue) Committed(ctx context.Context) {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		for _, d := range q.queued {
			d.queuedBy = &span
		}
	}
	if len(q.queued) > 0 {
		q.scheduler.handOver(q.queued, q.rest, q.urls)
	}
	q.queued, q.rest, q.urls = nil, nil, nil
}

// Discarded forgets what was queued in a transaction that failed, or whose outcome is unknown.
func (q *Queue) Discarded() {
	q.queued, q.rest, q.urls = nil, nil, nil
	q.scheduler.wake()
}

// Keyed is told whether the key is a JSON number from here on.
func (q *Queue) Keyed(numeric bool) { q.scheduler.numericID.Store(numeric) }

// Began is called when nobody else queues any more and before the first transaction: the store may have what this process was
// not told of, from another process or a transaction of unknown outcome, and nothing that is queued now may be taken for the next.
func (q *Queue) Began() { q.scheduler.doubt() }

// nullable are columns of a delivery as they are read.
type nullable struct {
	lsn     pgtype.Uint64
	xid     pgtype.Int8
	edition pgtype.Int8
	event   int16

	origin string // one string for all that have it
}

func (n *nullable) into(d *delivery) {
	d.lsn, d.xid, d.edition, d.event = pglogrepl.LSN(n.lsn.Uint64), n.xid.Int64, n.edition.Int64, cdc.EventType(n.event)
	d.origin = unique.Make(n.origin).Value()
}
