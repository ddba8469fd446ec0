package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"walhook/testenv"
)

// traced collects the statements that a console runs.
type traced struct {
	mu         sync.Mutex
	statements []pgx.TraceQueryStartData
}

func (t *traced) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.statements = append(t.statements, data)
	return ctx
}

func (*traced) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (t *traced) take() []pgx.TraceQueryStartData {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := t.statements
	t.statements = nil
	return taken
}

// fillStore fills a store with a log of a day, and a webhook with a backlog.
const fillStore = `
	insert into walhook.attachment (phase, system_identifier, database, slot, publication, publish, mapping, respondent_oid, assessment_oid, numeric_id, attached_at)
	values ('attached', '1', 'd', 's', 'p', 'all', '{}', 1, 2, true, now());
	insert into walhook.origin (from_delivery_id, events, manual) values (0, 'a', 'b');
	insert into walhook.assessment (assessment_id, name, external_id, organization_id) select g, 'Assessment ' || g, nullif(g, 7), g %% 5 from generate_series(1, 20) g;
	insert into walhook.webhook (assessment_id, event_type, url, organization_id)
	select 1 + g %% 20, (walhook.event_names())[1 + g %% 4], 'https://example.com/' || g, case when g %% 3 = 0 then (1 + g %% 20) %% 5 end from generate_series(1, 100) g;
	insert into walhook.response_state (response_id, assessment_id, flags, fate, created_lsn)
	select g, 1 + g %% 20, 5, 3, case when g > %[1]d / 2 then '0/1'::pg_lsn + g end from generate_series(1, %[1]d) g;
	insert into walhook.log (delivery_id, webhook_id, lsn, ordinal, committed_at, finished_at, attempts, http_status, event_type, kind, succeeded, response_id)
	select nextval('walhook.delivery_id'), 1 + g %% 100, '0/1', g, now(), now() - g * interval '1 day' / %[1]d, 1, case when g %% 9 = 0 then 500 else 200 end, 1 + (1 + g) %% 4, 0, g %% 9 <> 0, g
	  from generate_series(1, %[1]d) g;
	insert into walhook.attempt (delivery_id, attempt, attempted_at, duration_ms, http_status, succeeded)
	select delivery_id, 1, finished_at, 1, 500, false from walhook.log where not succeeded;
	insert into walhook.queue (webhook_id, lsn, ordinal, committed_at, next_attempt_at, last_attempt_at, attempts, http_status, event_type, response_id)
	select 1, '0/1', g, now(), case when g %% 4 = 0 then now() end, case when g %% 4 = 0 then now() - g * interval '1 s' end, (g %% 4 = 0)::int, case when g %% 4 = 0 then 503 end, 1 + g %% 2, g
	  from generate_series(1, %[1]d / 2) g;
	do $$ begin while walhook.count_hours() > 0 loop end loop; end $$;
	analyze`

// However large log, queue and state are, no statement of a page or of an API request reads a whole one of these tables, and each touches few
// rows.
func TestPagesReadByIndex(t *testing.T) {
	t.Parallel()
	const rows = 40_000
	trace := &traced{}
	s := newSite(t, func(cfg *Config) { cfg.tracer = trace })
	testenv.Exec(t, s.store, fmt.Sprintf(fillStore, rows))
	ended := testenv.Value[int64](t, s.store, "select min(delivery_id) from walhook.log where succeeded")
	failed := testenv.Value[int64](t, s.store, "select min(delivery_id) from walhook.log where not succeeded")
	pending := testenv.Value[int64](t, s.store, "select max(delivery_id) from walhook.queue")
	key, ofOne := testenv.Value[string](t, s.store, "select walhook.create_api_key('all')"), testenv.Value[string](t, s.store, "select walhook.create_api_key('one', '4')")
	people := s.signIn(s.admin)
	conn := testenv.Connect(t, s.store)
	if _, err := conn.Exec(t.Context(), "set jit = off"); err != nil {
		t.Fatal(err)
	}

	values := strings.NewReplacer("{id}", "7", "{delivery}", fmt.Sprint(pending), "{ended}", fmt.Sprint(ended), "{failed}", fmt.Sprint(failed), "{pending}", fmt.Sprint(pending))
	requests := []string{
		"GET /webhooks?q=Assessment", "GET /webhooks?state=failing", "GET /webhooks?sort=newest&urls=1", "GET /webhooks/1", "GET /webhooks/1/delete",
		"GET /deliveries?webhook=1", "GET /deliveries?webhook=1&status=pending", "GET /deliveries?webhook=1&status=pending&event=response.changed", "GET /deliveries?webhook=7&status=failed",
		"GET /deliveries?status=pending", "GET /deliveries?status=failed", "GET /deliveries?http_status=500", "GET /deliveries?http_status=404", "GET /deliveries?http_status=201",
		"GET /deliveries?event=response.changed", "GET /deliveries?event=response.changed&status=pending", "GET /deliveries?response=4711", "GET /deliveries?before=~{pending}", "GET /deliveries/redeliver?webhook=7",
		"GET /deliveries/{ended}", "GET /deliveries/{failed}", "GET /deliveries/{pending}", "GET /responses/4711", "GET /responses/nobody", "GET /changes?object=webhook&id=7",
		"POST /webhooks/7/test", "POST /webhooks/7/disable", "POST /webhooks/7/enable", "POST /deliveries/{failed}/redeliver", "POST /deliveries/{pending}/redeliver",
	}
	for _, r := range s.server.routes() {
		if r.method == http.MethodGet && !strings.HasSuffix(r.pattern, "/live") && !strings.HasSuffix(r.pattern, "/csv") { // these read as their pages do
			requests = append(requests, "GET "+strings.TrimSuffix(r.pattern, "{$}"))
		}
	}
	for _, path := range []string{
		"/me", "/webhooks", "/webhooks?url=https://example.com/7", "/webhooks/9", "/deliveries", "/deliveries?webhook_id=1&status=pending", "/deliveries?webhook_id=9", "/deliveries?status=failed",
		"/deliveries?status=pending", "/deliveries?event_type=response.changed", "/deliveries?response_id=4711", "/deliveries?since=2020-01-01T00:00:00Z", "/deliveries/{ended}", "/deliveries/{pending}",
		"/samples", "/samples?event_type=response.changed", "/samples?assessment_id=3&event_type=response.completed", "/samples?assessment_id=nobody",
	} {
		requests = append(requests, "GET /api/v1"+path, "ONE /api/v1"+path)
	}
	requests = append(requests, "POST /api/v1/webhooks/9/test", "POST /api/v1/deliveries/{failed}/redeliver")
	trace.take()
	for i, request := range requests {
		method, path, _ := strings.Cut(values.Replace(request), " ")
		path = regexp.MustCompile(`/deliveries/7\b`).ReplaceAllString(path, "/deliveries/"+fmt.Sprint(ended))
		client := people
		if strings.HasPrefix(path, "/api/") {
			client = s.browser()
			client.header.Set("Authorization", "Bearer "+key)
			if method == "ONE" {
				client.header.Set("Authorization", "Bearer "+ofOne)
			}
			if i%20 == 0 { // a key may make 30 requests a second
				key, ofOne = testenv.Value[string](t, s.store, "select walhook.create_api_key('all')"), testenv.Value[string](t, s.store, "select walhook.create_api_key('one', '4')")
			}
		}
		var a answer
		if method == http.MethodPost {
			a = client.post(path, url.Values{})
		} else {
			a = client.get(path)
		}
		if a.status >= 400 && a.status != http.StatusNotFound {
			t.Errorf("%s: %d\n%s", request, a.status, a.body)
		}
		replay(t, conn, request, trace.take())
	}
}

// replay runs the statements again, and counts what they read of the large tables.
func replay(t *testing.T, conn *pgx.Conn, request string, statements []pgx.TraceQueryStartData) {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	read := func() (whole, touched int64) {
		err := tx.QueryRow(t.Context(), `select coalesce(sum(seq_tup_read), 0)::bigint, coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint from pg_stat_xact_user_tables
			where schemaname = 'walhook' and relname ~ '^(queue|response_state|log_\d|attempt_\d)'`).Scan(&whole, &touched)
		if err != nil {
			t.Fatal(err)
		}
		return whole, touched
	}
	for _, s := range statements {
		if regexp.MustCompile(`^(begin|commit|rollback|set) ?`).MatchString(s.SQL) {
			continue
		}
		whole, touched := read()
		if _, err := tx.Exec(t.Context(), s.SQL, s.Args...); err != nil {
			return // as it did for the console
		}
		wholeAfter, touchedAfter := read()
		if wholeAfter > whole || touchedAfter-touched > 30_000 {
			t.Errorf("%s reads %d rows, %d of them without an index:\n%s", request, touchedAfter-touched, wholeAfter-whole, s.SQL)
		}
	}
}
