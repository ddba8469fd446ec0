package sql

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"walhook/testenv"
)

// buildTimeIndexes does what a daemon does after a change of the time zone.
const buildTimeIndexes = "do $$ begin while walhook.ensure_time_indexes(1) > 0 loop end loop; end $$"

// longLog returns a database with a long log in three partitions, and a long queue, almost all of it of one webhook. One delivery in a
// thousand failed, one in ten thousand was a test.
func longLog(t *testing.T) string {
	t.Helper()
	url := installed(t)
	n := *planRows
	for _, statement := range []string{
		"update walhook.settings set time_zone = 'Europe/Berlin'",
		buildTimeIndexes,
		`select walhook.make_partition(t, b - interval '1 day', b) from unnest(array['walhook.log'::regclass, 'walhook.attempt']) t
			cross join lateral (select min(p.lower) as b from walhook.partitions_of(t) p) p`,
		`select walhook.make_partition(t, '2020-01-01 UTC', b) from unnest(array['walhook.log'::regclass, 'walhook.attempt']) t
			cross join lateral (select min(p.lower) as b from walhook.partitions_of(t) p) p`,
		`insert into walhook.webhook (assessment_id, event_type, url)
			select g::text, walhook.event_name((1 + g % 3)::smallint), 'https://example.com/' || g from generate_series(1, 20) g`,
		fmt.Sprintf(`insert into walhook.log (delivery_id, webhook_id, lsn, ordinal, committed_at, finished_at, attempts, http_status, event_type, kind, succeeded, response_id)
			select nextval('walhook.delivery_id'), 1 + g %% 20, '0/1', g, now(), now() - (%[1]d - g) * interval '30 s', 1, case when g %% 997 = 0 then 500 else 200 end,
			       1 + (1 + g %% 20) %% 3, case when g %% 9973 = 0 then 2 else 0 end, g %% 997 <> 0, (g %% 50000)::text from generate_series(1, %[1]d) g`, n),
		`insert into walhook.attempt (delivery_id, attempt, attempted_at, duration_ms, http_status, succeeded, error)
			select l.delivery_id, a, l.finished_at - a * interval '1 min', 10, 500, false, 'HTTP 500' from walhook.log l, generate_series(1, 16) a where l.delivery_id % 50 = 0`,
		fmt.Sprintf(`insert into walhook.queue (webhook_id, lsn, ordinal, committed_at, next_attempt_at, last_attempt_at, http_status, attempts, event_type, response_id)
			select case when g %% 500 = 0 then 5 else 4 end, '0/2', g, now(), case when g %% 100 = 0 then now() + interval '1 min' end,
			       case when g %% 100 = 0 then now() end, case when g %% 100 = 0 then 503 end, g %% 100 / 99, 1, (g %% 50000)::text from generate_series(1, %d) g`, n/10),
		"analyze",
	} {
		testenv.Exec(t, url, statement)
	}
	return url
}

// Whatever administrators and viewers ask the log every day is answered from its indexes, however long log and queue are.
func TestEverydayQuestions(t *testing.T) {
	t.Parallel()
	url := longLog(t)
	const log = "select * from walhook.delivery_log "
	questions := map[string]string{
		"newest":                        log + "order by delivered_at desc limit 20",
		"newest that was attempted":     log + "where delivered_at is not null order by delivered_at desc limit 20",
		"oldest":                        log + "order by delivered_at limit 20",
		"newest by id":                  log + "order by delivery_id desc limit 20",
		"page by time":                  log + "where delivered_at < now() - interval '7 days' order by delivered_at desc, delivery_id desc limit 20",
		"page by id":                    log + "where delivery_id < 1000 order by delivery_id desc limit 20",
		"last":                          "select max(delivered_at) from walhook.delivery_log",
		"of a webhook":                  log + "where webhook_id = 7 order by delivered_at desc limit 50",
		"of a webhook with a backlog":   log + "where webhook_id = 4 and delivered_at is not null order by delivered_at desc limit 50",
		"of a webhook since":            log + "where webhook_id = 7 and delivered_at > localtimestamp - interval '3 hours'",
		"of a webhook that is new":      log + "where webhook_id = 77 order by delivered_at desc limit 50",
		"of a response":                 log + "where response_id = '4711'",
		"of a response in order":        log + "where response_id = '4711' order by delivered_at desc limit 20",
		"failed":                        log + "where status = 'failed' order by delivered_at desc limit 50",
		"failed since":                  log + "where status = 'failed' and delivered_at > localtimestamp - interval '5 minutes'",
		"failed of a webhook":           log + "where status = 'failed' and webhook_id = 7 order by delivered_at desc limit 20",
		"not delivered":                 log + "where status <> 'success' and delivered_at is not null order by delivered_at desc limit 50",
		"failed or pending":             log + "where status in ('failed', 'pending') and delivered_at is not null order by delivered_at desc limit 50",
		"pending":                       log + "where status = 'pending' order by delivered_at desc limit 50",
		"pending by id":                 log + "where status = 'pending' order by delivery_id limit 50",
		"succeeded":                     log + "where status = 'success' order by delivered_at desc limit 50",
		"since":                         log + "where delivered_at > localtimestamp - interval '5 minutes'",
		"since an instant":              log + "where delivered_at > now() - interval '5 minutes'",
		"since in the site's zone":      log + "where delivered_at > (select now() at time zone time_zone from walhook.settings) - interval '5 minutes'",
		"between":                       log + "where delivered_at between localtimestamp - interval '90 minutes' and localtimestamp - interval '85 minutes'",
		"counts of the last hour":       "select status, count(*) from walhook.delivery_log where delivered_at > localtimestamp - interval '1 hour' group by status",
		"a delivery":                    log + "where delivery_id = 123",
		"several deliveries":            log + "where delivery_id in (123, 456)",
		"of an event":                   log + "where event_type = 'response.completed' and delivered_at is not null order by delivered_at desc limit 20",
		"of an event since":             log + "where event_type = 'response.changed' and delivered_at > localtimestamp - interval '1 hour'",
		"by answer":                     log + "where http_status = 500 order by delivered_at desc limit 20",
		"by an answer that nobody gave": log + "where http_status = 418 order by delivered_at desc limit 20",
		"tests":                         log + "where test order by delivered_at desc limit 20",
		"recovered":                     "select count(*) from walhook.delivery_log where recovered",
		"redelivered":                   log + "where redelivery_of = 123 and status <> 'pending'",
		"with the webhook":              "select l.delivered_at, w.host, l.error from walhook.delivery_log l left join walhook.webhook_overview w on w.id = l.webhook_id where l.status = 'failed' order by l.delivered_at desc limit 20",
		"attempts":                      "select * from walhook.delivery_attempt where delivery_id = 123",
		"newest attempts":               "select * from walhook.delivery_attempt order by attempted_at desc limit 20",
		"attempts since":                "select * from walhook.delivery_attempt where attempted_at > localtimestamp - interval '5 minutes'",
		"attempts about a response":     "select a.* from walhook.delivery_attempt a join walhook.delivery_log l using (delivery_id) where l.response_id = '4711' order by a.attempted_at",
		"what waits":                    "select * from walhook.pending order by delivery_id limit 50",
		"what waits of a webhook":       "select * from walhook.pending where webhook_id = 5 order by delivery_id limit 50",
		"what waits about a response":   "select * from walhook.pending where response_id = '4711'",
		"why a delivery waits":          "select * from walhook.pending where delivery_id = 200100",
	}
	for _, role := range []string{"owner", "walhook_admin", "walhook_viewer"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			conn := asRole(t, url, role)
			for name, question := range questions {
				t.Run(name, func(t *testing.T) {
					if text, touched := explain(t, conn, question, nil); touched > 3000 {
						t.Errorf("it touches %.0f rows, which are many:\n%s", touched, text)
					}
				})
			}
			// Functions show no plan.
			for _, question := range []string{"select * from walhook.explain('4711')"} {
				if read := rowsRead(t, conn, question); read > 3000 {
					t.Errorf("%s reads %d rows of log, attempts and queue", question, read)
				}
			}
			// Whoever counts what waits reads the queue, and only once.
			if read := rowsRead(t, conn, "select * from walhook.endpoint_health"); read > int64(*planRows)/10+3000 {
				t.Errorf("endpoint_health reads %d rows", read)
			}
		})
	}
}

// A change of the time zone shows at once, also to a session that has prepared its question, and holds nobody up before it is
// committed. Then the indexes for it are built one by one, and those of the zone before go.
func TestTimeZoneChanges(t *testing.T) {
	t.Parallel()
	url := installed(t)
	testenv.Exec(t, url, fmt.Sprintf(logged, 1, "1 hour")+`insert into walhook.queue (webhook_id, committed_at, event_type, response_id, last_attempt_at, next_attempt_at)
		values (1, now(), 1, 'r', now() - interval '1 hour', now())`)
	viewer := asRole(t, url, "walhook_viewer")
	shown := func() (ages string) {
		t.Helper()
		if err := viewer.QueryRow(t.Context(), `select string_agg(distinct round(extract(epoch from (now() at time zone 'UTC') - at) / 60)::text, ' ') from (
			select delivered_at as at from walhook.delivery_log union all select attempted_at from walhook.delivery_attempt) x`).Scan(&ages); err != nil {
			t.Fatal(err)
		}
		return ages
	}
	for range 7 { // more than it takes until the session has a generic plan
		if got := shown(); got != "60" {
			t.Fatalf("ages in UTC are %s minutes", got)
		}
	}
	admin := asRole(t, url, "walhook_admin")
	if _, err := admin.Exec(t.Context(), "begin; update walhook.settings set time_zone = 'Asia/Tokyo'"); err != nil {
		t.Fatal(err)
	}
	testenv.Exec(t, url, "set lock_timeout = '10s'; "+fmt.Sprintf(logged, 2, "1 hour")) // while the transaction is open
	if got := shown(); got != "60" {
		t.Errorf("before the commit ages are %s minutes", got)
	}
	if _, err := admin.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	if got := shown(); got != "-480" {
		t.Errorf("in Tokyo, nine hours ahead, ages are %s minutes", got)
	}
	if built := testenv.Value[int](t, url, "select walhook.ensure_time_indexes(1)"); built != 1 {
		t.Errorf("%d indexes were built, not one", built)
	}
	testenv.Exec(t, url, buildTimeIndexes)
	const indexes = `select count(*) filter (where d ~ 'Asia/Tokyo'), count(*) filter (where d ~ '''UTC'''), bool_and(x.indisvalid)
		from pg_index x join pg_class c on c.oid = x.indexrelid cross join lateral (select pg_get_indexdef(c.oid) as d) d
		where c.relnamespace = 'walhook'::regnamespace`
	all := testenv.Value[int](t, url, `select (select count(*) from walhook.time_indexes() t)::int
		+ (select count(*) from walhook.time_indexes() t join pg_inherits p on p.inhparent = t.parent)::int`)
	if got, want := testenv.Psql(t, url, indexes), fmt.Sprintf("%d|0|t", all); got != want {
		t.Errorf("indexes for Tokyo, for UTC, and whether all are valid: %s, not %s", got, want)
	}
	testenv.Exec(t, url, "select walhook.make_partition('walhook.log', '2020-01-01 UTC', '2020-02-01 UTC')")
	if missing := testenv.Value[int](t, url, "select walhook.ensure_time_indexes()"); missing != 0 {
		t.Errorf("a new partition was made without %d indexes", missing)
	}
}

// Whoever reads the log in a long transaction keeps the indexes of the zone before, and nothing else.
func TestReaderKeepsStaleIndexes(t *testing.T) {
	t.Parallel()
	url := installed(t)
	reader := testenv.Connect(t, url)
	if _, err := reader.Exec(t.Context(), "begin; select from walhook.delivery_log"); err != nil {
		t.Fatal(err)
	}
	testenv.Exec(t, url, "update walhook.settings set time_zone = 'Asia/Tokyo'")
	const stale = "select count(*) from pg_class where relnamespace = 'walhook'::regnamespace and relname like 'log_newest_%' and relname not like '%Asia%' and relkind = 'I'"
	testenv.Exec(t, url, buildTimeIndexes)
	if got := testenv.Psql(t, url, stale); got != "1" {
		t.Errorf("of indexes for UTC there are %s", got)
	}
	if _, err := reader.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	testenv.Exec(t, url, "select walhook.ensure_time_indexes()")
	if got := testenv.Psql(t, url, stale); got != "0" {
		t.Errorf("after the reader has gone %s are left", got)
	}
}

// asRole connects as a member of a group role, or as the owner.
func asRole(t *testing.T, url, role string) *pgx.Conn {
	t.Helper()
	conn := testenv.Connect(t, url)
	if role != "owner" {
		if _, err := conn.Exec(t.Context(), "set role "+role); err != nil {
			t.Fatal(err)
		}
	}
	return conn
}

// rowsRead returns how many rows of log, attempts and queue a statement reads.
func rowsRead(t *testing.T, conn *pgx.Conn, statement string) int64 {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	count := func() (n int64) { // of this session, since it last reported to the server
		if err := tx.QueryRow(t.Context(), `select coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint from pg_stat_xact_all_tables
			where schemaname = 'walhook' and (relname = 'queue' or relname ~ '^(log|attempt)_')`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	if _, err := tx.Exec(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
	return count() - before
}
