package sql

import (
	"testing"

	"walhook/testenv"
)

// Local times are ambiguous once a year and do not show their zone, so each has a column with the same time and its
// zone.
func TestLocalTimesHaveTheirZoneBesideThem(t *testing.T) {
	t.Parallel()
	database := installed(t)
	const alone = `
		with shown (object, name, type) as (
		  select a.attrelid::regclass::text, a.attname::text, a.atttypid::regtype::text
		    from pg_attribute a join pg_class c on c.oid = a.attrelid
		   where c.relnamespace = 'walhook'::regnamespace and c.relkind = 'v' and a.attnum > 0
		  union all
		  select p.oid::regprocedure::text, o.name, o.type::regtype::text
		    from pg_proc p cross join lateral unnest(p.proargnames, p.proallargtypes, p.proargmodes) as o (name, type, mode)
		   where p.pronamespace = 'walhook'::regnamespace and o.mode = 't'
		)
		select string_agg(l.object || '.' || l.name, ' ' order by 1) from shown l
		 where l.type = 'timestamp without time zone' and not exists (
		   select from shown z where z.object = l.object and z.name = l.name || '_tz' and z.type = 'timestamp with time zone')`
	if got := testenv.Psql(t, database, alone); got != "" {
		t.Errorf("local times without a zone: %s", got)
	}

	testenv.Exec(t, database, `update walhook.settings set time_zone = 'Asia/Kolkata';
		insert into walhook.webhook (event_type, url, created_at) values ('response.created', 'https://example.com/', '2026-03-01 12:00 UTC');
		update walhook.endpoint set failures = 1, failing_since = '2026-03-01 12:00 UTC', not_before = '2026-03-01 12:00 UTC';
		insert into walhook.queue (webhook_id, committed_at, event_type, response_id, attempts, last_attempt_at, next_attempt_at)
		values (1, '2026-03-01 12:00 UTC', 1, '5', 1, '2026-03-01 12:00 UTC', '2026-03-01 12:00 UTC');
		insert into walhook.attempt_overflow (delivery_id, attempt, attempted_at, duration_ms, succeeded) values (1, 1, '2026-03-01 12:00 UTC', 1, false)`)
	for object, times := range map[string][]string{
		"delivery_log": {"delivered_at", "next_attempt_at"}, "delivery_attempt": {"attempted_at"},
		"pending": {"committed_at", "next_attempt_at"}, "endpoint_health": {"failing_since", "not_before", "next_attempt_at"},
	} {
		for _, time := range times {
			question := "select " + time + ", " + time + "_tz at time zone 'UTC' from walhook." + object
			if got := testenv.Psql(t, database, question); got != "2026-03-01 17:30:00|2026-03-01 12:00:00" {
				t.Errorf("%s.%s is %s", object, time, got)
			}
		}
	}

	testenv.Exec(t, database, `delete from walhook.queue;
		insert into walhook.response_state (response_id, flags, fate, fired_at) values ('5', 0, 1, '2026-02-01 UTC')`)
	const made = "the webhook was created after it, at 2026-03-01 17:30:00 Asia/Kolkata"
	if got := testenv.Psql(t, database, "select reason from walhook.explain(5) where webhook_id = 1"); got != made {
		t.Errorf("explain gives the reason %q, not %q", got, made)
	}
}
