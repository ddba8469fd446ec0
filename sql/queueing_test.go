package sql

import (
	"encoding/json"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/testenv"
)

// stateIn is a response's state as the daemon sends it.
type stateIn struct {
	ResponseID     string    `sql:"response_id"`
	FirstID        *string   `sql:"first_id"`
	AssessmentID   *string   `sql:"assessment_id"`
	OrganizationID *string   `sql:"organization_id"`
	Stamp          string    `sql:"stamp,null"`
	Flags          int16     `sql:"flags"`
	CreatedLSN     uint64    `sql:"created_lsn,null"`
	Fired          int16     `sql:"fired"`
	Silenced       int16     `sql:"silenced"`
	FiredAt        time.Time `sql:"fired_at,null"`
}

// An event costs the store a row of the queue and one of the states, and an entry in each of their indexes. One index more costs the
// store some 5 to 10 percent. The server writes a WAL record for each row and each entry; inserting a state takes two, because of its ON CONFLICT.
func TestQueueingWritesFewIndexEntries(t *testing.T) {
	t.Parallel()
	conn := store(t)
	states, assessment := make(Rows[stateIn], bulk), "1"
	for i := range states {
		states[i] = stateIn{ResponseID: strconv.Itoa(i), AssessmentID: &assessment, CreatedLSN: 1<<32 + 1, Fired: 1, FiredAt: time.Now()}
	}
	for name, c := range map[string]struct {
		sql     string
		args    []any
		records float64 // for each event
	}{
		"WriteStates": {WriteStates.SQL, []any{states}, 2 + 3},
		"Enqueue":     {Enqueue.SQL, enqueueArgs(0, nil), 1 + 5},
	} {
		var plans []struct {
			Plan struct {
				Records float64 `json:"WAL Records"`
			}
		}
		explainWAL(t, conn, c.sql, c.args, &plans)
		// A tenth more for page splits and the sequence.
		if got := plans[0].Plan.Records / bulk; got < 1 || got > 1.1*c.records {
			t.Errorf("%s writes %.2f WAL records for each event, want %.0f", name, got, c.records)
		}
	}
}

// explainWAL runs a statement and parses its plan.
func explainWAL(t *testing.T, conn *pgx.Conn, statement string, args []any, plans any) {
	t.Helper()
	var text string
	if err := conn.QueryRow(t.Context(), "explain (analyze, wal, timing off, format json) "+statement, args...).Scan(&text); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), plans); err != nil {
		t.Fatal(err)
	}
}

// Events of many assessments are not compared with each other's webhooks, although the plan was made for a few events.
func TestPlanOfManyGroups(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, installed(t))
	if err := RegisterTypes(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if err := ByIndex(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "insert into walhook.webhook (assessment_id, event_type, url) select g, 'response.created', 'https://example.com/' from generate_series(1, $1::int) g", bulk); err != nil {
		t.Fatal(err)
	}
	args := enqueueArgs(0, nil)
	events, groupOf := args[slices.Index(Enqueue.params, "events")].(Rows[eventIn]), make([]int32, bulk)
	for i := range events {
		events[i].AssessmentID, groupOf[i] = new(strconv.Itoa(i+1)), int32(i+1)
	}
	text, _ := explain(t, conn, Enqueue.SQL, Enqueue.Bind(Args{"events": events, "groups": events, "group_of": groupOf, "has_assessments": false}))
	var plans []struct{ Plan planNode }
	if err := json.Unmarshal([]byte(text), &plans); err != nil {
		t.Fatal(err)
	}
	plans[0].Plan.walk(func(n *planNode) {
		if read := (n.Rows + n.Removed) * n.Loops; read > 3*bulk {
			t.Errorf("a node reads %.0f rows for %d events:\n%s", read, bulk, text)
		}
	})
}
