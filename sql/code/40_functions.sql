-- What administrators call.

create or replace function walhook.known_webhook(webhook_id bigint) returns walhook.webhook
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  hook walhook.webhook;
begin
  select * into hook from walhook.webhook w where w.id = known_webhook.webhook_id;
  if not found then
    raise exception 'there is no webhook %', known_webhook.webhook_id
      using errcode = 'no_data_found', hint = 'See SELECT id, event_type, url FROM walhook.webhook;';
  end if;
  perform walhook.check_api_key('{webhooks, admin}', hook.organization_id, format('there is no webhook %s', hook.id));
  return hook;
end
$$;
comment on function walhook.known_webhook(bigint) is 'Internal: the webhook, or the error that there is none, or none that the API key in force may write.';

create or replace function walhook.tell_what_waits(hook walhook.webhook, test boolean) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not (select s.enabled from walhook.settings s) then
    raise notice 'webhooks are switched off: this stays pending until UPDATE walhook.settings SET enabled = true';
  elsif not hook.enabled and not test then
    raise notice 'webhook % is disabled: this stays pending until UPDATE walhook.webhook SET enabled = true WHERE id = %', hook.id, hook.id;
  end if;
end
$$;
comment on function walhook.tell_what_waits(walhook.webhook, boolean) is 'Internal: says why what was queued is not sent yet.';

create or replace function walhook.test_webhook(webhook_id bigint, response_id text default null) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  hook   walhook.webhook := walhook.known_webhook(webhook_id);
  about  text := walhook.column_id('key', test_webhook.response_id);
  queued bigint;
begin
  if test_webhook.response_id is null then
    select n.response_id into about from walhook.newest_responses(hook.assessment_id, hook.organization_id, null, 1) n;
    if about is null then
      raise exception 'no respondent matches webhook % yet', hook.id
        using errcode = 'no_data_found', column = 'response_id',
              hint = format('Name a response yourself: SELECT walhook.test_webhook(%s, ''12345'');', hook.id);
    end if;
  elsif exists (select from walhook.attachment a where a.numeric_id)
        and coalesce(about, test_webhook.response_id) !~ '^(0|-?[1-9][0-9]*)$' then
    raise exception 'response id "%" is not an integer, and the key of the respondent table is', test_webhook.response_id
      using errcode = 'invalid_parameter_value', hint = 'Pass the key as in the table, for example ''12345''.';
  elsif about is null or about ~ '^-?[0-9]{20,}$' and exists (select from walhook.attachment a where a.numeric_id) then
    raise exception 'response id "%" cannot be a key of the respondent table: its column has no such value', test_webhook.response_id
      using errcode = 'invalid_parameter_value', hint = 'Pass the key as in the table, for example ''12345''.';
  end if;

  if not exists (select from walhook.response_state s where s.response_id = about and not walhook.has_flag(s.flags, 'excluded')) then
    raise notice 'no response % is recorded: the test is sent anyway', about;
  end if;
  perform walhook.tell_what_waits(hook, true);
  insert into walhook.queue as q (webhook_id, committed_at, next_attempt_at, event_type, kind, response_id)
  values (hook.id, now(), now(), walhook.event_number(hook.event_type), 2, about)
  returning q.delivery_id into queued;
  perform pg_notify('walhook', '');
  return queued;
end
$$;
comment on function walhook.test_webhook(bigint, text) is
  'Queues a test delivery of the webhook''s event type and returns its id. It is sent even if the webhook is disabled or would not match, and '
  'is marked as a test in the log. Without a response id it uses the newest response that the webhook matches.';

create or replace function walhook.redeliver(delivery_id bigint) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  pending walhook.queue;
  old     record;
  hook    walhook.webhook;
  queued  bigint;
begin
  update walhook.queue q set next_attempt_at = now()
   where q.delivery_id = redeliver.delivery_id and q.next_attempt_at is not null;
  select * into pending from walhook.queue q where q.delivery_id = redeliver.delivery_id;
  if found then
    select * into hook from walhook.webhook w where w.id = pending.webhook_id;
    perform walhook.check_api_key('{webhooks, admin}', hook.organization_id, format('there is no delivery %s', redeliver.delivery_id));
    perform walhook.tell_what_waits(hook, pending.kind = 2);
    perform pg_notify('walhook', '');
    return redeliver.delivery_id;
  end if;

  select * into old from walhook.log_entry l where l.delivery_id = redeliver.delivery_id;
  if not found then
    raise exception 'there is no delivery %', redeliver.delivery_id
      using errcode = 'no_data_found', hint = 'See SELECT * FROM walhook.delivery_log; old entries may have been dropped.';
  end if;
  select * into hook from walhook.webhook w where w.id = old.webhook_id;
  perform walhook.check_api_key('{webhooks, admin}', hook.organization_id, format('there is no delivery %s', redeliver.delivery_id));
  if hook.id is null then
    raise exception 'webhook % of delivery % was deleted', old.webhook_id, redeliver.delivery_id
      using errcode = 'no_data_found', column = 'webhook_id', hint = 'Create a new webhook. Deliveries of the deleted one cannot be sent through it.';
  end if;

  perform walhook.tell_what_waits(hook, old.kind = 2);
  insert into walhook.queue as q (webhook_id, lsn, ordinal, committed_at, next_attempt_at, redelivery_of, event_type, kind, response_id, message_id)
  values (old.webhook_id, old.lsn, old.ordinal, old.committed_at, now(), coalesce(old.redelivery_of, old.delivery_id),
          old.event_type, case old.kind when 2 then 2 else 3 end, old.response_id,
          coalesce(old.message_id, walhook.message_id(case old.kind when 2 then 2 else 0 end::smallint, coalesce(old.redelivery_of, old.delivery_id),
                                                      old.lsn, old.ordinal, old.event_type, old.webhook_id)))
  returning q.delivery_id into queued;
  perform pg_notify('walhook', '');
  return queued;
end
$$;
comment on function walhook.redeliver(bigint) is
  'Sends an ended delivery again, as a new delivery with the webhook-id of the first, and returns the new delivery''s id. A pending delivery becomes '
  'due now and keeps its id.';

create or replace function walhook.retry_now(webhook_id bigint) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  hook walhook.webhook := walhook.known_webhook(webhook_id);
  due  bigint;
begin
  update walhook.queue q set next_attempt_at = now() where q.webhook_id = retry_now.webhook_id and q.next_attempt_at > now();
  get diagnostics due = row_count;
  if exists (select from walhook.queue q where q.webhook_id = retry_now.webhook_id) then
    perform walhook.tell_what_waits(hook, false);
  end if;
  perform pg_notify('walhook', '');
  return due;
end
$$;
comment on function walhook.retry_now(bigint) is
  'Makes every delivery of the webhook that awaits a retry due now, and returns how many. Use it when a receiver works again. Earlier attempts still count.';

create or replace function walhook.redeliver_failed(webhook_id bigint, since timestamptz) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  if since is null then
    raise exception 'redeliver_failed needs a time to start from'
      using errcode = 'null_value_not_allowed', hint = 'SELECT walhook.redeliver_failed(1, now() - interval ''1 day'');';
  end if;
  perform walhook.known_webhook(webhook_id);
  return walhook.redeliver_matching(webhook_id => redeliver_failed.webhook_id, since => redeliver_failed.since);
end
$$;
comment on function walhook.redeliver_failed(bigint, timestamptz) is
  'Sends every delivery of the webhook again that has failed since the given time, and returns how many. Tests, and deliveries whose '
  'redelivery has succeeded or is pending, are left out.';

create or replace function walhook.duplicate_webhooks(from_assessment text, to_assessment text) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  copied integer;
begin
  insert into walhook.webhook (assessment_id, url, event_type, organization_id, enabled, ordered, log_successes, secret, previous_secret,
                               previous_secret_until, headers, description, disabled_at, disabled_reason, api_key_id)
  select to_assessment, w.url, w.event_type, w.organization_id, w.enabled, w.ordered, w.log_successes, w.secret, w.previous_secret,
         w.previous_secret_until, w.headers, w.description, w.disabled_at, w.disabled_reason, w.api_key_id
    from walhook.webhook w
   where w.assessment_id = from_assessment
     and not exists (
       select from walhook.webhook t
        where t.assessment_id = to_assessment and t.url = w.url and t.event_type = w.event_type
          and t.organization_id is not distinct from w.organization_id)
   order by w.id;
  get diagnostics copied = row_count;
  return copied;
end
$$;
comment on function walhook.duplicate_webhooks(text, text) is
  'Internal: copies an assessment''s webhooks to another and leaves out those that it has already.';

-- The stream calls it for an assessment that was copied. It must not fail on an unknown assessment, nor wait for the open transaction of an
-- administrator who copies the same one: walhook.drop_double deletes their copies when they commit, under the lock that is taken here.
create or replace function walhook.inherit_webhooks(from_assessment text, to_assessment text) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  for try in 1 .. 20 loop -- others hold it only while they commit, unless they SET CONSTRAINTS early
    exit when pg_try_advisory_xact_lock(hashtextextended('walhook.copying', 0));
    perform pg_sleep(0.05);
  end loop;
  return walhook.duplicate_webhooks(from_assessment, to_assessment);
end
$$;
comment on function walhook.inherit_webhooks(text, text) is
  'Internal: gives an assessment that was copied the webhooks of its original.';

-- Deletes a copy made by hand if the stream has created the same one since the transaction began.
create or replace function walhook.drop_double() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('walhook.copying', 0));
  delete from walhook.webhook w
   where w.id = new.id
     and exists (
       select from walhook.webhook t
        where t.assessment_id = w.assessment_id and t.url = w.url and t.event_type = w.event_type
          and t.organization_id is not distinct from w.organization_id and t.created_at <> now());
  return null;
end
$$;

do $$
begin
  if not exists (select from pg_trigger t where t.tgrelid = 'walhook.webhook'::regclass and t.tgname = 'webhook_double') then
    create constraint trigger webhook_double after insert on walhook.webhook deferrable initially deferred
      for each row when (current_setting('walhook.copying', true) = 'on') execute function walhook.drop_double();
  end if;
end
$$;

create or replace function walhook.copy_webhooks(from_assessment text, to_assessment text) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  mapped boolean := coalesce((select a.assessment_oid <> 0 from walhook.attachment a), false);
  copied integer;
begin
  -- What cannot be an id is treated as an unknown one.
  from_assessment := coalesce(walhook.column_id('assessment', from_assessment), from_assessment);
  to_assessment := coalesce(walhook.column_id('assessment', to_assessment), to_assessment);
  if from_assessment is null or to_assessment is null or from_assessment = '' or to_assessment = '' then
    raise exception 'copy_webhooks needs two assessments'
      using errcode = 'null_value_not_allowed', hint = 'SELECT walhook.copy_webhooks(''17'', ''18'');';
  end if;
  perform walhook.check_api_key('{webhooks, admin}', null, 'webhooks cannot be copied with an API key of one organization');
  -- Where no assessment table is mapped, any text may be an assessment.
  if mapped and not exists (select from walhook.assessment a where a.assessment_id = from_assessment)
     and not exists (select from walhook.webhook w where w.assessment_id = from_assessment) then
    raise exception 'there is no assessment "%", and no webhook for it', from_assessment
      using errcode = 'no_data_found', hint = 'See SELECT DISTINCT assessment_id FROM walhook.webhook;';
  end if;
  if mapped and not exists (select from walhook.assessment a where a.assessment_id = to_assessment) then
    raise notice 'there is no assessment "%" yet: its webhooks match once there is', to_assessment;
  end if;
  -- Concurrent calls would not see each other's copies, and would duplicate them.
  perform pg_advisory_xact_lock(hashtextextended('walhook.copy_webhooks ' || to_assessment, 0));
  perform set_config('walhook.copying', 'on', true);
  copied := walhook.duplicate_webhooks(from_assessment, to_assessment);
  perform set_config('walhook.copying', 'off', true);
  -- The incident of the assessment to which the stream could not copy them.
  update walhook.incident_log i set resolved_at = clock_timestamp()
   where i.kind = 'set_aside' and i.resolved_at is null and position(format('walhook.copy_webhooks(%L, %L)', from_assessment, to_assessment) in i.detail) > 0;
  return copied;
end
$$;
comment on function walhook.copy_webhooks(text, text) is
  'Copies the webhooks of the first assessment to the second, except those that it already has, and returns how many were copied.';
