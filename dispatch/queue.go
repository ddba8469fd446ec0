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
	"walhook/sql"
)

// handOverLimit is how many deliveries of one store transaction are kept in memory to be handed over. The rest are loaded from
// the store in their turn.
const handOverLimit = 8192

// Queue matches events to webhooks inside the stream's store transaction, and hands what was queued to this process's own
// senders once it is committed. The stream's writer alone uses it.
type Queue struct {
	scheduler      *Scheduler
	horizon        *cdc.Horizon
	hasAssessments bool

	queued []*delivery
	rest   map[int64]struct{} // webhooks for which more was queued than is in queued
}

// NewQueue returns a Queue. hasAssessments tells whether an assessment table is mapped, so that a webhook for all
// assessments means those that have an external id.
func NewQueue(scheduler *Scheduler, horizon *cdc.Horizon, hasAssessments bool) *Queue {
	return &Queue{scheduler: scheduler, horizon: horizon, hasAssessments: hasAssessments}
}

// Add queues the matching statement for some events on the batch of the store transaction.
func (q *Queue) Add(batch *pgx.Batch, events []cdc.Event) {
	n := len(events)
	var (
		responses     = make([]string, n)
		assessments   = make([]*string, n)
		organizations = make([]*string, n)
		types         = make([]int16, n)
		names         = make([]string, n)
		lsns          = make([]uint64, n)
		ordinals      = make([]int64, n)
		xids          = make([]*int64, n)
		commits       = make([]time.Time, n)
		kinds         = make([]int16, n)
	)
	for i := range events {
		e := &events[i]
		responses[i], organizations[i] = e.ResponseID, e.OrganizationID
		if e.AssessmentID != "" {
			assessments[i] = &e.AssessmentID
		}
		types[i], names[i], lsns[i], ordinals[i], commits[i] = int16(e.Type), e.Type.String(), uint64(e.LSN), e.Ordinal, e.CommitAt
		if xid := q.horizon.Widen(e.XID); xid != 0 {
			xids[i] = &xid
		}
		if e.Recovered {
			kinds[i] = kindRecovered
		}
	}
	signal(q.scheduler.foreseen)
	batch.Queue(sql.Enqueue.SQL, sql.Enqueue.Bind(sql.Args{
		"response_ids": responses, "assessment_ids": assessments, "organization_ids": organizations, "event_types": types, "event_names": names,
		"lsns": lsns, "ordinals": ordinals, "xids": xids, "committed_ats": commits, "kinds": kinds,
		"has_assessments": q.hasAssessments,
	})...).Query(q.collect)
}

// collect reads what the matching statement queued.
func (q *Queue) collect(rows pgx.Rows) error {
	for rows.Next() {
		if len(q.queued) >= handOverLimit {
			var webhookID int64
			if err := rows.Scan(nil, &webhookID, nil, nil, nil, nil, nil, nil, nil, nil, nil); err != nil {
				return fmt.Errorf("read what was queued: %w", err)
			}
			put(&q.rest, webhookID, struct{}{})
			continue
		}
		d := &delivery{}
		var n nullable
		if err := rows.Scan(&d.id, &d.webhookID, &n.lsn, &d.ordinal, &n.event, &d.responseID, &n.xid, &d.committedAt, &d.kind, &d.edition, &n.origin); err != nil {
			return fmt.Errorf("read what was queued: %w", err)
		}
		n.into(d)
		q.queued = append(q.queued, d)
	}
	return rows.Err()
}

// Committed hands over what was queued. Where the context holds the span of the transaction, the attempts link to it.
func (q *Queue) Committed(ctx context.Context) {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		for _, d := range q.queued {
			d.queuedBy = &span
		}
	}
	if len(q.queued) > 0 {
		q.scheduler.handOver(q.queued, q.rest)
	}
	q.queued, q.rest = nil, nil
}

// Discarded forgets what was queued in a transaction that failed, or whose outcome is unknown.
func (q *Queue) Discarded() {
	q.queued, q.rest = nil, nil
	q.scheduler.wake()
}

// Began is called when nobody else queues any more and before the first transaction: the store may have what this process was
// not told of, from another process or a transaction of unknown outcome, and nothing that is queued now may be taken for the next.
func (q *Queue) Began() { q.scheduler.doubt() }

// nullable are columns of a delivery as they are read.
type nullable struct {
	lsn   pgtype.Uint64
	xid   pgtype.Int8
	event int16

	origin string // one string for all that have it
}

func (n *nullable) into(d *delivery) {
	d.lsn, d.xid, d.event = pglogrepl.LSN(n.lsn.Uint64), n.xid.Int64, cdc.EventType(n.event)
	d.origin = unique.Make(n.origin).Value()
}
