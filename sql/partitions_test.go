package sql

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"walhook/testenv"
)

// logged inserts an ended delivery and an attempt of the given age.
const logged = `insert into walhook.log (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, event_type, kind, succeeded, response_id)
	values (%[1]d, 1, 1, now(), now() - interval '%[2]s', 1, 1, 0, false, 'r');
	insert into walhook.attempt (delivery_id, attempt, attempted_at, duration_ms, succeeded) values (%[1]d, 1, now() - interval '%[2]s', 1, false);`

// Whatever units come after one another, the log takes what ends now, and what ended a moment ago, and
// the partition of now is no longer than the unit, though attach made longer ones and they hold something.
func TestPartitionsFollowTheUnit(t *testing.T) {
	t.Parallel()
	url := installed(t)
	lengths := map[string]string{"10 seconds": "10 s", "minute": "1 min", "hour": "1 h", "day": "1 day", "month": "31 days"}
	entries := 0
	for _, unit := range []string{"month", "day", "hour", "minute", "10 seconds", "minute", "day", "10 seconds", "month"} {
		for range 2 {
			testenv.Exec(t, url, "select walhook.ensure_partitions($1)", unit)
			for _, age := range []string{"0 s", "1 ms", "9 s"} {
				entries++
				testenv.Exec(t, url, fmt.Sprintf(logged, entries, age))
			}
		}
		if made := testenv.Psql(t, url, "select walhook.ensure_partitions()"); made != "0" {
			t.Errorf("%s: without a unit %s partitions were made though there are some", unit, made)
		}
		tooLong := testenv.Psql(t, url, `select p.part, p.upper - greatest(p.lower, now()) from unnest(array['walhook.log'::regclass, 'walhook.attempt']) t (parent)
			cross join lateral walhook.partitions_of(t.parent) p where p.upper > now() + interval '`+lengths[unit]+`' and p.lower < now()`)
		if tooLong != "" {
			t.Errorf("by %s, these reach further than they should:\n%s", unit, tooLong)
		}
	}
	if got := testenv.Psql(t, url, "select (select count(*) from walhook.log), (select count(*) from walhook.attempt)"); got != fmt.Sprintf("%d|%[1]d", entries) {
		t.Errorf("of %d entries there are %s", entries, got)
	}
	gaps := testenv.Psql(t, url, `select * from (select p.part, p.lower, lag(p.upper) over (partition by t.parent order by p.lower) as before
		from unnest(array['walhook.log'::regclass, 'walhook.attempt']) t (parent) cross join lateral walhook.partitions_of(t.parent) p) x where before <> lower`)
	if gaps != "" {
		t.Errorf("gaps between partitions:\n%s", gaps)
	}
	if got := testenv.Psql(t, url, "set timezone = 'Asia/Kolkata'; select walhook.ensure_partitions('hour') is null; show timezone"); !strings.HasSuffix(got, "Asia/Kolkata") {
		t.Errorf("the caller's time zone became %s", got)
	}
}

// A store that was idle for a long time continues without thousands of partitions, and without a gap.
func TestPartitionsAfterALongRest(t *testing.T) {
	t.Parallel()
	url := installed(t)
	testenv.Exec(t, url, `do $$ declare p record; begin
		for p in select q.part from unnest(array['walhook.log'::regclass, 'walhook.attempt']) t (parent) cross join lateral walhook.partitions_of(t.parent) q loop
			execute format('drop table %s', p.part); end loop; end $$;
		select walhook.make_partition('walhook.log', '2020-01-01 UTC', '2020-01-02 UTC'), walhook.make_partition('walhook.attempt', '2020-01-01 UTC', '2020-01-02 UTC')`)
	// A deleted webhook's deliveries are logged although no daemon has created partitions since.
	testenv.Exec(t, url, `insert into walhook.queue (webhook_id, committed_at, event_type, response_id) values (7, now(), 1, 'r'); select walhook.bury(7)`)
	if got := testenv.Psql(t, url, "select status, error from walhook.delivery_log"); got != "failed|the webhook was deleted" {
		t.Errorf("the log says %q", got)
	}
	testenv.Exec(t, url, "select walhook.ensure_partitions('10 seconds')")
	testenv.Exec(t, url, fmt.Sprintf(logged, 1, "100 days"))
	if n := testenv.Value[int](t, url, "select count(*)::int from walhook.partitions_of('walhook.log')"); n > 30 {
		t.Errorf("there are %d partitions", n)
	}
}

// Retention drops old entries, keeps the attempts of pending deliveries, and reports why an old entry could not be
// dropped.
func TestRetention(t *testing.T) {
	t.Parallel()
	url := installed(t)
	testenv.Exec(t, url, `do $$ declare p record; begin
		for p in select q.part from unnest(array['walhook.log'::regclass, 'walhook.attempt']) t (parent) cross join lateral walhook.partitions_of(t.parent) q loop
			execute format('drop table %s', p.part); end loop; end $$;
		select walhook.make_partition(t, now() - d - interval '1 day', now() - d) from unnest(array['walhook.log'::regclass, 'walhook.attempt']) t,
			unnest(array[interval '9 days', '8 days', '7 days']) d;
		select walhook.ensure_partitions('day');
		insert into walhook.webhook (url, event_type) values ('https://example.com/', 'response.created');
		insert into walhook.queue (delivery_id, webhook_id, committed_at, event_type, response_id, attempts, next_attempt_at) values (2, 1, now(), 1, 'r', 1, now())`)
	for id, age := range map[int]string{1: "9 days 1 hour", 2: "8 days 1 hour", 3: "7 days 1 hour", 4: "1 hour"} {
		testenv.Exec(t, url, fmt.Sprintf(logged, id, age))
	}
	const left = "select (select string_agg(delivery_id::text, ',' order by delivery_id) from walhook.log), (select string_agg(delivery_id::text, ',' order by delivery_id) from walhook.attempt)"
	const incidents = "select detail, resolved_at is not null from walhook.incident where kind = 'retention' order by at"
	drop := func(want, logAndAttempts string) {
		t.Helper()
		if got := testenv.Psql(t, url, "select walhook.drop_partitions('2 days')"); got != want {
			t.Errorf("%s partitions were dropped, not %s", got, want)
		}
		if got := testenv.Psql(t, url, left); got != logAndAttempts {
			t.Errorf("left are %s, not %s", got, logAndAttempts)
		}
	}
	if got := testenv.Psql(t, url, "select walhook.drop_partitions('20 days')"); got != "0" {
		t.Errorf("%s partitions were dropped that are not old", got)
	}

	reader := testenv.Connect(t, url)
	if _, err := reader.Exec(t.Context(), "begin; select * from walhook.delivery_attempt; select * from walhook.delivery_log"); err != nil {
		t.Fatal(err)
	}
	drop("0", "1,2,3,4|1,2,3,4")
	if got := testenv.Psql(t, url, incidents); !strings.Contains(got, "somebody has been reading") || !strings.HasSuffix(got, "|f") {
		t.Errorf("incidents are %s", got)
	}
	if _, err := reader.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}

	drop("5", "4|2,4")
	if got := testenv.Psql(t, url, incidents); !strings.HasSuffix(got, "|t") {
		t.Errorf("incidents are %s", got)
	}
	testenv.Exec(t, url, "update walhook.webhook set enabled = false")
	drop("0", "4|2,4")
	if got := testenv.Psql(t, url, incidents+" desc limit 1"); got != "log entries older than 2 days could not be dropped: they are attempts of deliveries that wait for disabled webhooks (1); enable or delete these|f" {
		t.Errorf("incidents are %s", got)
	}
	testenv.Exec(t, url, "delete from walhook.webhook")
	drop("1", "2,4|4")
	if got := testenv.Psql(t, url, incidents); strings.Contains(got, "|f") || strings.Count(got, "|t") != 2 {
		t.Errorf("incidents are %s", got)
	}
	refused(t, url, refusal{"select walhook.drop_partitions('0')", "positive age"}, refusal{"select walhook.ensure_partitions('week')", "not supported"})
}

// Resolved incidents are kept as long as the log, and a year at least. Those that last stay, and so do rows that somebody
// has locked.
func TestOldIncidentsAreDeleted(t *testing.T) {
	t.Parallel()
	url := installed(t)
	testenv.Exec(t, url, `insert into walhook.incident_log (kind, detail, at, resolved_at)
		select 'takeover', name, now() - interval '5 years', now() - ago from (values ('old', interval '2 years'), ('busy', '2 years'), ('new', '11 months'), ('lasts', null)) v (name, ago)`)
	administrator := testenv.Connect(t, url)
	if _, err := administrator.Exec(t.Context(), "begin; update walhook.incident_log set detail = 'busy' where detail = 'busy'"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ age, left string }{
		{"3 years", "old,busy,new,lasts"},
		{"5 minutes", "busy,new,lasts"},
	} {
		testenv.Exec(t, url, "select walhook.drop_partitions('"+step.age+"')")
		if got := testenv.Psql(t, url, "select string_agg(detail, ',' order by incident_id) from walhook.incident where kind = 'takeover'"); got != step.left {
			t.Errorf("of incidents older than %s and a year, %s are left, not %s", step.age, got, step.left)
		}
	}
}

// An empty partition, like those of a new store for the past, causes no incident if it cannot be dropped yet.
func TestEmptyPartitionsAreNoIncident(t *testing.T) {
	t.Parallel()
	url := installed(t)
	testenv.Exec(t, url, "select walhook.make_partition('walhook.log', now() - interval '5 years', now() - interval '4 years')")
	reader := testenv.Connect(t, url)
	if _, err := reader.Exec(t.Context(), "begin; select from walhook.log"); err != nil {
		t.Fatal(err)
	}
	const drop = "select walhook.drop_partitions('3 years'), count(*) from walhook.incident where kind = 'retention'"
	if got := testenv.Psql(t, url, drop); got != "0|0" {
		t.Errorf("partitions dropped while somebody reads and incidents: %s", got)
	}
	if _, err := reader.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	if got := testenv.Psql(t, url, drop); got != "1|0" {
		t.Errorf("partitions dropped afterwards and incidents: %s", got)
	}
}

// An empty partition that cannot be dropped hides none that has something.
func TestEmptyPartitionsHideNoIncident(t *testing.T) {
	t.Parallel()
	url := installed(t)
	testenv.Exec(t, url, `select walhook.make_partition(t, now() - interval '5 years', now() - interval '4 years') from unnest(array['walhook.log'::regclass, 'walhook.attempt']) t`)
	entry, _, _ := strings.Cut(fmt.Sprintf(logged, 1, "4 years 1 month"), ";")
	testenv.Exec(t, url, entry)
	reader := testenv.Connect(t, url)
	if _, err := reader.Exec(t.Context(), "begin; select from walhook.log; select from walhook.attempt"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := testenv.Psql(t, url, "select walhook.drop_partitions('3 years')"); got != "0" {
			t.Errorf("%s partitions were dropped while somebody reads", got)
		}
		if got := testenv.Psql(t, url, "select count(*) from walhook.incident where kind = 'retention' and resolved_at is null"); got != "1" {
			t.Errorf("%s incidents are open, not 1", got)
		}
	}
}

// Somebody who has read one part of the log and then reads the other is never ended for a deadlock with partitions being dropped: these wait
// for the next time.
func TestReadersOutliveDroppedPartitions(t *testing.T) {
	t.Parallel()
	url := installed(t)
	testenv.Exec(t, url, "select walhook.make_partition('walhook.attempt', now() - interval '5 years', now() - interval '4 years'), walhook.make_partition('walhook.log', now() - interval '4 years', now() - interval '3 years')")
	reader := testenv.Connect(t, url)
	if _, err := reader.Exec(t.Context(), "set deadlock_timeout = '20ms'; begin; select from walhook.log"); err != nil {
		t.Fatal(err)
	}
	dropper := testenv.Connect(t, url)
	dropped := make(chan error, 1)
	go func() {
		_, err := dropper.Exec(context.Background(), "select walhook.drop_partitions('2 days')")
		dropped <- err
	}()
	testenv.Eventually(t, time.Minute, "the dropper to wait for the reader, or to have given up", func() (bool, string) {
		n := testenv.Value[int64](t, url, "select count(*) from pg_locks where not granted and relation::regclass::text like 'walhook.log%'")
		return n > 0 || len(dropped) > 0, fmt.Sprint(n)
	})
	if _, err := reader.Exec(t.Context(), "select from walhook.attempt; commit"); err != nil {
		t.Errorf("the reader was ended: %v", err)
	}
	if err := <-dropped; err != nil {
		t.Errorf("the dropper was ended: %v", err)
	}
	testenv.Exec(t, url, "select walhook.drop_partitions('2 days')")
	if got := testenv.Value[int64](t, url, "select count(*) from walhook.partitions_of('walhook.log') where upper < now() - interval '2 days'"); got != 0 {
		t.Errorf("%d old partitions of the log are left", got)
	}
}

// What is queued for a webhook while it is being deleted ends as failed, like all that was pending for it.
func TestOrphansAreBuried(t *testing.T) {
	t.Parallel()
	url := installed(t)
	hook := testenv.Psql(t, url, "insert into walhook.webhook (url, event_type) values ('https://example.com/', 'response.created'), ('https://example.com/', 'response.created') returning id")
	first, second, _ := strings.Cut(hook, "\n")
	writer, err := testenv.Connect(t, url).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, next := range []string{"null", "now()", "null"} {
		id := []string{first, first, second}[i]
		if _, err := writer.Exec(t.Context(), `insert into walhook.queue (webhook_id, committed_at, event_type, response_id, next_attempt_at)
			select id, now(), 1, 'r', `+next+` from walhook.webhook where id = `+id); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Exec(t, url, "delete from walhook.webhook where id = "+first)
	if err := writer.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	const log = "select webhook_id, status, count(*) from walhook.delivery_log group by 1, 2 order by 1, 2"
	if got, want := testenv.Psql(t, url, log), first+"|pending|2\n"+second+"|pending|1"; got != want {
		t.Errorf("before, the log has %q, not %q", got, want)
	}
	testenv.Exec(t, url, BuryOrphans.SQL)
	if got, want := testenv.Psql(t, url, log), first+"|failed|2\n"+second+"|pending|1"; got != want {
		t.Errorf("afterwards the log has %q, not %q", got, want)
	}
	testenv.Exec(t, url, "select walhook.bury("+second+")")
	if got, want := testenv.Psql(t, url, log), first+"|failed|2\n"+second+"|pending|1"; got != want {
		t.Errorf("what waits for a webhook that exists was buried: %q", got)
	}
}

// both are the partitioned tables of the log.
const both = "unnest(array['walhook.log'::regclass, 'walhook.attempt']) t (parent)"

// dropAll drops every partition of the log.
func dropAll(t *testing.T, url string) {
	t.Helper()
	testenv.Exec(t, url, `do $$ declare p record; begin
		for p in select q.part from `+both+` cross join lateral walhook.partitions_of(t.parent) q loop execute format('drop table %s', p.part); end loop; end $$`)
}

// Partitions of a time that has not come, as a clock that was ahead leaves them, keep nobody from making those of now; nor does one that
// somebody dropped in the middle, or detached and kept.
func TestPartitionsFillHoles(t *testing.T) {
	t.Parallel()
	url := installed(t)
	dropAll(t, url)
	testenv.Exec(t, url, "select walhook.make_partition(t.parent, now() + interval '10 years', now() + interval '11 years') from "+both)
	covered := func(what string) {
		t.Helper()
		if got := testenv.Psql(t, url, "select walhook.log_covered_until() > now() + interval '2 days'"); got != "t" {
			t.Errorf("%s: whether the log has partitions for the next days: %s", what, got)
		}
		for _, age := range []string{"0 s", "23 h", "-1 day"} {
			testenv.Exec(t, url, fmt.Sprintf(logged, 1, age))
		}
	}
	testenv.Exec(t, url, "select walhook.ensure_partitions('day')")
	covered("after the clock came back")
	testenv.Exec(t, url, `do $$ declare p record; begin
		for p in select q.part, t.parent from `+both+` cross join lateral walhook.partitions_of(t.parent) q where q.lower <= now() and q.upper > now() loop
			execute format('alter table %s detach partition %s', p.parent, p.part); end loop; end $$`)
	if got := testenv.Psql(t, url, "select walhook.log_covered_until() is null"); got != "t" {
		t.Errorf("whether a hole for the present is reported: %s", got)
	}
	testenv.Exec(t, url, "select walhook.ensure_partitions('day')")
	covered("after that of today was detached")
	if made := testenv.Psql(t, url, "select walhook.ensure_partitions('day')"); made != "0" {
		t.Errorf("a second run created %s partitions", made)
	}
}

// Entries that the log has refused read like the others, move to the log as soon as it accepts them, and expire if it
// never does.
func TestOverflowReadsLikeTheLog(t *testing.T) {
	t.Parallel()
	url := installed(t)
	dropAll(t, url)
	over := strings.NewReplacer("walhook.log ", "walhook.log_overflow ", "walhook.attempt ", "walhook.attempt_overflow ")
	for id, age := range map[int]string{1: "0 s", 2: "3 years", 3: "9 years"} {
		testenv.Exec(t, url, over.Replace(fmt.Sprintf(logged, id, age)))
	}
	testenv.Exec(t, url, "insert into walhook.webhook (id, url, event_type) values (1, 'https://example.com/', 'response.created')")
	const seen = "select (select string_agg(delivery_id || status, ',' order by delivery_id) from walhook.delivery_log), (select count(*) from walhook.delivery_attempt)"
	const want = "1failed,2failed,3failed|3"
	if got := testenv.Psql(t, url, seen); got != want {
		t.Errorf("the views show %s, not %s", got, want)
	}
	if got := testenv.Psql(t, url, "begin; select walhook.redeliver(1) is not null; rollback; begin; select walhook.redeliver_failed(1, now() - interval '10 years'); rollback"); !strings.Contains(got, "t\n") || !strings.HasSuffix(got, "3") {
		t.Errorf("redelivery says %q", got)
	}
	if got := testenv.Psql(t, url, "select walhook.trim_overflow('8 years')"); got != "2" {
		t.Errorf("%s rows aged out, not 2", got)
	}
	if out, err := testenv.TryPsql(t, url, "select * from walhook.drain_overflow()"); err == nil || !strings.Contains(out, "no partition") {
		t.Errorf("without a partition the log takes rows: %s", out)
	}
	testenv.Exec(t, url, "select walhook.ensure_partitions('month')")
	if n := testenv.Value[int](t, url, "select count(*)::int from walhook.partitions_of('walhook.log')"); n > 30 {
		t.Errorf("there are %d partitions", n)
	}
	if got := testenv.Psql(t, url, "select * from walhook.drain_overflow(1)"); got != "2|t" {
		t.Errorf("moved, and whether more are left: %s", got)
	}
	if got := testenv.Psql(t, url, "select * from walhook.drain_overflow(); select (select count(*) from walhook.log), (select count(*) from walhook.attempt)"); got != "2|f\n2|2" {
		t.Errorf("moved, and then in the log: %s", got)
	}
}

// Where DDL is refused, that is known beforehand, and administrators may delete webhooks all the same.
func TestRefusedPartitions(t *testing.T) {
	t.Parallel()
	url := installed(t)
	const refusal = "select coalesce(walhook.partition_refusal(), 'none'), (select count(*) from walhook.partitions_of('walhook.log') q where q.lower > '9000-01-01')"
	if got := testenv.Psql(t, url, refusal); got != "none|0" {
		t.Errorf("with nothing wrong: %s", got)
	}
	testenv.Exec(t, url, `
		create function public.refuse() returns event_trigger language plpgsql as $$ begin raise exception 'no DDL here'; end $$`)
	dropAll(t, url)
	testenv.Exec(t, url, "create event trigger refuse on ddl_command_start when tag in ('CREATE TABLE') execute function public.refuse()")
	if got := testenv.Psql(t, url, refusal); got != "no DDL here|0" {
		t.Errorf("with an event trigger: %s", got)
	}
	testenv.Exec(t, url, `insert into walhook.webhook (id, url, event_type) values (7, 'https://example.com/', 'response.created');
		insert into walhook.queue (webhook_id, committed_at, event_type, response_id) values (7, now(), 1, 'r'); delete from walhook.webhook`)
	if got := testenv.Psql(t, url, "select status, error from walhook.delivery_log"); got != "failed|the webhook was deleted" {
		t.Errorf("the log says %q", got)
	}
}
