-- Why did it not arrive? The answer comes from state, webhooks, queue and log, and says where it is uncertain.

-- What became of each event of a response, before any webhook is considered. misfit: why no webhook got it.
create or replace function walhook.story(response_id text) returns table (event_type smallint, happened text, misfit text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select e.n::smallint,
         case
           when s.response_id is null or x.excluded then 'not known'
           when not c.happened then 'no'
           when not walhook.fate_has(s.fate, 'fired', e.n) then 'before attach'
           else 'yes'
         end,
         case
           when s.response_id is null then
             'walhook knows no such response: it was never inserted, it was deleted, or the stream has not reached it yet (see walhook status)'
           when x.excluded then 'its row does not meet WALHOOK_RESPONDENT_WHERE, so it is no response'
           when not c.happened then c.missing
           when not walhook.fate_has(s.fate, 'fired', e.n) then 'it happened before walhook attached, and fires nothing'
           when walhook.fate_has(s.fate, 'silenced', e.n) then 'its transaction called walhook.silence()'
           when walhook.fate_has(s.fate, 'switched off', e.n) then 'webhooks were switched off when it happened (walhook.settings)'
         end
    from generate_series(1, cardinality(walhook.event_names())) as e (n)
    left join walhook.response_state s on s.response_id = $1
    left join lateral walhook.events_of(s) c on c.event_type = e.n
    cross join lateral (select walhook.has_flag(s.flags, 'excluded')) x (excluded)
$$;
comment on function walhook.story(text) is 'Internal: what became of the events of a response, for walhook.explain.';

-- An assessment as administrators see it: id and name.
create or replace function walhook.assessment_label(id text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select coalesce(id || coalesce((select format(' (%s)', a.name) from walhook.assessment a where a.assessment_id = id and a.name is not null), ''), 'none') $$;
comment on function walhook.assessment_label(text) is 'Internal: an assessment''s id, with its name if there is one.';

-- Why a webhook did not match an event that other webhooks could get; never NULL. It compares current values. happened_at is NULL if
-- the time of the event was not recorded: the state has only that of the response's last event, which it did not follow.
drop function if exists walhook.mismatch(walhook.webhook, walhook.response_state, smallint);
create or replace function walhook.mismatch(hook walhook.webhook, about walhook.response_state, happened_at timestamptz) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when hook.assessment_id <> about.assessment_id or hook.assessment_id is not null and about.assessment_id is null then
      format('assessment differs: the webhook is for %s, the response is of %s', walhook.assessment_label(hook.assessment_id), walhook.assessment_label(about.assessment_id))
    when hook.organization_id is distinct from own.organization_id and hook.organization_id is not null then
      format('other organization: the webhook is for %s, the response is of %s', hook.organization_id, coalesce(own.organization_id, 'none'))
    when hook.assessment_id is null and coalesce((select a.assessment_oid <> 0 from walhook.attachment a), false)
         and not exists (select from walhook.assessment a where a.assessment_id = about.assessment_id and a.external_id is not null) then
      format('assessment %s has no external id, and the webhook is for all assessments that have one', walhook.assessment_label(about.assessment_id))
    when hook.created_at > coalesce(happened_at, about.fired_at) then 'the webhook was created after it, at ' || walhook.time_text(hook.created_at)
    when not hook.enabled then
      format('webhook disabled since %s: %s%s', walhook.time_text(hook.disabled_at), hook.disabled_reason,
             case when hook.disabled_at > coalesce(happened_at, about.fired_at) then '; that was after it, so it was probably disabled before as well, or its log entry is gone' else '' end)
    else 'no record of it, although the webhook matches now. The reason is not known: either '
         || case when happened_at is null then format('the webhook was created after it, at %s, or ', walhook.time_text(hook.created_at)) else '' end
         || case when hook.log_successes then '' else 'it was delivered (successes of this webhook are not logged), or ' end
         || case when about.first_id is null then '' else format('it was logged under an earlier key of the response, whose first was %s, or ', about.first_id) end
         || 'its log entry has been dropped with old ones, or the webhook, the response or its assessment did not fit at the time'
         || case when hook.updated_at > coalesce(happened_at, about.fired_at) then
                   format(' (the webhook was changed afterwards, at %s)', walhook.time_text(hook.updated_at))
                 when happened_at is null and hook.updated_at > hook.created_at then
                   format(' (the webhook was last changed at %s, perhaps after it)', walhook.time_text(hook.updated_at))
                 else '' end
  end
  from (select walhook.organization_of(about)) own (organization_id)
$$;
comment on function walhook.mismatch(walhook.webhook, walhook.response_state, timestamptz) is 'Internal: why a webhook did not match, for walhook.explain.';

create or replace function walhook.explain(response_id text)
returns table (event_type text, happened text, webhook_id bigint, host text, matched boolean, reason text,
               delivery_id bigint, status text, attempts integer, error text, next_attempt_at timestamp,
               next_attempt_at_tz timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  with about as materialized (
    select r, walhook.organization_of(r) as organization_id from walhook.response_state r
     where r.response_id = coalesce(walhook.column_id('key', $1), $1) and not walhook.has_flag(r.flags, 'excluded')
  ), delivered as ( -- the last delivery of each event and webhook, tests left out
    select distinct on (l.event_type, l.webhook_id) l.*
      from walhook.delivery_log l
     where l.response_id = coalesce(walhook.column_id('key', $1), $1) and not l.test
     order by l.event_type, l.webhook_id, l.delivery_id desc
  ), seen as ( -- when the stream last brought each event, as far as deliveries show it
    select e.event_type, max(e.committed_at) as at
      from (select l.event_type, l.committed_at, l.response_id, l.kind from walhook.log_entry l
            union all
            select q.event_type, q.committed_at, q.response_id, q.kind from walhook.queue q) e
     where e.response_id = coalesce(walhook.column_id('key', $1), $1) and e.kind = 0
     group by e.event_type
  ), others as ( -- webhooks for other assessments and organizations, of which there may be thousands
    select w.id, w.event_type, x.elsewhere, row_number() over (partition by w.event_type, x.elsewhere order by w.id) as n
      from walhook.webhook w left join about a on true
     cross join lateral (select a.r is null or w.assessment_id is not null and w.assessment_id is distinct from (a.r).assessment_id) x (elsewhere)
     where (x.elsewhere or w.organization_id is not null and w.organization_id is distinct from a.organization_id)
       and not exists (select from delivered d where d.webhook_id = w.id and d.event_type = w.event_type)
  ), answer as (
    select t.event_type as number, e.name, case when d.delivery_id is not null then 'yes' else t.happened end as happened,
           coalesce((w.hook).id, d.webhook_id) as webhook_id, walhook.display_url((w.hook).url) as host,
           case when coalesce((w.hook).id, d.webhook_id) is not null then d.delivery_id is not null end as matched,
           case
             when d.status = 'success' then 'delivered'
                  || case when t.event_type = 4 or m.missed is not null then '; last at ' || walhook.time_text(d.delivered_at_tz) else '' end || coalesce(m.missed, '')
             when d.status = 'failed' and (w.hook).id is null and d.error = 'the webhook was deleted' then 'failed: the webhook was deleted'
             when d.status = 'failed' then format('failed for good after %s %s', d.attempts, case d.attempts when 1 then 'attempt' else 'attempts' end) || coalesce(m.missed, '')
             when d.status = 'pending' then 'waits: ' || (select p.waits_for from walhook.pending p where p.delivery_id = d.delivery_id) || coalesce(m.missed, '')
             when t.misfit is not null then t.misfit
             when (w.hook).id is null then format('there is no webhook for %s', e.name)
             -- fired_at is the time of the last event: response.changed, or the only one that has fired.
             else walhook.mismatch(w.hook, a.r, case when t.event_type = 4 or walhook.fired((a.r).fate) = 1 << t.event_type - 1 then (a.r).fired_at
                                                     else (select s.at from seen s where s.event_type = t.event_type) end)
           end as reason,
           d.delivery_id, d.status, d.attempts, d.error, d.next_attempt_at, d.next_attempt_at_tz
      from walhook.story(coalesce(walhook.column_id('key', $1), $1)) t
     cross join lateral (select walhook.event_name(t.event_type) as name) e
     cross join lateral (select case when t.happened = 'yes' then '. The latest one was not queued: ' || t.misfit end as missed) m
      left join about a on true
      left join ((select h as hook from walhook.webhook h where h.id not in (select x.id from others x where x.n > 10)) w
                 full join delivered d on d.webhook_id = (w.hook).id and d.event_type = (w.hook).event_type)
             on coalesce(d.event_type, (w.hook).event_type) = e.name
  ), rest as (
    select x.event_type, count(*) as n, case when x.elsewhere then 'assessment differs' else 'other organization' end as why
      from others x where x.n > 10 group by x.event_type, x.elsewhere
  ), known as (
    select exists (select from about) or exists (select from delivered) as once
  )
  select t.name, t.happened, t.webhook_id, t.host, t.matched, t.reason, t.delivery_id, t.status, t.attempts, t.error, t.next_attempt_at,
         t.next_attempt_at_tz
    from (
      select answer.* from answer, known where known.once
      union all
      select null, null, s.happened, null, null, null, s.misfit, null, null, null, null, null, null
        from known join walhook.story($1) s on s.event_type = 1 where not known.once
      union all
      select walhook.event_number(r.event_type), r.event_type, s.happened, null, null, false,
             coalesce(s.misfit, r.why) || format(': the same for %s more webhooks', r.n), null, null, null, null, null, null
        from known join rest r on known.once
        join walhook.story(coalesce(walhook.column_id('key', $1), $1)) s on s.event_type = walhook.event_number(r.event_type)
    ) t
   order by t.number, t.delivery_id is null, t.webhook_id
$$;
comment on function walhook.explain(text) is
  'Explains why an event did or did not arrive. One row per event and webhook of that event: whether the event happened, whether the webhook '
  'matched and if not why, and the state of its last delivery. Ten webhooks of other assessments and organizations are listed, the rest are counted. An unknown response has one row that says so. A row says so if something cannot be known for certain.';
