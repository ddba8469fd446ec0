package main

import (
	"context"
	"fmt"
)

// Webhooks of a filled store. The first of them have the backlog, and a tenth of the log is that of the busy one.
const (
	backlogged = 5
	busy       = 6
)

// filled are the sizes of a store that has been in use for 30 days, with partitions of a day.
type filled struct{ log, pending, webhooks, urls, assessments int }

// fill fills the store of a site.
func (s *site) fill(ctx context.Context) (filled, error) {
	f := filled{log: s.b.n(10_000_000), pending: s.b.n(1_000_000), webhooks: max(s.b.n(10_000), 100)}
	f.urls, f.assessments = f.webhooks/3, f.webhooks/5
	for _, step := range []struct {
		sql  string
		args []any
	}{
		{"set synchronous_commit = off; set work_mem = '64MB'", nil},
		{"update walhook.attachment set assessment_oid = 'respondent'::regclass", nil},
		{`insert into walhook.assessment (assessment_id, external_id, organization_id, name)
			select g, case when g % 10 < 9 then 'external ' || g end, 'organization ' || g % 50, 'Assessment ' || g from generate_series(1, $1::int) g`, []any{f.assessments}},
		{`insert into walhook.webhook (assessment_id, event_type, url, organization_id, description, enabled)
			select case when g % 20 > 0 then 1 + g % $3::int end, (walhook.event_names())[1 + g % 4], 'https://hooks' || g % $2::int || '.example.com/services/' || md5(g::text),
			       case when g % 10 = 0 then 'organization ' || (1 + g % $3::int) % 50 end, 'Webhook ' || g, g % 20 <> 7
			  from generate_series(1, $1::int) g`, []any{f.webhooks, f.urls, f.assessments}},
		{`insert into walhook.webhook_trouble (webhook_id, activation, failing_since)
			select w.id, w.activation, now() - interval '1 hour' from walhook.webhook w where w.id % 33 = 1`, nil},
		{"update walhook.endpoint e set failures = 7, last_error = 'HTTP 500', failing_since = now() - interval '1 hour' where e.id % 33 = 1", nil},
		{`insert into walhook.response_state (response_id, assessment_id, flags, fate, created_lsn, fired_at)
			select g, 1 + g % $2::int, case when g % 3 = 0 then 15 else 5 end, case when g % 3 = 0 then 7 else 3 end,
			       case when g > $1 / 2 then '0/1000000'::pg_lsn + g end, now() - ($1 - g) * interval '30 days' / $1
			  from generate_series(1, $1::int) g`, []any{f.log, f.assessments}},
		{`do $$
			declare
			  part record;
			begin
			  for part in select q.part from unnest(array['walhook.log'::regclass, 'walhook.attempt']) as p (parent) cross join lateral walhook.partitions_of(p.parent) q loop
			    execute format('drop table %s', part.part);
			  end loop;
			  for day in -31 .. 3 loop
			    perform walhook.make_partition(parent, date_trunc('day', now(), 'UTC') + day * interval '1 day', date_trunc('day', now(), 'UTC') + (day + 1) * interval '1 day')
			      from unnest(array['walhook.log'::regclass, 'walhook.attempt']) parent;
			  end loop;
			  perform walhook.ensure_time_indexes();
			  -- It is faster to build indexes afterwards than to add each row to them.
			  create temporary table later as
			    select replace(pg_get_indexdef(x.indexrelid), ' ON ONLY ', ' ON ') as definition, x.indexrelid::regclass::text as name from pg_index x where x.indrelid = 'walhook.log'::regclass;
			  for part in select name from later loop
			    execute format('drop index %s', part.name);
			  end loop;
			end $$`, nil},
		{`insert into walhook.log (delivery_id, webhook_id, lsn, ordinal, committed_at, finished_at, attempts, http_status, event_type, kind, succeeded, response_id, error)
			select nextval('walhook.delivery_id'), h.id, '0/1', g, h.at, h.at, case h.fate when 0 then 16 when 1 then 2 else 1 end,
			       case h.fate when 0 then 500 else 200 end, 1 + h.id % 4, 0, h.fate > 0, 1 + (g * 7919::bigint) % $1, case h.fate when 0 then 'HTTP 500' end
			  from generate_series(1, $1::int) g
			 cross join lateral (select case when g % 10 = 0 then $3::int else 1 + floor($2::int * (hashint4(g) / 4294967296.0 + 0.5) ^ 2)::int end,
			         now() - ($1 - g) * interval '30 days' / $1, g % 50) h (id, at, fate)`, []any{f.log, f.webhooks, busy}},
		{`do $$
			declare
			  index record;
			begin
			  for index in select definition from later loop
			    execute index.definition;
			  end loop;
			  drop table later;
			end $$`, nil},
		{`insert into walhook.attempt (delivery_id, attempt, attempted_at, duration_ms, http_status, succeeded, error)
			select l.delivery_id, l.attempts, l.finished_at, 120, l.http_status, l.succeeded, l.error from walhook.log l where l.attempts > 1`, nil},
		{`insert into walhook.queue (webhook_id, lsn, ordinal, committed_at, next_attempt_at, last_attempt_at, attempts, http_status, error, event_type, response_id)
			select 1 + g % $2::int, '0/1', g, now() - g * interval '10 ms', case when g % 4 = 0 then now() + g * interval '10 ms' end, case when g % 4 = 0 then now() - g * interval '10 ms' end,
			       (g % 4 = 0)::int, case when g % 4 = 0 then 503 end, case when g % 4 = 0 then 'HTTP 503' end, 1 + g % 4, 1 + (g * 7919::bigint) % $3
			  from generate_series(1, $1::int) g`, []any{f.pending, backlogged, f.log}},
		{"vacuum analyze", nil},
		{"reset synchronous_commit; reset work_mem", nil},
	} {
		if err := exec1(ctx, s.store, step.sql, step.args...); err != nil {
			return f, fmt.Errorf("fill the store: %w", err)
		}
	}
	return f, s.countHours(ctx)
}

// countHours counts the hours that have passed, as a daemon does.
func (s *site) countHours(ctx context.Context) error {
	for counted := 1; counted > 0; {
		if err := s.store.QueryRow(ctx, "select walhook.count_hours()").Scan(&counted); err != nil {
			return fmt.Errorf("count the deliveries of each hour: %w", err)
		}
	}
	return nil
}
