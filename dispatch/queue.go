package dispatch

import (
	"context"
	"fmt"
	"time"
	"unique"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"go.opentelemetry.io/otel/trace"

	"walhook/cdc"
	"walhook/cdc/stream"
	"walhook/dispatch/schedule"
	"walhook/sql"
)

// handOverLimit is how many deliveries of one store transaction are kept in memory to be handed over. The others are
// loaded from the store.
const handOverLimit = 8192

// Queue matches events to webhooks inside the stream's store transaction. Once that is committed, it hands the
// deliveries to this process's own schedule. Only the stream's writer uses it.
type Queue struct {
	scheduler      *Scheduler
	horizon        *stream.Horizon
	hasAssessments bool

	queued   []*schedule.Delivery
	notHeld  map[int64]struct{} // webhooks with deliveries that are not in queued
	versions map[int64]int64    // of the webhooks of each endpoint for which something was queued
}

// NewQueue returns a Queue. hasAssessments reports whether an assessment table is mapped. If so, a webhook for all
// assessments matches only assessments that have an external id.
func NewQueue(scheduler *Scheduler, horizon *stream.Horizon, hasAssessments bool) *Queue {
	q := &Queue{scheduler: scheduler, horizon: horizon, hasAssessments: hasAssessments}
	q.reset()
	return q
}

// eventRow is an event as walhook.event_in has it.
type eventRow struct {
	ResponseID     string        `sql:"response_id"`
	FirstID        *string       `sql:"first_id"`
	AssessmentID   *string       `sql:"assessment_id"`
	OrganizationID *string       `sql:"organization_id"`
	EventType      cdc.EventType `sql:"event_type"`
	LSN            pglogrepl.LSN `sql:"lsn,null"`
	Ordinal        int64         `sql:"ordinal"`
	XID            int64         `sql:"xid,null"`
	CommittedAt    time.Time     `sql:"committed_at,null"`
	Kind           int16         `sql:"kind"`
}

// Add adds the statement that matches events, and queues their deliveries, to the batch of the store transaction.
func (q *Queue) Add(batch *pgx.Batch, events []cdc.Event) {
	added := &addedEvents{events: events}
	rows := make(sql.Rows[eventRow], len(events))
	for i := range events {
		e := &events[i]
		rows[i] = eventRow{
			ResponseID: e.ResponseID, FirstID: e.FirstID, AssessmentID: e.AssessmentID, OrganizationID: e.OrganizationID,
			EventType: e.Type, LSN: e.LSN, Ordinal: e.Ordinal, XID: q.horizon.Widen(e.XID), CommittedAt: e.CommitAt,
			Kind: kindOf(e),
		}
	}
	q.scheduler.horizonPrefetch.Signal()
	batch.Queue(sql.ReadOrigin.SQL).QueryRow(func(row pgx.Row) error {
		var origin string
		if err := row.Scan(&origin); err != nil {
			return fmt.Errorf("read the origin of deliveries: %w", err)
		}
		added.origin = unique.Make(origin).Value()
		return nil
	})
	groups, groupOf := groupMatching(rows)
	batch.Queue(sql.Enqueue.SQL, sql.Enqueue.Bind(sql.Args{
		"events": rows, "groups": groups, "group_of": groupOf, "has_assessments": q.hasAssessments,
	})...).Query(func(rows pgx.Rows) error { return q.collect(rows, added) })
}

// groupMatching groups events that the same webhooks match. It returns an event of each group, and the number of each
// event's group, from 1.
func groupMatching(rows sql.Rows[eventRow]) (groups sql.Rows[eventRow], groupOf []int32) {
	type key struct {
		event                    cdc.EventType
		assessment, organization pgtype.Text
	}
	textOf := func(s *string) pgtype.Text {
		if s == nil {
			return pgtype.Text{}
		}
		return pgtype.Text{String: *s, Valid: true}
	}
	numbers, groupOf := map[key]int32{}, make([]int32, len(rows))
	for i := range rows {
		k := key{rows[i].EventType, textOf(rows[i].AssessmentID), textOf(rows[i].OrganizationID)}
		if numbers[k] == 0 {
			groups = append(groups, rows[i])
			numbers[k] = int32(len(groups))
		}
		groupOf[i] = numbers[k]
	}
	return groups, groupOf
}

// addedEvents are the events of one call of Add.
type addedEvents struct {
	events []cdc.Event
	origin string // the part of their webhook-ids that names the store
}

// collect reads the deliveries that were queued, which come in the order of the events.
func (q *Queue) collect(rows pgx.Rows, from *addedEvents) error {
	next := 0 // the first event that may match
	for rows.Next() {
		var (
			id, webhookID, ordinal, endpointID, version pgtype.Int8
			lsn                                         pgtype.Uint64
			event                                       pgtype.Int2
			due                                         pgtype.Bool
		)
		if err := rows.Scan(&id, &webhookID, &lsn, &ordinal, &event, &due, &endpointID, &version); err != nil {
			return fmt.Errorf("read what was queued: %w", err)
		}
		if endpointID.Valid {
			q.versions[endpointID.Int64] = version.Int64
			continue
		}
		if due.Bool || len(q.queued) >= handOverLimit { // a due delivery may have to wait for others
			q.notHeld[webhookID.Int64] = struct{}{}
			continue
		}
		for next < len(from.events) && !isEvent(&from.events[next], lsn.Uint64, ordinal.Int64, event.Int16) {
			next++
		}
		if next == len(from.events) {
			return fmt.Errorf("delivery %d was queued for event %d of change %d in the transaction at %s, which was not given",
				id.Int64, event.Int16, ordinal.Int64, pglogrepl.LSN(lsn.Uint64))
		}
		e := &from.events[next]
		d := &schedule.Delivery{
			ID: id.Int64, WebhookID: webhookID.Int64, Origin: from.origin, ResponseID: e.ResponseID,
			LSN: e.LSN, Ordinal: e.Ordinal, XID: q.horizon.Widen(e.XID), CommittedAt: e.CommitAt, Event: e.Type, Kind: kindOf(e),
		}
		q.queued = append(q.queued, d)
	}
	return rows.Err()
}

func kindOf(e *cdc.Event) int16 {
	if e.Recovered {
		return schedule.KindRecovered
	}
	return schedule.KindStream
}

// isEvent reports whether the store has this event under these columns.
func isEvent(e *cdc.Event, lsn uint64, ordinal int64, event int16) bool {
	return e.Ordinal == ordinal && uint64(e.LSN) == lsn && int16(e.Type) == event
}

// Committed hands over what was queued. If the context holds the span of the transaction, the attempts link to it.
func (q *Queue) Committed(ctx context.Context) {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		for _, d := range q.queued {
			d.QueuedBy = &span
		}
	}
	if len(q.versions) > 0 {
		q.scheduler.schedule.HandOver(q.queued, q.notHeld, q.versions)
	}
	q.reset()
}

// reset begins to gather what the next transaction queues.
func (q *Queue) reset() {
	q.queued, q.notHeld, q.versions = nil, map[int64]struct{}{}, map[int64]int64{}
}

// Discarded drops what was queued in a transaction that failed, or whose outcome is unknown.
func (q *Queue) Discarded() {
	q.reset()
	q.scheduler.schedule.RequestRefresh()
}

// Keyed is called with whether the key is a JSON number from here on.
func (q *Queue) Keyed(numeric bool) { q.scheduler.numericID.Store(numeric) }

// Began is called before the first transaction, once no other process queues any more. The store may have deliveries of
// another process, or of a transaction of unknown outcome, that come before those that are queued from now on.
func (q *Queue) Began() { q.scheduler.schedule.QueueLoadAll() }

// nullableColumns are columns of a delivery that may be NULL, or need a conversion.
type nullableColumns struct {
	lsn       pgtype.Uint64
	xid       pgtype.Int8
	version   pgtype.Int8
	messageID pgtype.Text
	event     int16

	origin string
}

func (n *nullableColumns) into(d *schedule.Delivery) {
	d.LSN, d.XID, d.Version, d.Event = pglogrepl.LSN(n.lsn.Uint64), n.xid.Int64, n.version.Int64, cdc.EventType(n.event)
	if d.OriginIsID = n.messageID.Valid; d.OriginIsID {
		d.Origin = n.messageID.String
		return
	}
	d.Origin = unique.Make(n.origin).Value() // shared by all deliveries of that origin
}
