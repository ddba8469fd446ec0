-- Pending deliveries, and what each waits for.

create or replace view walhook.pending as
  select q.delivery_id, q.webhook_id - 0 as webhook_id, walhook.display_url(w.url) as host, q.response_id, walhook.event_name(q.event_type) as event_type,
         walhook.local_time(q.committed_at) as committed_at, q.attempts, q.error, walhook.local_time(q.next_attempt_at) as next_attempt_at,
         case
           when w.id is null then 'the webhook was deleted'
           when not (select s.enabled from walhook.settings s) then 'webhooks are switched off (walhook.settings)'
           when not w.enabled and q.kind <> 2 then 'webhook disabled' || coalesce(': ' || w.disabled_reason, '')
           when exists (select from walhook.webhook_move m join walhook.endpoint f on f.id = m.endpoint_id join walhook.daemon d on d.id = f.owner
                         where m.webhook_id = w.id) then 'attempts at the URL that the webhook had before have not ended'
           when b.delivery_id is not null then format('behind delivery %s about the same response', b.delivery_id)
           when q.attempts > 0 and q.next_attempt_at > now() then format('backing off after %s failed %s', q.attempts, case q.attempts when 1 then 'attempt' else 'attempts' end)
           when e.not_before > now() or e.failures >= 5 then format('endpoint in trouble: %s failures in a row', e.failures)
           when not exists (select from walhook.daemon d where d.expires_at >= now()) then 'due; no daemon is running'
           else 'due'
         end as waits_for,
         q.kind = 2 as test, q.kind = 1 as recovered, q.committed_at as committed_at_tz, q.next_attempt_at as next_attempt_at_tz
    from walhook.queue q
    left join walhook.webhook w on w.id = q.webhook_id
    left join walhook.endpoint e on e.id = w.endpoint_id
    left join lateral (
      select p.delivery_id
        from walhook.queue p join walhook.webhook o on o.id = p.webhook_id
       where (p.response_id = q.response_id or p.response_id = q.first_id or p.first_id = q.first_id) and p.delivery_id + 0 < q.delivery_id and p.kind <> 2 and q.kind <> 2
         and w.ordered and o.ordered and o.enabled and o.endpoint_id = w.endpoint_id
       order by p.delivery_id + 0 desc limit 1
    ) b on true;
comment on view walhook.pending is 'One row per pending delivery, and what it waits for. Times are in the time zone of walhook.settings.';
comment on column walhook.pending.delivery_id is 'Id of the delivery; walhook.redeliver makes it due now.';
comment on column walhook.pending.webhook_id is 'The webhook that it belongs to.';
comment on column walhook.pending.host is 'Scheme and host of the webhook''s URL.';
comment on column walhook.pending.response_id is 'Primary key of the respondent row, as text.';
comment on column walhook.pending.event_type is 'One of walhook.event_names(), such as response.completed.';
comment on column walhook.pending.committed_at is 'When the application committed the change; of a test, when it was queued.';
comment on column walhook.pending.attempts is 'Number of attempts so far.';
comment on column walhook.pending.error is 'Error of the last attempt; NULL before the first.';
comment on column walhook.pending.next_attempt_at is 'When it is due for a retry; NULL: as soon as possible.';
comment on column walhook.pending.waits_for is 'Why it waits: due, backing off, endpoint in trouble, webhook disabled, behind an earlier delivery, or an attempt in flight to the previous URL.';
comment on column walhook.pending.test is 'Whether it is a test, queued by test_webhook.';
comment on column walhook.pending.recovered is 'Whether a comparison with the table found it rather than the stream.';
comment on column walhook.pending.committed_at_tz is 'committed_at with its zone.';
comment on column walhook.pending.next_attempt_at_tz is 'next_attempt_at with its zone.';

create or replace view walhook.endpoint_health as
  select e.id as endpoint_id, walhook.display_url(e.url) as host, h.webhook_ids, e.failures, walhook.local_time(e.failing_since) as failing_since,
         walhook.local_time(e.not_before) as not_before, case when e.failures > 0 then e.last_error end as last_error, h.waiting, d.name as daemon,
         walhook.local_time(greatest(e.not_before, h.next_attempt_at)) as next_attempt_at,
         e.failing_since as failing_since_tz, e.not_before as not_before_tz, greatest(e.not_before, h.next_attempt_at) as next_attempt_at_tz
    from walhook.endpoint e
    join ( -- the queue is read once, however many endpoints there are
      select w.endpoint_id, array_agg(w.id order by w.id) as webhook_ids, coalesce(sum(p.waiting), 0)::bigint as waiting,
             min(p.next_attempt_at) as next_attempt_at
        from walhook.webhook w
        left join (select q.webhook_id, count(*) as waiting, min(q.next_attempt_at) as next_attempt_at from walhook.queue q group by q.webhook_id) p
               on p.webhook_id = w.id
       group by w.endpoint_id
    ) h on h.endpoint_id = e.id
    left join walhook.daemon d on d.id = e.owner;
comment on view walhook.endpoint_health is 'One row per URL that webhooks use, shown as scheme and host: whether it answers, and how many deliveries are pending. Times are in the time zone of walhook.settings.';
comment on column walhook.endpoint_health.endpoint_id is 'Distinguishes several URLs of one host.';
comment on column walhook.endpoint_health.host is 'Scheme and host of the URL.';
comment on column walhook.endpoint_health.webhook_ids is 'The webhooks that use it.';
comment on column walhook.endpoint_health.failures is 'Failed attempts in a row; 0 if the last one succeeded.';
comment on column walhook.endpoint_health.failing_since is 'When the first of them ended; NULL if the last attempt succeeded.';
comment on column walhook.endpoint_health.not_before is 'Nothing is sent there before this time.';
comment on column walhook.endpoint_health.last_error is 'Error of the last attempt; NULL if it succeeded.';
comment on column walhook.endpoint_health.waiting is 'Number of pending deliveries.';
comment on column walhook.endpoint_health.daemon is 'The daemon that sends to it, as host and process id; NULL if none does.';
comment on column walhook.endpoint_health.next_attempt_at is 'When the next retry is due; NULL if none is waiting.';
comment on column walhook.endpoint_health.failing_since_tz is 'failing_since with its zone.';
comment on column walhook.endpoint_health.not_before_tz is 'not_before with its zone.';
comment on column walhook.endpoint_health.next_attempt_at_tz is 'next_attempt_at with its zone.';
