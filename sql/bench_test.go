package sql

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"walhook/testenv"
)

// bulk is how many rows the statements of these benchmarks take at a time: as many as they meet under load.
const bulk = 1000

// store is an installed store with one webhook, and a session that prepares statements as the daemon's do.
func store(t testing.TB) *pgx.Conn {
	t.Helper()
	conn := testenv.Connect(t, installed(t))
	if err := RegisterTypes(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "insert into walhook.webhook (assessment_id, event_type, url) values ('1', 'response.created', 'https://example.com/')"); err != nil {
		t.Fatal(err)
	}
	return conn
}

// enqueue queues the next deliveries and returns their ids.
func enqueue(ctx context.Context, conn *pgx.Conn, from int) ([]int64, error) {
	rows, err := conn.Query(ctx, Enqueue.SQL, enqueueArgs(from, nil)...)
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (id pgtype.Int8, err error) {
		return id, row.Scan(&id, nil, nil, nil, nil, nil, nil, nil)
	})
	queued := make([]int64, 0, bulk)
	for _, id := range ids {
		if id.Valid { // and no URL
			queued = append(queued, id.Int64)
		}
	}
	return queued, err
}

// eventIn is an event as the daemon sends it.
type eventIn struct {
	ResponseID     string    `sql:"response_id"`
	AssessmentID   *string   `sql:"assessment_id"`
	OrganizationID *string   `sql:"organization_id"`
	EventType      int16     `sql:"event_type"`
	LSN            uint64    `sql:"lsn,null"`
	Ordinal        int64     `sql:"ordinal"`
	XID            int64     `sql:"xid,null"`
	CommittedAt    time.Time `sql:"committed_at,null"`
	Kind           int16     `sql:"kind"`
	FirstID        *string   `sql:"first_id"`
}

// enqueueArgs are events of as many responses, from a number on.
func enqueueArgs(from int, firstID *string) []any {
	events, assessment := make(Rows[eventIn], bulk), "1"
	for i := range events {
		events[i] = eventIn{
			ResponseID: strconv.Itoa(from + i), AssessmentID: &assessment, EventType: 1, LSN: 1<<32 + 0x2345678,
			Ordinal: int64(i), XID: 1000, CommittedAt: time.Now(), FirstID: firstID,
		}
	}
	return Enqueue.Bind(Args{"events": events, "groups": events[:1], "group_of": slices.Repeat([]int32{1}, bulk), "has_assessments": false})
}

// rate reports rows a second, which is what the others are compared by.
func rate(b *testing.B) { b.ReportMetric(float64(b.N)*bulk/b.Elapsed().Seconds(), "rows/s") }

func BenchmarkEnqueue(b *testing.B) {
	conn := store(b)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		ids, err := enqueue(b.Context(), conn, n)
		if err != nil || len(ids) != bulk {
			b.Fatalf("%d were queued: %v", len(ids), err)
		}
		n += bulk
	}
	rate(b)
}

// A result's way from the queue to the log, without the queueing.
func BenchmarkRecordEnded(b *testing.B) {
	conn := store(b)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		b.StopTimer()
		ids, err := enqueue(b.Context(), conn, n)
		n += bulk
		b.StartTimer()
		if err != nil {
			b.Fatal(err)
		}
		tag, err := conn.Exec(b.Context(), RecordEnded.SQL, successes(ids))
		if err != nil || tag.RowsAffected() != bulk {
			b.Fatalf("%d were recorded: %v", tag.RowsAffected(), err)
		}
	}
	rate(b)
}

// resultIn is a result as the daemon sends it.
type resultIn struct {
	DeliveryID int64  `sql:"delivery_id"`
	Attempts   int32  `sql:"attempts"`
	Succeeded  bool   `sql:"succeeded"`
	HTTPStatus int32  `sql:"http_status"`
	Error      string `sql:"error"`
	Age        int32  `sql:"age"`
	Duration   int32  `sql:"duration"`
	Delay      int64  `sql:"delay"`
	Logged     bool   `sql:"logged"`
}

// successes are the results of deliveries that succeeded on the first attempt.
func successes(ids []int64) Rows[resultIn] {
	var results Rows[resultIn]
	for _, id := range ids {
		results = append(results, resultIn{DeliveryID: id, Succeeded: true, HTTPStatus: 200, Age: 5, Duration: 2, Logged: true})
	}
	return results
}

// Claiming from a backlog of 100,000, wherever the cursor is.
func BenchmarkFetchFresh(b *testing.B) {
	conn := store(b)
	const backlog = 100
	var ids []int64
	for i := range backlog {
		more, err := enqueue(b.Context(), conn, i*bulk)
		if err != nil {
			b.Fatal(err)
		}
		ids = append(ids, more...)
	}
	if _, err := conn.Exec(b.Context(), "analyze walhook.queue"); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		asked := requests([]int64{1}, []int64{1}, ids[n%(backlog-1)*bulk]-1, bulk, nil)
		rows, err := conn.Query(b.Context(), FetchFresh.SQL, asked)
		if err != nil {
			b.Fatal(err)
		}
		rows.Close()
		if got := rows.CommandTag().RowsAffected(); got != bulk {
			b.Fatalf("%d were fetched", got)
		}
		n++
	}
	rate(b)
}
