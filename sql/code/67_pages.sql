-- What the console's pages read, and what their buttons do. People can use all of it in psql.

create or replace view walhook.known_assessment as
  select a.assessment_id, a.name, a.external_id
    from walhook.assessment a
  union all
  select distinct w.assessment_id, null, null
    from walhook.webhook w
   where w.assessment_id is not null and not exists (select from walhook.assessment a where a.assessment_id = w.assessment_id);
comment on view walhook.known_assessment is 'One row per assessment that webhooks can be for: those of the assessment table if one is mapped, and those that webhooks name.';
comment on column walhook.known_assessment.assessment_id is 'Id of the assessment, as text.';
comment on column walhook.known_assessment.name is 'Its name; NULL if no column with names is mapped.';
comment on column walhook.known_assessment.external_id is 'Its external id; NULL if it has none, or no assessment table is mapped.';

-- It reads only small tables: ten thousand webhooks take a few milliseconds.
create or replace view walhook.webhook_health as
  select w.id, w.assessment_id, a.name as assessment_name, walhook.display_url(w.url) as host, w.event_type, w.organization_id,
         w.description, w.enabled, case when not w.enabled then 'disabled' when t.failing_since is not null then 'failing' else 'active' end as state,
         case when w.enabled and t.failing_since is not null then 0
              when not w.enabled and w.disabled_reason not like 'disabled by %' then 1
              when not w.enabled then 2
              else 3 end::smallint as trouble,
         walhook.local_time(t.failing_since) as failing_since,
         case when e.failures > 0 then e.last_error end as last_error, walhook.local_time(w.disabled_at) as disabled_at, w.disabled_reason,
         t.failing_since as failing_since_tz, w.disabled_at as disabled_at_tz
    from walhook.webhook w
    left join walhook.assessment a on a.assessment_id = w.assessment_id
    left join walhook.endpoint e on e.id = w.endpoint_id
    left join walhook.webhook_trouble t on t.webhook_id = w.id and t.activation = w.activation;
comment on view walhook.webhook_health is 'One row per webhook, without URL and secrets: whether it works. Times are in the time zone of walhook.settings.';
comment on column walhook.webhook_health.id is 'Id of the webhook.';
comment on column walhook.webhook_health.assessment_id is 'The assessment that it is for. NULL: every assessment or, if an assessment table is mapped, every one that has an external id.';
comment on column walhook.webhook_health.assessment_name is 'Name of the assessment; NULL if no column with names is mapped.';
comment on column walhook.webhook_health.host is 'Scheme and host of its URL.';
comment on column walhook.webhook_health.event_type is 'One of walhook.event_names(), such as response.completed.';
comment on column walhook.webhook_health.organization_id is 'Matches only responses of this organization; NULL: of any.';
comment on column walhook.webhook_health.description is 'Free text.';
comment on column walhook.webhook_health.enabled is 'Whether it matches new events and its deliveries are sent.';
comment on column walhook.webhook_health.state is 'failing (its last attempt failed), disabled or active.';
comment on column walhook.webhook_health.trouble is 'Sort by it, and by id: 0 failing, 1 disabled by walhook, 2 disabled by somebody, 3 active.';
comment on column walhook.webhook_health.failing_since is 'Since when every attempt has failed; NULL if the last one succeeded.';
comment on column walhook.webhook_health.last_error is 'Error of the last attempt at its URL; NULL after a success.';
comment on column walhook.webhook_health.disabled_at is 'When it was disabled; NULL while it is enabled.';
comment on column walhook.webhook_health.disabled_reason is 'Who or what disabled it.';
comment on column walhook.webhook_health.failing_since_tz is 'failing_since with its zone.';
comment on column walhook.webhook_health.disabled_at_tz is 'disabled_at with its zone.';

-- Hours that have passed are counted once, in the background, one at each call; a few minutes later, so that results that are still being recorded are
-- counted with them. Hours are those of UTC, in which no zone's clock moves.
create or replace function walhook.count_hours() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  latest  constant timestamptz := date_trunc('hour', now() - interval '3 minutes', 'UTC');
  passed  timestamptz;
  counted integer := 0;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('walhook.count_hours', 0)) then
    return 0; -- another daemon counts them
  end if;
  delete from walhook.hourly t where t.hour not between latest - interval '24 hours' and latest;
  for passed in
    select h from generate_series(latest - interval '23 hours', latest - interval '1 hour', interval '1 hour') h
     where not exists (select from walhook.hourly t where t.webhook_id = 0 and t.hour = h)
     order by h desc limit 1
  loop
    execute format('
      insert into walhook.hourly (webhook_id, hour, deliveries, failures)
      select coalesce(l.webhook_id, 0), %1$L, count(*), count(*) filter (where not l.succeeded)
        from walhook.log_entry l
       where l.finished_at >= %1$L and l.finished_at < %2$L and walhook.local_time(l.finished_at) >= %3$L and walhook.local_time(l.finished_at) < %4$L
       group by grouping sets ((l.webhook_id), ())',
      passed, passed + interval '1 hour', walhook.local_time(passed), walhook.local_time(passed) + interval '1 hour');
    counted := counted + 1;
  end loop;
  return counted;
end
$$;
comment on function walhook.count_hours() is 'Internal: counts the deliveries of an hour that has passed, and returns 0 if none is left.';

-- Hours that are not counted yet, such as the present one, are counted by index up to a bound; beyond it, the time that the newest entries
-- took gives the rest. Times are literals, so that the plan has no partition of another day. Only the index of webhooks has the order that
-- begins with them; by another one, a webhook with few entries would read those of all others. (Of an equation the planner would drop them from the order.)
create or replace function walhook.webhook_activity(webhook_ids bigint[], at_most integer default 200)
returns table (webhook_id bigint, hour timestamptz, deliveries bigint, failures bigint, estimated boolean)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_bitmapscan = off -- it would collect and sort what an index has in order
as $$
declare
  latest constant timestamptz := date_trunc('hour', now(), 'UTC');
  first  constant timestamptz := latest - interval '23 hours';
  newest text; -- entries of an hour
  live   text := '';
  h      timestamptz;
begin
  for h in
    select g from generate_series(first, latest, interval '1 hour') g
     where not exists (select from walhook.hourly t where t.webhook_id = 0 and t.hour = g)
  loop
    newest := format('select l.webhook_id, l.finished_at as at from walhook.log_entry l
                       where %s l.finished_at >= %L and l.finished_at < %L and walhook.local_time(l.finished_at) >= %L and walhook.local_time(l.finished_at) < %L',
                     case when webhook_ids is not null then 'l.webhook_id >= w.id and l.webhook_id <= w.id and' end, h, h + interval '1 hour', walhook.local_time(h), walhook.local_time(h) + interval '1 hour');
    live := live || format('
        union all
        select w.id, %1$L, e.kind, count(e.at), case when count(e.at) >= $2 then extract(epoch from least(now(), %2$L) - %1$L) / greatest(extract(epoch from least(now(), %2$L) - min(e.at)), 0.001) end
          from unnest($1) w (id)
          left join lateral (
            (select 1 as kind, n.at from (%3$s) n order by %4$s walhook.local_time(n.at) desc limit $2)
            union all
            (select 2 as kind, n.at from (%3$s and case when l.succeeded then ''success'' else ''failed'' end <> ''success'') n order by %4$s walhook.local_time(n.at) desc limit $2)) e on true
         group by w.id, e.kind', h, h + interval '1 hour', newest, case when webhook_ids is not null then 'n.webhook_id desc,' end);
  end loop;
  return query execute format('
    with counted (webhook_id, hour, kind, n, factor) as ( -- kind 1: deliveries; 2: failures
        select t.webhook_id, t.hour, k.kind, case k.kind when 1 then t.deliveries else t.failures end, null::numeric
          from walhook.hourly t cross join (values (1), (2)) k (kind) where t.webhook_id = any($1) and t.hour >= %1$L
        union all
        select r.id, r.hour, k.kind, r.n, case when r.n >= $2 then 1 end
          from (select w.id, date_trunc(''hour'', q.at, ''UTC'') as hour, count(*) as n
                  from unnest($1) w (id)
                 cross join lateral (
                   select q.last_attempt_at as at from walhook.queue q
                    where q.webhook_id - 0 >= w.id and q.webhook_id - 0 <= w.id and q.last_attempt_at >= %1$L and walhook.local_time(q.last_attempt_at) >= %3$L
                    order by q.webhook_id - 0 desc, walhook.local_time(q.last_attempt_at) desc limit $2) q
                 group by 1, 2) r
         cross join (values (1), (2)) k (kind)
        %4$s)
    select w.id, h.hour, coalesce(sum(round(c.n * coalesce(c.factor, 1))) filter (where c.kind = 1), 0)::bigint,
           coalesce(sum(round(c.n * coalesce(c.factor, 1))) filter (where c.kind = 2), 0)::bigint, coalesce(bool_or(c.factor is not null), false)
      from unnest($1) w (id)
     cross join generate_series(%1$L::timestamptz, %2$L, interval ''1 hour'') h (hour)
      left join counted c on c.webhook_id = w.id and c.hour = h.hour
     group by w.id, h.hour order by w.id, h.hour', first, latest, walhook.local_time(first), live)
  using coalesce(webhook_ids, '{0}'), at_most;
end
$$;
comment on function walhook.webhook_activity(bigint[], integer) is
  'Returns for each webhook and each of the last 24 hours, which are those of UTC, how many deliveries had their last attempt then, and how many of those '
  'failed or await a retry. NULL: of all webhooks together, without those that await a retry. Beyond at_most, the numbers of the present hour, and of retries, are estimates.';

-- A condition on walhook.delivery_log for each filter that is given: one statement for all filters would be planned for none. The second
-- condition is what no index answers. An API key of an organization sees the deliveries of its webhooks alone: if they are few, few has
-- them, and the newest are looked for in each.
create or replace function walhook.delivery_filter(webhook_id bigint, event_type text, status text, http_status integer, response_id text,
  since timestamptz, until timestamptz, out indexed text, out other text, out few bigint[])
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  usual    constant boolean := http_status between 200 and 299;
  by_reply constant boolean := webhook_id is null and response_id is null and not usual;
  hours    constant interval := '2 hours';
  -- Where the clock is set back within these hours, the time of day repeats.
  earliest constant timestamp := walhook.local_time(since) - case when walhook.local_time(since + hours) = walhook.local_time(since) + hours then interval '0' else hours end;
  latest   constant timestamp := walhook.local_time(until) + case when walhook.local_time(until) = walhook.local_time(until - hours) + hours then interval '0' else hours end;
  visible  bigint[];
begin
  if (walhook.api_key_in_force()).organization_id is not null then
    visible := array(select v.id from walhook.visible_webhook v where delivery_filter.webhook_id is null or v.id = delivery_filter.webhook_id);
    if webhook_id is null and response_id is null and event_type is null and cardinality(visible) <= 50 then
      few := visible;
    end if;
  end if;
  indexed := concat_ws(' and ', 'true',
    -- As a range, of which the order below has the index.
    case when webhook_id is not null then format('d.webhook_id >= %s and d.webhook_id <= %1$s', webhook_id) end,
    case when few is null and visible is not null and (webhook_id is not null or response_id is not null) then format('d.webhook_id = any(%L)', visible) end,
    case when status is not null then format('d.status = %L', status) end,
    case when not usual then 'd.status <> ''success''' end,
    case when by_reply then format('d.http_status = %s', http_status) end,
    case when response_id is not null then format('d.response_id = %L', coalesce(walhook.column_id('key', response_id), response_id)) end,
    case when since is not null then format('d.delivered_at >= %L and d.delivered_at_tz >= %L', earliest, since) end,
    case when until is not null then format('d.delivered_at < %L and d.delivered_at_tz < %L', latest, until) end);
  other := concat_ws(' and ', case when event_type is not null then format('d.event_type = %L', event_type) end,
    case when http_status is not null and by_reply is distinct from true then format('d.http_status = %s', http_status) end,
    case when few is null and visible is not null and webhook_id is null and response_id is null then format('d.webhook_id = any(%L)', visible) end);
end
$$;
comment on function walhook.delivery_filter(bigint, text, text, integer, text, timestamptz, timestamptz) is
  'Internal: conditions on walhook.delivery_log.';

-- Pages by key. Deliveries without an attempt come first, newest id first; then the others, newest attempt first.
create or replace function walhook.delivery_page(webhook_id bigint default null, event_type text default null, status text default null,
  http_status integer default null, response_id text default null, since timestamptz default null, until timestamptz default null,
  before_time timestamp default null, before_id bigint default null, page_size integer default 50, at_most integer default 10000)
returns setof walhook.delivery_log
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  filter  record := walhook.delivery_filter(webhook_id, event_type, status, http_status, response_id, since, until);
  parts   text[]; -- of the log, in this order
  part    text;
  source  text;   -- entries of a part, newest first, as far as indexes find them
  wanted  integer := page_size;
  keys    bigint[];
  oldest  timestamptz; -- of these
  newest  timestamptz;
  stop    walhook.delivery_log;
  -- Only what is found is read whole.
  whole   constant text := 'select d.* from walhook.delivery_log d where d.delivery_id = any(%L) and (%2$L is null and d.delivered_at is null '
                           'or d.delivered_at_tz between %2$L and %3$L) order by d.delivered_at desc, d.delivery_id desc';
begin
  if before_time is null and coalesce(status, 'pending') = 'pending' and since is null and until is null and http_status is null then
    parts := array['d.status = ''pending'' and d.delivered_at is null' || coalesce(' and d.delivery_id < ' || before_id, '')];
  end if;
  parts := parts || ('d.delivered_at is not null' || case when before_time is null then ''
    else format(' and d.delivered_at <= %L and (d.delivered_at < %1$L or d.delivery_id < %s)', before_time, before_id) end);
  foreach part in array parts loop
    source := format('select d.* from walhook.delivery_log d where %s and %s', part, filter.indexed);
    if filter.few is not null then
      source := format('select d.* from unnest(%L::bigint[]) v (id) cross join lateral (%s and d.webhook_id >= v.id and d.webhook_id <= v.id order by d.webhook_id desc, d.delivered_at desc, d.delivery_id desc limit %s) d',
                       filter.few, source, wanted);
    end if;
    source := source || case when webhook_id is not null and response_id is null then ' order by d.webhook_id desc, d.delivered_at desc, d.delivery_id desc limit '
                             when part like '% is null%' and filter.few is null then ' order by d.delivery_id desc limit '
                             else ' order by d.delivered_at desc, d.delivery_id desc limit ' end;
    if filter.other = '' then
      return query execute source || wanted;
      get diagnostics wanted = row_count;
      wanted := page_size - wanted;
    else
      execute format('select array_agg(k.delivery_id), min(k.delivered_at_tz), max(k.delivered_at_tz) from (select d.* from (%s%s) d where %s limit %s) k',
                     source, at_most, filter.other, wanted) into keys, oldest, newest;
      if keys is not null then
        return query execute format(whole, keys, oldest, newest);
      end if;
      wanted := wanted - coalesce(cardinality(keys), 0);
      if wanted > 0 then
        execute format('select array[d.delivery_id], d.delivered_at_tz from (%s%s) d offset %s', source, at_most, at_most - 1) into keys, oldest;
        if keys is not null then
          execute format(whole, keys, oldest, oldest) into stop;
          stop.status := null;
          return next stop;
          return;
        end if;
      end if;
    end if;
    exit when wanted <= 0;
  end loop;
end
$$;
comment on function walhook.delivery_page(bigint, text, text, integer, text, timestamptz, timestamptz, timestamp, bigint, integer, integer) is
  'Returns a page of walhook.delivery_log, newest first, filtered. For the next page, pass delivered_at and delivery_id of the last row as before_time and '
  'before_id. If filters that no index supports (an event type, an HTTP status of success) match too few of at_most entries to fill the page, an additional last '
  'row without a status shows how far the search went: continue from it.';

-- The first failure of each event and webhook whose redelivery has neither succeeded nor is pending.
create or replace function walhook.failed_matching(webhook_id bigint, event_type text, http_status integer, response_id text,
  since timestamptz, until timestamptz, at_most integer)
returns table (delivery_id bigint, origin bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  filter record := walhook.delivery_filter(webhook_id, event_type, 'failed', http_status, response_id, since, until);
begin
  return query execute format('
    select min(d.delivery_id), d.origin
      from (select d.delivery_id, d.response_id, coalesce(d.redelivery_of, d.delivery_id) as origin
              from walhook.delivery_log d
             where %s and not d.test and exists (select from walhook.webhook w where w.id = d.webhook_id) limit %s) d
     where not exists (select from walhook.log_entry l where l.redelivery_of = d.origin and l.succeeded)
       and not exists (select from walhook.queue q where q.response_id = d.response_id and q.redelivery_of = d.origin)
     group by d.origin', concat_ws(' and ', filter.indexed, nullif(filter.other, ''), case when filter.few is not null then format('d.webhook_id = any(%L)', filter.few) end), coalesce(at_most::text, 'all'));
end
$$;
comment on function walhook.failed_matching(bigint, text, integer, text, timestamptz, timestamptz, integer) is
  'Internal: what walhook.redeliver_matching queues.';

create or replace function walhook.count_failed(webhook_id bigint default null, event_type text default null, http_status integer default null,
  response_id text default null, since timestamptz default null, until timestamptz default null) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- what it counts may be at the end
as $$
  select case when count(*) > 1000 then 'more than 1000' else count(*)::text end
    from walhook.failed_matching($1, $2, $3, $4, $5, $6, 1001)
$$;
comment on function walhook.count_failed(bigint, text, integer, text, timestamptz, timestamptz) is
  'Returns how many deliveries walhook.redeliver_matching would send again, counting up to 1000.';

create or replace function walhook.redeliver_matching(webhook_id bigint default null, event_type text default null, http_status integer default null,
  response_id text default null, since timestamptz default null, until timestamptz default null) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  hook   walhook.webhook;
  queued bigint;
begin
  -- Two concurrent calls would queue the same deliveries.
  if redeliver_matching.webhook_id is null then
    perform walhook.check_api_key('{webhooks, admin}', null, 'deliveries of all webhooks cannot be redelivered with an API key of one organization');
    perform pg_advisory_xact_lock(hashtextextended('walhook.redeliver_failed', 0));
  else
    hook := walhook.known_webhook(redeliver_matching.webhook_id);
    perform pg_advisory_xact_lock_shared(hashtextextended('walhook.redeliver_failed', 0));
    perform pg_advisory_xact_lock(hashtextextended('walhook.redeliver_failed ' || hook.id, 0));
  end if;
  insert into walhook.queue (webhook_id, lsn, ordinal, committed_at, next_attempt_at, redelivery_of, event_type, kind, response_id, message_id)
  select l.webhook_id, l.lsn, l.ordinal, l.committed_at, now(), f.origin, l.event_type, 3, l.response_id,
         coalesce(l.message_id, walhook.message_id(0::smallint, f.origin, l.lsn, l.ordinal, l.event_type, l.webhook_id))
    from walhook.failed_matching(redeliver_matching.webhook_id, redeliver_matching.event_type, redeliver_matching.http_status,
                                 redeliver_matching.response_id, redeliver_matching.since, redeliver_matching.until, null) f
    join walhook.log_entry l on l.delivery_id = f.delivery_id
   order by f.origin;
  get diagnostics queued = row_count;
  if queued > 0 then
    if hook.id is not null then
      perform walhook.tell_what_waits(hook, false);
    end if;
    perform pg_notify('walhook', '');
  end if;
  return queued;
end
$$;
comment on function walhook.redeliver_matching(bigint, text, integer, text, timestamptz, timestamptz) is
  'Sends again every failed delivery that matches all given filters, and returns how many. Tests, deliveries of deleted webhooks, and deliveries whose redelivery '
  'has succeeded or is pending, are left out.';

-- The same bytes as AppendBody in Go.
create or replace function walhook.request_body(event_type text, committed_at timestamptz, response_id text) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select format('{"EventType":%s,"Timestamp":%s,"Data":{"ResponseId":%s}}', to_json($1), floor(extract(epoch from $2))::bigint,
                case when $3 ~ '^-?(0|[1-9][0-9]*)$' and exists (select from walhook.attachment a where a.numeric_id) then $3
                     when getdatabaseencoding() = 'UTF8' then regexp_replace(regexp_replace(to_json($3)::text, '\u2028', '\\u2028', 'g'), '\u2029', '\\u2029', 'g')
                     else to_json($3)::text end)
$$;
comment on function walhook.request_body(text, timestamptz, text) is 'Returns the body of the request for an event.';

create or replace view walhook.delivery_request as
  select d.delivery_id, d.webhook_id, walhook.local_time(d.committed_at) as committed_at,
         jsonb_strip_nulls(jsonb_build_object(
           'Content-Type', 'application/json',
           'webhook-id', coalesce(d.message_id, walhook.message_id(d.kind, d.delivery_id, d.lsn, d.ordinal, d.event_type, d.webhook_id)),
           'walhook-test', case d.kind when 2 then 'true' end)) as headers,
         walhook.request_body(walhook.event_name(d.event_type), d.committed_at, d.response_id) as body,
         d.committed_at as committed_at_tz
    from (select q.delivery_id, q.webhook_id, q.committed_at, q.kind, q.lsn, q.ordinal, q.event_type, q.response_id, q.message_id from walhook.queue q
          union all
          select l.delivery_id, l.webhook_id, l.committed_at, l.kind, l.lsn, l.ordinal, l.event_type, l.response_id, l.message_id from walhook.log_entry l) d;
comment on view walhook.delivery_request is 'One row per delivery: the part of its request that is the same in every attempt.';
comment on column walhook.delivery_request.delivery_id is 'The delivery, as in walhook.delivery_log.';
comment on column walhook.delivery_request.webhook_id is 'The webhook that it belongs to.';
comment on column walhook.delivery_request.committed_at is 'When the application committed the change, in the time zone of walhook.settings; of a test, when it was queued.';
comment on column walhook.delivery_request.headers is 'Headers of the request, name to value, except those that differ per attempt (webhook-timestamp, webhook-signature) and the webhook''s own.';
comment on column walhook.delivery_request.body is 'Body of the request.';
comment on column walhook.delivery_request.committed_at_tz is 'committed_at with its zone.';

-- What a button shows before it acts. Counting stops at a bound.
create or replace function walhook.pending_of(webhook_id bigint) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$ select walhook.count_pending(array[$1]) $$;
comment on function walhook.pending_of(bigint) is
  'Returns how many deliveries of a webhook are pending: they wait if it is disabled, and end as failed if it is deleted. Counts up to 10000.';
