package sql

import (
	"encoding/json"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/testenv"
)

var planRows = flag.Int("plans.rows", 200_000, "rows of the log in TestPlans, half of them failures; the queue has a tenth")

// planNode is a node of EXPLAIN's JSON.
type planNode struct {
	Type     string     `json:"Node Type"`
	Relation string     `json:"Relation Name"`
	Rows     float64    `json:"Actual Rows"`
	Removed  float64    `json:"Rows Removed by Filter"`
	Loops    float64    `json:"Actual Loops"`
	Plans    []planNode `json:"Plans"`
}

// walk visits a node and all below it.
func (n *planNode) walk(visit func(*planNode)) {
	visit(n)
	for i := range n.Plans {
		n.Plans[i].walk(visit)
	}
}

// However large log, queue and state are, the statements that run again and again, and the two questions that administrators
// ask most, look up what they need by index: they read no whole table, sort no backlog, and touch few rows.
func TestPlans(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, installed(t))
	if err := RegisterTypes(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	n := *planRows
	for _, statement := range []string{
		"insert into walhook.webhook (assessment_id, event_type, url) select g::text, 'response.created', 'https://example.com/' || g from generate_series(1, 20) g",
		fmt.Sprintf(`insert into walhook.log (delivery_id, webhook_id, lsn, ordinal, committed_at, finished_at, attempts, event_type, kind, succeeded, response_id)
			select nextval('walhook.delivery_id'), 1 + g %% 20, '0/1', g, now(), now() - g * interval '1 ms', 1, 1, 0, g %% 2 = 0, (g %% 50000)::text from generate_series(1, %d) g`, n),
		fmt.Sprintf(`insert into walhook.queue (webhook_id, lsn, ordinal, committed_at, next_attempt_at, attempts, event_type, response_id, first_id)
			select 1 + g %% 20, '0/2', g, now(), case when g %% 4 = 0 then now() - interval '1 min' end, g %% 4 / 3, 1, (g %% 50000)::text,
			       case when g %% 8 = 0 then (g %% 50000 + 1)::text end from generate_series(1, %d) g`, n/10),
		fmt.Sprintf("insert into walhook.response_state (response_id, assessment_id, flags) select g::text, '1', 0 from generate_series(1, %d) g", n),
		"analyze",
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	people := testenv.Connect(t, conn.Config().ConnString())
	if err := ByIndex(ctx, conn); err != nil {
		t.Fatal(err)
	}
	all := make([]int64, 20)
	for i := range all {
		all[i] = int64(i + 1)
	}
	var ids []int64
	if err := conn.QueryRow(ctx, "select array_agg(delivery_id) from (select delivery_id from walhook.queue order by delivery_id limit 100) q").Scan(&ids); err != nil {
		t.Fatal(err)
	}
	results := successes(ids)
	const log = "select * from walhook.delivery_log "
	for name, c := range map[string]struct {
		sql  string
		args []any
	}{
		"Enqueue":                        {Enqueue.SQL, enqueueArgs(0, nil)},
		"Enqueue after key changes":      {Enqueue.SQL, enqueueArgs(0, new("4711"))},
		"FetchFresh":                     {FetchFresh.SQL, []any{requests(all, all, ids[50], 256, ids)}},
		"FetchDue":                       {FetchDue.SQL, []any{requests(all, all, 0, 16, ids)}},
		"FetchTests":                     {FetchTests.SQL, []any{requests(all, all, 0, 16, ids)}},
		"FetchSuccessor":                 {FetchSuccessor.SQL, FetchSuccessor.Bind(Args{"endpoint_id": 1, "response_id": "4711", "ordered_ids": all})},
		"WaitingSummary":                 {WaitingSummary.SQL, WaitingSummary.Bind(Args{"requests": requests(all[:1], all[:1], 0, 16, ids), "endpoint_ids": all[:1]})},
		"FindWork":                       {FindWork.SQL, FindWork.Bind(Args{"webhook_ids": all, "cursors": all})},
		"RestartWaits":                   {RestartWaits.SQL, []any{100}},
		"ReadStates":                     {ReadStates.SQL, ReadStates.Bind(Args{"response_ids": []string{"1", "2", "3"}})},
		"MoveStates":                     {MoveStates.SQL, MoveStates.Bind(Args{"from_ids": []string{"1", "2", "3"}, "to_ids": []string{"2", "x", "1"}})},
		"BuryOrphans":                    {BuryOrphans.SQL, nil},
		"QueueDepth":                     {QueueDepth.SQL, nil},
		"RecordEnded":                    {RecordEnded.SQL, []any{results}},
		"the last failures of a webhook": {log + "where webhook_id = 8 and status = 'failed' order by delivered_at desc limit 20", nil},
		"what was sent":                  {"select * from walhook.delivery_request where delivery_id = $1", []any{ids[0]}},
		"everything about a response":    {log + "where response_id = '4711'", nil},
		"a delivery":                     {log + "where delivery_id = $1", []any{ids[0]}},
		"its attempts":                   {"select * from walhook.delivery_attempt where delivery_id = $1", []any{ids[0]}},
	} {
		t.Run(name, func(t *testing.T) {
			session := conn
			if strings.HasPrefix(c.sql, log) {
				session = people // with the settings of anybody
			}
			text, touched := explain(t, session, c.sql, c.args)
			if touched > 12_000 {
				t.Errorf("it touches %.0f rows, which are many:\n%s", touched, text)
			}
		})
	}
}

// Whatever the filters of a page of the log are, it touches few rows: the page is found by key, and what no index answers is looked for
// in a part of the log alone.
func TestPlansOfDeliveryPages(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, installed(t))
	ctx := t.Context()
	for _, statement := range []string{
		"insert into walhook.webhook (event_type, url) select 'response.created', 'https://example.com/' || g from generate_series(1, 20) g",
		fmt.Sprintf(`insert into walhook.log (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, http_status, event_type, kind, succeeded, response_id)
			select nextval('walhook.delivery_id'), 1 + g %% 20, g, now(), now() - g * interval '1 ms', 1, case when g %% 100 = 0 then 500 else 200 end, 1, 0, g %% 100 <> 0,
			       (g %% 50000)::text from generate_series(1, %d) g`, *planRows),
		fmt.Sprintf(`insert into walhook.queue (webhook_id, committed_at, last_attempt_at, next_attempt_at, attempts, http_status, event_type, response_id)
			select 1 + g %% 20, now(), now() - g * interval '1 ms', now(), 1, 503, 1, (g %% 50000)::text from generate_series(1, %d) g`, *planRows/10),
		"analyze",
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	for _, filter := range []string{
		"", "webhook_id => 7", "status => 'failed'", "status => 'pending'", "status => 'success'", "webhook_id => 7, status => 'failed'", "http_status => 500",
		"http_status => 404", "webhook_id => 7, http_status => 500", "response_id => '4711'", "since => now() - interval '2 seconds', until => now() - interval '1 second'",
		"event_type => 'response.changed', at_most => 2000", "http_status => 201, at_most => 2000",
		"before_time => walhook.local_time(now() - interval '100 seconds'), before_id => 1000", "webhook_id => 7, before_time => walhook.local_time(now() - interval '100 seconds'), before_id => 1000",
	} {
		tx, err := conn.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		read := func() (rows int64) {
			if err := tx.QueryRow(ctx, "select coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint from pg_stat_xact_user_tables where schemaname = 'walhook'").Scan(&rows); err != nil {
				t.Fatal(err)
			}
			return rows
		}
		before := read()
		if _, err := tx.Exec(ctx, "select * from walhook.delivery_page("+filter+")"); err != nil {
			t.Fatal(err)
		}
		if touched := read() - before; touched > 12_000 {
			t.Errorf("a page of %q touches %d rows, which are many", filter, touched)
		}
		_ = tx.Rollback(ctx)
	}
}

// Where few responses make up the queue, each for a thousand webhooks, what comes before a delivery is looked for among those of its
// webhook about its response: a URL's share of an event costs the same, however many others the event goes to. A URL that many webhooks have
// looks at those about the response, and not in the whole queue.
func TestPlansWithFewResponses(t *testing.T) {
	t.Parallel()
	const responses, webhooks = 20, 1000
	conn := testenv.Connect(t, installed(t))
	if err := RegisterTypes(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"insert into walhook.webhook (event_type, url) values ('response.created', 'https://example.com/')",
		fmt.Sprintf(`insert into walhook.queue (webhook_id, lsn, committed_at, next_attempt_at, attempts, event_type, response_id)
			select w, '0/1', now(), case when w = %[2]d - 1 then now() end, (w = %[2]d - 1)::int, 1, r::text
			  from generate_series(1, %[1]d) r, generate_series(1, %[2]d) w`, responses, webhooks),
		"analyze",
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := ByIndex(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	due, last := []int64{webhooks - 1}, []int64{webhooks}
	many := make([]int64, webhooks)
	for i := range many {
		many[i] = int64(i + 1)
	}
	for name, c := range map[string]struct {
		sql  string
		args []any
		most float64 // rows touched
	}{
		"FetchFresh":     {FetchFresh.SQL, []any{requests(last, last, 0, responses, nil)}, 5 * responses},
		"FetchDue":       {FetchDue.SQL, []any{requests(due, due, 0, responses, nil)}, 5 * responses},
		"FetchSuccessor": {FetchSuccessor.SQL, FetchSuccessor.Bind(Args{"endpoint_id": 1, "response_id": "20", "ordered_ids": last}), 5},

		"FetchFresh of many":     {FetchFresh.SQL, []any{requests(last, many, 0, responses, nil)}, 1.5 * responses * webhooks},
		"FetchDue of many":       {FetchDue.SQL, []any{requests(due, many, 0, responses, nil)}, 1.5 * responses * webhooks},
		"FetchSuccessor of many": {FetchSuccessor.SQL, FetchSuccessor.Bind(Args{"endpoint_id": 1, "response_id": "20", "ordered_ids": many}), 1.5 * webhooks},
	} {
		if text, touched := explain(t, conn, c.sql, c.args); touched > c.most {
			t.Errorf("%s touches %.0f rows, more than those about its responses:\n%s", name, touched, text)
		}
	}
}

// Where one webhook has all that waits, it is found without a look at that, for each of the others, that they have nothing.
func TestPlansWithOneBacklog(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, installed(t))
	if err := RegisterTypes(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"insert into walhook.webhook (event_type, url) select 'response.created', 'https://example.com/' from generate_series(1, 100)",
		`insert into walhook.queue (webhook_id, lsn, committed_at, next_attempt_at, last_attempt_at, attempts, event_type, response_id)
			select 1, '0/1', now(), now(), now(), 1, 1, g from generate_series(1, 20000) g`,
		"analyze",
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := ByIndex(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	idle := make([]int64, 50)
	for i := range idle {
		idle[i] = int64(i + 2)
	}
	for name, c := range map[string]struct {
		sql  string
		args []any
	}{
		"FindWork":             {FindWork.SQL, FindWork.Bind(Args{"webhook_ids": idle, "cursors": make([]int64, len(idle))})},
		"WaitingSummary":       {WaitingSummary.SQL, WaitingSummary.Bind(Args{"requests": requests(idle[:1], idle[:1], 0, 16, nil), "endpoint_ids": []int64{1}})},
		"deletion of webhooks": {"delete from walhook.webhook where id = any($1)", []any{idle}},
	} {
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		read := func() (rows int64) {
			const sum = "select coalesce(sum(idx_tup_fetch + seq_tup_read), 0)::bigint from pg_stat_xact_user_tables where relname = 'queue'"
			if err := tx.QueryRow(t.Context(), sum).Scan(&rows); err != nil {
				t.Fatal(err)
			}
			return rows
		}
		before := read()
		if _, err := tx.Exec(t.Context(), c.sql, c.args...); err != nil {
			t.Fatal(err)
		}
		if touched := read() - before; touched > 1000 {
			t.Errorf("%s reads %d rows of the queue", name, touched)
		}
		_ = tx.Rollback(t.Context())
	}
}

// explain runs a statement in a transaction that is rolled back, and refuses whole tables read and backlogs sorted. It returns
// how many rows the statement touched. The statement is planned as the session plans those that it prepares.
func explain(t *testing.T, conn *pgx.Conn, statement string, args []any) (text string, touched float64) {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	described, err := tx.Prepare(t.Context(), "explained", statement)
	if err != nil {
		t.Fatal(err)
	}
	// EXPLAIN takes what was prepared, and its arguments in no other form than that of literals.
	literals := make([]string, len(args))
	for i, arg := range args {
		var name string
		if err := tx.QueryRow(t.Context(), "select format_type($1, null)", described.ParamOIDs[i]).Scan(&name); err != nil {
			t.Fatal(err)
		}
		if err := tx.QueryRow(t.Context(), "select quote_nullable($1::"+name+"::text)", arg).Scan(&literals[i]); err != nil {
			t.Fatal(err)
		}
	}
	execute := "execute explained"
	if len(literals) > 0 {
		execute += "(" + strings.Join(literals, ", ") + ")"
	}
	if err := tx.QueryRow(t.Context(), "explain (analyze, timing off, format json) "+execute, pgx.QueryExecModeSimpleProtocol).Scan(&text); err != nil {
		t.Fatal(err)
	}
	if err := conn.Deallocate(t.Context(), "explained"); err != nil {
		t.Fatal(err)
	}
	var plans []struct {
		Plan planNode `json:"Plan"`
		Took float64  `json:"Execution Time"`
	}
	if err := json.Unmarshal([]byte(text), &plans); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", time.Duration(plans[0].Took*float64(time.Millisecond)))
	plans[0].Plan.walk(func(n *planNode) {
		if n.Relation != "" {
			touched += (n.Rows + n.Removed) * n.Loops
		}
		large := n.Relation == "queue" || n.Relation == "response_state" || strings.HasPrefix(n.Relation, "log_") || strings.HasPrefix(n.Relation, "attempt_")
		if large && n.Type == "Seq Scan" && n.Rows+n.Removed > 0 {
			t.Errorf("it reads all of %s:\n%s", n.Relation, text)
		}
		if strings.Contains(n.Type, "Sort") && n.Rows*n.Loops > 6000 {
			t.Errorf("it sorts %.0f rows:\n%s", n.Rows*n.Loops, text)
		}
	})
	return text, touched
}
