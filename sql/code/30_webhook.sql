-- What happens when administrators change settings and webhooks.

create or replace function walhook.check_settings() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.enabled is null then
    raise exception 'settings.enabled is either true or false'
      using errcode = 'not_null_violation', schema = 'walhook', table = 'settings', column = 'enabled',
            hint = 'UPDATE walhook.settings SET enabled = true;';
  end if;
  if new.time_zone is null or not exists (select from pg_timezone_names z where z.name = new.time_zone) then
    raise exception 'time zone "%" is not known to this server', new.time_zone
      using errcode = 'check_violation', schema = 'walhook', table = 'settings', column = 'time_zone',
            hint = 'Choose one of: SELECT name FROM pg_timezone_names ORDER BY name;';
  end if;
  if new.one is distinct from true or tg_op = 'INSERT' and exists (select from walhook.settings) then
    raise exception 'walhook.settings already has its only row'
      using errcode = 'unique_violation', schema = 'walhook', table = 'settings',
            hint = 'UPDATE it: UPDATE walhook.settings SET time_zone = ''Europe/Berlin'';';
  end if;
  return new;
end
$$;

-- Without the row nothing would be queued, silently.
create or replace function walhook.keep_settings() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'the settings cannot be deleted'
    using errcode = 'restrict_violation', schema = 'walhook', table = 'settings',
          hint = 'To stop all webhooks: UPDATE walhook.settings SET enabled = false;';
end
$$;

create or replace trigger settings_check before insert or update on walhook.settings
  for each row execute function walhook.check_settings();
create or replace trigger settings_keep before delete or truncate on walhook.settings
  for each statement execute function walhook.keep_settings();
-- The incident shows why nothing arrived. Administrators may not write incidents themselves, so this runs with the owner's rights.
create or replace function walhook.note_switch() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.enabled then
    update walhook.incident_log i set resolved_at = now() where i.kind = 'switched_off' and i.resolved_at is null;
  else
    insert into walhook.incident_log (kind, detail)
    values ('switched_off', format('webhooks were switched off by %s (walhook.settings): events that happen meanwhile are recorded and never sent', walhook.actor()));
    raise notice 'webhooks are switched off; pending deliveries that wait until they are switched on: %', walhook.count_pending()
      using hint = 'Events that happen until then are recorded and never sent.';
  end if;
  return null;
end
$$;

create or replace function walhook.change_time_zone() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform walhook.set_local_time(new.time_zone);
  return null;
end
$$;

create or replace trigger settings_time_zone after update on walhook.settings
  for each row when (old.time_zone <> new.time_zone) execute function walhook.change_time_zone();
create or replace trigger settings_switch after update on walhook.settings
  for each row when (old.enabled <> new.enabled) execute function walhook.note_switch();
create or replace trigger settings_wake after update on walhook.settings
  for each statement execute function walhook.wake();

-- Runs with the owner's rights, because administrators have none on endpoints and the queue.
create or replace function walhook.prepare_webhook() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  fault text;
  doubt text;
  known text;
  which record;
begin
  new.event_type := lower(btrim(new.event_type));
  new.url := btrim(new.url, E' \t\r\n');

  if new.event_type is not null and walhook.event_number(new.event_type) is null then
    raise exception 'event type "%" is not known', new.event_type
      using errcode = 'check_violation', constraint = 'webhook_event_type_known', schema = 'walhook', table = 'webhook', column = 'event_type',
            hint = format('Use %s; a webhook has one of them.', regexp_replace(array_to_string(walhook.event_names(), ', '), ', ([^,]*)$', ' or \1'));
  end if;
  -- Checked only when it changes: the daemon must be able to disable a webhook whose URL an earlier version accepted.
  fault := case when tg_op = 'INSERT' or new.url is distinct from old.url then walhook.url_fault(new.url) end;
  if fault is not null then
    raise exception 'webhook.url %', fault
      using errcode = 'check_violation', constraint = 'webhook_url_absolute', schema = 'walhook', table = 'webhook', column = 'url',
            hint = 'For example https://example.com/hooks/assessment; no blanks, at most 2048 characters.';
  end if;
  if tg_op = 'INSERT' or new.url is distinct from old.url then
    doubt := walhook.url_doubt(new.url);
    if doubt is not null then
      raise notice 'webhook.url %', doubt;
    end if;
  end if;
  if exists (
    select from unnest(array[new.secret, new.previous_secret]) as u (secret)
     where u.secret is not null and not (
       u.secret ~ '^whsec_([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$'
       and (length(u.secret) - 6) / 4 * 3 - (length(u.secret) - length(rtrim(u.secret, '='))) between 24 and 64)) then
    raise exception 'a signing secret must be whsec_ followed by base64 of 24 to 64 bytes'
      using errcode = 'check_violation', constraint = 'webhook_secret_well_formed', schema = 'walhook', table = 'webhook', column = 'secret',
            hint = 'SELECT walhook.new_secret(); returns one.';
  end if;
  if jsonb_typeof(new.headers) = 'null' then
    new.headers := null;
  end if;
  fault := case when tg_op = 'INSERT' or new.headers is distinct from old.headers then walhook.headers_fault(new.headers) end;
  if fault is not null then
    raise exception 'webhook.headers %', fault
      using errcode = 'check_violation', constraint = 'webhook_headers_allowed', schema = 'walhook', table = 'webhook', column = 'headers',
            hint = 'For example {"X-Api-Key": "..."}. walhook sets Host, User-Agent, Content-*, webhook-* and walhook-* itself.';
  end if;
  if new.previous_secret_until <= now() or new.secret is null then
    new.previous_secret := null;
    new.previous_secret_until := null;
  end if;
  if (new.previous_secret is null) <> (new.previous_secret_until is null) then
    raise exception 'previous_secret and previous_secret_until of a webhook belong together'
      using errcode = 'check_violation', schema = 'walhook', table = 'webhook', column = 'previous_secret',
            hint = 'SELECT walhook.rotate_secret(1, ''24 hours''); sets both.';
  end if;

  if not isfinite(new.previous_secret_until) or new.previous_secret_until > now() + interval '100 years' then
    raise exception 'previous_secret_until of a webhook must be a time within 100 years'
      using errcode = 'check_violation', schema = 'walhook', table = 'webhook', column = 'previous_secret_until',
            hint = 'SELECT walhook.rotate_secret(1, ''24 hours''); sets it. To keep a secret for ever, set it as the webhook''s secret.';
  end if;

  -- What the constraints and NOT NULL would refuse: their error repeats the whole row, URL and secret included.
  if new.id is null or tg_op = 'UPDATE' and new.id <> old.id then
    raise exception 'the id of a webhook is assigned by the server and never changes'
      using errcode = 'check_violation', schema = 'walhook', table = 'webhook', column = 'id',
            hint = 'Leave id out; RETURNING id returns it.';
  end if;
  if new.id not between 1 and 9007199254740991 then -- beyond it the server would soon run out of ids
    raise exception 'the id of a webhook must be between 1 and 9007199254740991'
      using errcode = 'check_violation', schema = 'walhook', table = 'webhook', column = 'id',
            hint = 'Leave id out; RETURNING id returns it.';
  end if;
  if new.enabled is null or new.ordered is null or new.log_successes is null then
    raise exception 'enabled, ordered and log_successes of a webhook are either true or false'
      using errcode = 'not_null_violation', schema = 'walhook', table = 'webhook', hint = 'Leave them out for true.';
  end if;
  new.created_at := coalesce(new.created_at, now());
  new.updated_at := coalesce(new.updated_at, now());
  if new.url is null or new.event_type is null then
    raise exception 'a webhook needs a url and an event_type'
      using errcode = 'not_null_violation', schema = 'walhook', table = 'webhook',
            hint = 'INSERT INTO walhook.webhook (url, event_type) VALUES (''https://example.com/hook'', ''response.completed'');';
  end if;
  if new.assessment_id = '' or new.organization_id = '' then
    raise exception 'assessment_id and organization_id of a webhook must not be empty'
      using errcode = 'check_violation', schema = 'walhook', table = 'webhook', hint = 'Use NULL for every one.';
  end if;
  for which in
    select c.* from (values
      ('assessment', 'assessment_id', new.assessment_id, case tg_op when 'UPDATE' then old.assessment_id end),
      ('organization', 'organization_id', new.organization_id, case tg_op when 'UPDATE' then old.organization_id end)
    ) as c (role, name, id, before) where c.id is not null
  loop
    known := case which.role when 'organization' then walhook.organization_id(which.id) else walhook.column_id(which.role, which.id) end;
    if known is null and which.id is distinct from which.before then
      raise exception '% "%" of a webhook cannot be an id of the % table, whose column for it is of type %', which.name, which.id,
        (select case when a.column_types ? which.role then 'respondent' else 'assessment' end from walhook.attachment a),
        (select format_type((t.type ->> 'oid')::oid, (t.type ->> 'modifier')::integer)
           from walhook.attachment a, coalesce(a.column_types -> which.role, a.column_types -> 'assessment_organization') t (type))
        using errcode = 'check_violation', schema = 'walhook', table = 'webhook', column = which.name,
              hint = 'Write the id as in the table, or NULL for every one.';
    end if;
    if which.role = 'assessment' then
      new.assessment_id := coalesce(known, which.id);
    else
      new.organization_id := coalesce(known, which.id);
    end if;
  end loop;

  -- The server must not assign again an id that somebody set.
  if tg_op = 'INSERT' and (select new.id > q.last_value or not q.is_called from walhook.webhook_id_seq q) then
    perform setval('walhook.webhook_id_seq', new.id);
  end if;

  if tg_op = 'UPDATE' then
    new.updated_at := now();
    if new.enabled and not old.enabled then
      new.disabled_at := null;
      new.disabled_reason := null;
      -- The endpoint's failures no longer count (ClaimEndpoints); its row stays unlocked, since others need it.
    end if;
    new.activation := old.activation;
    new.api_key_id := old.api_key_id;
  end if;
  if not new.enabled and (tg_op = 'INSERT' or old.enabled) then
    new.disabled_at := coalesce(new.disabled_at, now());
    new.disabled_reason := coalesce(new.disabled_reason, 'disabled by ' || walhook.actor());
  end if;

  if tg_op = 'INSERT' then
    new.activation := nextval('walhook.activation');
  elsif new.url <> old.url or new.enabled and not old.enabled then
    -- Earlier failures no longer count against the webhook, and pending deliveries no longer wait because of them.
    new.activation := nextval('walhook.activation');
    update walhook.queue q set next_attempt_at = now() where q.webhook_id = new.id and q.next_attempt_at > now();
  end if;

  if new.url is not null and (tg_op = 'INSERT' or new.url <> old.url or new.endpoint_id is distinct from old.endpoint_id) then
    -- Senders update the row, and must not wait for this transaction.
    loop
      select e.id into new.endpoint_id from walhook.endpoint e where e.url_hash = sha256(convert_to(new.url, 'UTF8')) for key share;
      exit when found;
      insert into walhook.endpoint (url, url_hash) values (new.url, sha256(convert_to(new.url, 'UTF8'))) on conflict (url_hash) do nothing;
    end loop;
    if tg_op = 'UPDATE' and new.endpoint_id <> old.endpoint_id then
      -- Nothing is sent to the new URL while attempts at the old one are in flight.
      delete from walhook.webhook_move m where m.webhook_id = new.id and m.endpoint_id = new.endpoint_id;
      insert into walhook.webhook_move (webhook_id, endpoint_id) values (new.id, old.endpoint_id) on conflict do nothing;
    end if;
  end if;
  return new;
end
$$;

create or replace trigger webhook_prepare before insert or update on walhook.webhook
  for each row execute function walhook.prepare_webhook();
create or replace trigger webhook_wake after insert or update or delete on walhook.webhook
  for each statement execute function walhook.wake();

-- Pending deliveries of deleted webhooks end as failed, so that the log has them. Most webhooks have none. The order has only the index that
-- finds those of a webhook: where few webhooks have the queue, the planner would read all that is due by another one.
create or replace function walhook.bury_webhook() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  ended bigint;
begin
  select sum(walhook.bury(g.id)) into ended
    from gone g
   where exists (select from walhook.queue q where q.webhook_id = g.id and q.next_attempt_at is null)
      or (select true from walhook.queue q where q.webhook_id = g.id and q.next_attempt_at is not null order by q.kind, q.next_attempt_at limit 1);
  delete from walhook.webhook_move m using gone g where m.webhook_id = g.id;
  if ended > 0 then
    raise notice 'pending deliveries of deleted webhooks ended as failed: %', ended
      using hint = 'The log has them, with the error "the webhook was deleted". They cannot be redelivered.';
  end if;
  return null;
end
$$;

create or replace function walhook.bury(webhook_id bigint) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  if exists (select from walhook.webhook w where w.id = bury.webhook_id) then
    return 0;
  end if;
  return walhook.fail_pending(format('q.webhook_id = %s', webhook_id), 'the webhook was deleted');
end
$$;
comment on function walhook.bury(bigint) is 'Internal: ends the pending deliveries of a deleted webhook as failed, and returns how many.';

-- Counting stops where it would take long: an edit must not read a queue of millions.
create or replace function walhook.count_pending(webhook_ids bigint[] default null) returns text
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- whoever has most of the queue, others have little
as $$
  select case when count(*) > 10000 then 'more than 10000' else count(*)::text end
    from ((select from walhook.queue q where webhook_ids is null limit 10001)
          union all (select from unnest(webhook_ids) w (id) cross join lateral (
            (select from walhook.queue q where q.webhook_id = w.id and q.next_attempt_at is null order by q.delivery_id + 0 limit 10001)
            union all
            (select from walhook.queue q where q.webhook_id = w.id and q.next_attempt_at is not null order by q.kind, q.next_attempt_at limit 10001)) q limit 10001)) p
$$;
comment on function walhook.count_pending(bigint[]) is 'Internal: the number of pending deliveries, of some webhooks or of all, for a notice.';

create or replace function walhook.announce_disabled() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  ids bigint[] := array(select n.id from after n join before o on o.id = n.id where o.enabled and not n.enabled order by n.id);
begin
  if ids <> '{}' then
    raise notice 'webhooks disabled: %; pending deliveries that wait until they are enabled: %', cardinality(ids), walhook.count_pending(ids)
      using hint = 'Events that happen until then are never sent to them.';
  end if;
  return null;
end
$$;
create or replace trigger webhook_announce after update on walhook.webhook
  referencing old table as before new table as after for each statement execute function walhook.announce_disabled();

create or replace function walhook.fail_pending(condition text, reason text) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  target text;
  failed bigint;
begin
  foreach target in array array['walhook.log', 'walhook.log_overflow'] loop
    begin
      if target = 'walhook.log' then
        perform walhook.ensure_partitions(); -- no daemon may have run for months
      end if;
      execute format('
        with gone as (delete from walhook.queue q where %s returning q.*)
        insert into %s (%s, finished_at, succeeded, error) select %3$s, now(), false, %L from gone g',
        condition, target, walhook.shared_columns('walhook.queue', target::regclass, '{error}'), reason);
      get diagnostics failed = row_count;
      return failed;
    exception
      when others then -- a log that refuses rows must not keep an administrator from deleting a webhook
        if target = 'walhook.log_overflow' then
          raise;
        end if;
    end;
  end loop;
end
$$;
comment on function walhook.fail_pending(text, text) is 'Internal: ends what is pending under a condition on q as failed, and returns how many.';

create or replace function walhook.log_truncated() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  failed bigint := walhook.fail_pending('true', 'walhook.queue was truncated');
begin
  insert into walhook.incident_log (kind, detail, resolved_at)
  select 'queue_truncated', format('role %s truncated walhook.queue: %s pending deliveries have failed with that reason, and walhook.redeliver_failed queues them again; '
                                   'attempts in flight may have succeeded', session_user, failed), now()
   where failed > 0;
  if failed > 0 then
    raise notice 'pending deliveries that ended as failed: %', failed using hint = 'walhook.redeliver_failed queues them again.';
  end if;
  perform pg_notify('walhook_queued', 'truncated');
  return null;
end
$$;
comment on function walhook.log_truncated() is 'Internal: fails what was pending, in the log, and notifies the daemons.';
create or replace trigger queue_truncated before truncate on walhook.queue for each statement execute function walhook.log_truncated();

create or replace trigger webhook_bury after delete on walhook.webhook
  referencing old table as gone for each statement execute function walhook.bury_webhook();

-- Deletes URLs that no webhook has, because they may carry tokens, and returns how many. It skips a row that another transaction is about to
-- use. No webhook can start to use a row that is locked here (prepare_webhook), so the second statement's check holds.
create or replace function walhook.forget_endpoints(at_most integer default 1000) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  unused    bigint[];
  forgotten bigint;
begin
  unused := array(
    select e.id from walhook.endpoint e
     where not exists (select from walhook.webhook w where w.endpoint_id = e.id)
       and not exists (select from walhook.webhook_move m where m.endpoint_id = e.id)
       and not exists (select from walhook.daemon d where d.id = e.owner)
     limit at_most for update skip locked);
  delete from walhook.endpoint e
   where e.id = any(unused)
     and not exists (select from walhook.webhook w where w.endpoint_id = e.id)
     and not exists (select from walhook.webhook_move m where m.endpoint_id = e.id)
     and not exists (select from walhook.daemon d where d.id = e.owner);
  get diagnostics forgotten = row_count;
  return forgotten;
end
$$;
comment on function walhook.forget_endpoints(integer) is 'Internal: deletes URLs that no webhook uses and nobody sends to.';

create or replace function walhook.new_secret() returns text
language sql volatile
set search_path = pg_catalog, pg_temp
as $$ select 'whsec_' || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64') $$;
comment on function walhook.new_secret() is 'Returns a new random signing secret, as in Standard Webhooks.';

create or replace function walhook.rotate_secret(webhook_id bigint, keep interval default interval '24 hours') returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  fresh text := walhook.new_secret();
  hook  walhook.webhook;
begin
  if keep is null or keep not between interval '0' and interval '100 years' then
    raise exception 'the old secret cannot be kept for %', keep
      using errcode = 'invalid_parameter_value', hint = 'For example SELECT walhook.rotate_secret(1, ''24 hours'');';
  end if;
  select * into hook from walhook.webhook w where w.id = rotate_secret.webhook_id for update;
  if not found then
    raise exception 'there is no webhook %', rotate_secret.webhook_id
      using errcode = 'no_data_found', hint = 'See SELECT id, event_type, url FROM walhook.webhook;';
  end if;
  perform walhook.check_api_key('{webhooks, admin}', hook.organization_id, format('there is no webhook %s', hook.id));
  if hook.previous_secret_until > now() then
    raise notice 'webhook % was already being rotated: the secret before the last one expires now', hook.id;
  end if;
  update walhook.webhook w
     set secret = fresh,
         previous_secret = case when keep > interval '0' then hook.secret end,
         previous_secret_until = case when keep > interval '0' and hook.secret is not null then now() + keep end
   where w.id = hook.id;
  return fresh;
end
$$;
comment on function walhook.rotate_secret(bigint, interval) is
  'Gives the webhook a new signing secret and returns it. For the given time messages are signed with both secrets, so that the receiver can switch over.';
