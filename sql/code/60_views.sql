-- What people read.

do $$
begin
  execute format('create or replace view walhook.log_entry as select %1$s from walhook.log union all select %1$s from walhook.log_overflow',
                 walhook.shared_columns('walhook.log', 'walhook.log_overflow'));
end
$$;
comment on view walhook.log_entry is 'Internal: ended deliveries, including those that the log has not taken yet. Read walhook.delivery_log instead.';

-- The planner must be able to merge the indexes of queue and partitions in the order of a query. So no part of the union may have a join or a
-- condition, and columns that no query sorts or filters by are computed above it. walhook.time_indexes has the expressions of the others. The
-- difference webhook_id - 0 keeps the senders' statements away from these indexes.
create or replace view walhook.delivery_log as
  select d.delivery_id, d.webhook_id, walhook.local_time(d.ended_at) as delivered_at, d.response_id,
         walhook.event_name(d.event_type) as event_type, d.status, d.attempts, d.http_status, d.error, d.kind = 2 as test, d.kind = 1 as recovered,
         walhook.local_time(d.next_attempt_at) as next_attempt_at, d.redelivery_of,
         coalesce(d.message_id, walhook.message_id(d.kind, d.delivery_id, d.lsn, d.ordinal, d.event_type, d.webhook_id)) as message_id,
         d.ended_at as delivered_at_tz, d.next_attempt_at as next_attempt_at_tz
    from (
      select q.delivery_id, q.webhook_id - 0 as webhook_id, q.last_attempt_at as ended_at, q.response_id, q.event_type, text 'pending' as status, q.attempts,
             q.http_status, q.error, q.kind, q.next_attempt_at, q.redelivery_of, q.lsn, q.ordinal, q.message_id
        from walhook.queue q
      union all
      select l.delivery_id, l.webhook_id, l.finished_at, l.response_id, l.event_type, case when l.succeeded then 'success' else 'failed' end, l.attempts,
             l.http_status, l.error, l.kind, null, l.redelivery_of, l.lsn, l.ordinal, l.message_id
        from walhook.log_entry l
    ) d;
comment on view walhook.delivery_log is 'One row per delivery. A pending one will be tried or retried; success and failed are final.';
comment on column walhook.delivery_log.delivery_id is 'Id of the delivery, as test_webhook and redeliver return it. Ids jump by about a million after the store''s server crashes.';
comment on column walhook.delivery_log.webhook_id is 'The webhook that it belongs to.';
comment on column walhook.delivery_log.delivered_at is 'When the last attempt ended, whatever its result, in the time zone of walhook.settings; NULL before the first attempt.';
comment on column walhook.delivery_log.response_id is 'Primary key of the respondent row, as text.';
comment on column walhook.delivery_log.event_type is 'One of walhook.event_names(), such as response.completed.';
comment on column walhook.delivery_log.status is 'pending, success or failed.';
comment on column walhook.delivery_log.attempts is 'Number of attempts so far.';
comment on column walhook.delivery_log.http_status is 'HTTP status of the last attempt; NULL if there was no answer.';
comment on column walhook.delivery_log.error is 'Error of the last attempt; NULL after a success.';
comment on column walhook.delivery_log.test is 'Whether it is a test, queued by test_webhook.';
comment on column walhook.delivery_log.recovered is 'Whether a comparison with the table found it rather than the stream.';
comment on column walhook.delivery_log.next_attempt_at is 'When a pending delivery is due for a retry, in the same time zone; NULL: as soon as possible.';
comment on column walhook.delivery_log.redelivery_of is 'The delivery that it repeats, if it is a redelivery.';
comment on column walhook.delivery_log.message_id is 'The webhook-id header that the receiver saw. A redelivery has that of the first delivery.';
comment on column walhook.delivery_log.delivered_at_tz is 'delivered_at with its zone. Filter and sort by delivered_at, which has indexes.';
comment on column walhook.delivery_log.next_attempt_at_tz is 'next_attempt_at with its zone.';

create or replace view walhook.delivery_attempt as
  select a.delivery_id, a.attempt, walhook.local_time(a.attempted_at) as attempted_at, a.duration_ms, a.http_status, a.error, a.succeeded,
         a.attempted_at as attempted_at_tz
    from walhook.attempt a
  union all
  select a.delivery_id, a.attempt, walhook.local_time(a.attempted_at), a.duration_ms, a.http_status, a.error, a.succeeded,
         a.attempted_at
    from walhook.attempt_overflow a;
comment on view walhook.delivery_attempt is
  'One row per attempt that failed, and the one that succeeded where it followed a failure. Times are in the time zone of walhook.settings.';
comment on column walhook.delivery_attempt.delivery_id is 'The delivery, as in walhook.delivery_log.';
comment on column walhook.delivery_attempt.attempt is 'Number of the attempt, from 1.';
comment on column walhook.delivery_attempt.attempted_at is 'When it ended, in the time zone of walhook.settings.';
comment on column walhook.delivery_attempt.duration_ms is 'Milliseconds from connecting to the end of the answer.';
comment on column walhook.delivery_attempt.http_status is 'HTTP status; NULL if there was no answer.';
comment on column walhook.delivery_attempt.error is 'Error; NULL after a success.';
comment on column walhook.delivery_attempt.succeeded is 'Whether it succeeded.';
comment on column walhook.delivery_attempt.attempted_at_tz is 'attempted_at with its zone. Filter and sort by attempted_at, which has indexes.';

create or replace view walhook.incident as
  select i.at, i.kind, case when i.resolved_at is null then concat_ws('; ', i.detail, i.hindrance) else i.detail end as detail, i.resolved_at,
         i.id as incident_id
    from walhook.incident_log i;
comment on view walhook.incident is 'One row per gap in the stream, pause, takeover, comparison or disabled webhook.';
comment on column walhook.incident.at is 'When it was noticed.';
comment on column walhook.incident.kind is 'Kind of incident, such as slot_lost or webhook_disabled.';
comment on column walhook.incident.detail is 'What happened, in a sentence, and what to do if somebody must act.';
comment on column walhook.incident.resolved_at is 'When it ended; NULL while it lasts.';
comment on column walhook.incident.incident_id is 'Grows with each incident. Sort by it.';

create or replace view walhook.webhook_overview as
  select w.id, w.assessment_id, walhook.display_url(w.url) as host, w.event_type, w.organization_id, w.enabled, w.ordered, w.log_successes,
         w.secret is not null as signed, w.description, w.created_at, w.updated_at, w.disabled_at, w.disabled_reason,
         (select a.name from walhook.assessment a where a.assessment_id = w.assessment_id) as assessment_name
    from walhook.webhook w;
comment on view walhook.webhook_overview is 'The webhooks as viewers may see them: scheme and host instead of the URL, and no secret.';
comment on column walhook.webhook_overview.id is 'Id of the webhook.';
comment on column walhook.webhook_overview.assessment_id is 'The assessment that it is for. NULL: every assessment or, if an assessment table is mapped, every one that has an external id.';
comment on column walhook.webhook_overview.host is 'Scheme and host of its URL.';
comment on column walhook.webhook_overview.event_type is 'One of walhook.event_names(), such as response.completed.';
comment on column walhook.webhook_overview.organization_id is 'Matches only responses of this organization; NULL: of any.';
comment on column walhook.webhook_overview.enabled is 'Whether it matches new events and its deliveries are sent.';
comment on column walhook.webhook_overview.ordered is 'Whether deliveries about one response keep their order.';
comment on column walhook.webhook_overview.log_successes is 'Whether successful deliveries are kept in the log.';
comment on column walhook.webhook_overview.signed is 'Whether it has a signing secret.';
comment on column walhook.webhook_overview.description is 'Free text.';
comment on column walhook.webhook_overview.created_at is 'When it was created.';
comment on column walhook.webhook_overview.updated_at is 'When it was last changed.';
comment on column walhook.webhook_overview.disabled_at is 'When it was disabled; NULL while it is enabled.';
comment on column walhook.webhook_overview.disabled_reason is 'Who or what disabled it.';
comment on column walhook.webhook_overview.assessment_name is 'Name of that assessment; NULL if none is known.';

-- What the HTTP API reads and writes: what the API key in force may see. Without a key it is everything, with an unknown key nothing.
create or replace view walhook.visible_webhook with (security_barrier) as
  select w.*
    from walhook.webhook w
   where coalesce(current_setting('walhook.api_key', true), '') = ''
      or (select k.organization_id is null from walhook.api_credential k where k.id::text = current_setting('walhook.api_key', true))
      or w.organization_id = (select k.organization_id from walhook.api_credential k where k.id::text = current_setting('walhook.api_key', true));
comment on view walhook.visible_webhook is 'Internal: the webhooks that the API key in force may see; without a key, all.';

create or replace view walhook.visible_delivery as
  select d.*
    from walhook.delivery_log d
   where coalesce(current_setting('walhook.api_key', true), '') = ''
      or (select k.organization_id is null from walhook.api_credential k where k.id::text = current_setting('walhook.api_key', true))
      or d.webhook_id in (select v.id from walhook.visible_webhook v);
comment on view walhook.visible_delivery is 'Internal: the deliveries that the API key in force may see; without a key, all.';
