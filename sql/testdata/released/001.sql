-- A store as walhook left it at schema version 1, with something in every table: made by pg_dump --inserts after an attach, a run
-- with retries, a test delivery and a gap, and kill -9. Not to be changed.

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE SCHEMA walhook;

CREATE FUNCTION walhook.advance(from_turn bigint, to_lsn pg_lsn, to_partial_lsn pg_lsn, to_partial_changes bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  delete from walhook.position p where p.turn = from_turn;
  if not found then
    raise exception 'the stored position is no longer that of turn %', from_turn
      using errcode = 'WH001', hint = 'Another daemon advanced it; this one starts over from the stored position.';
  end if;
  insert into walhook.position (turn, lsn, partial_lsn, partial_changes) values (from_turn + 1, to_lsn, to_partial_lsn, to_partial_changes);
end
$$;

CREATE FUNCTION walhook.bury(webhook_id bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
  if exists (select from walhook.webhook w where w.id = bury.webhook_id) then
    return;
  end if;
  perform walhook.ensure_partitions(); -- no daemon may have run for months
  with gone as (delete from walhook.queue q where q.webhook_id = bury.webhook_id returning q.*)
  insert into walhook.log (delivery_id, webhook_id, lsn, ordinal, committed_at, finished_at, redelivery_of, attempts,
                           http_status, event_type, kind, succeeded, response_id, error)
  select g.delivery_id, g.webhook_id, g.lsn, g.ordinal, g.committed_at, now(), g.redelivery_of, g.attempts,
         g.http_status, g.event_type, g.kind, false, g.response_id, 'the webhook was deleted'
  from gone g;
end
$$;

CREATE FUNCTION walhook.bury_webhook() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform walhook.bury(old.id);
  delete from walhook.webhook_trouble t where t.webhook_id = old.id;
  return null;
end
$$;

CREATE FUNCTION walhook.check_settings() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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
    raise exception 'walhook has one row of settings, and it is there'
      using errcode = 'unique_violation', schema = 'walhook', table = 'settings',
            hint = 'Change it: UPDATE walhook.settings SET time_zone = ''Europe/Berlin'';';
  end if;
  return new;
end
$$;

CREATE FUNCTION walhook.copy_webhooks(from_assessment text, to_assessment text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  mapped boolean := coalesce((select a.assessment_oid <> 0 from walhook.attachment a), false);
begin
  if from_assessment is null or to_assessment is null or from_assessment = '' or to_assessment = '' then
    raise exception 'copy_webhooks needs two assessments'
      using errcode = 'null_value_not_allowed', hint = 'SELECT walhook.copy_webhooks(''17'', ''18'');';
  end if;
  -- Where no assessment table is mapped, any text may be an assessment.
  if mapped and not exists (select from walhook.assessment a where a.assessment_id = from_assessment)
     and not exists (select from walhook.webhook w where w.assessment_id = from_assessment) then
    raise exception 'there is no assessment "%", and no webhook for it', from_assessment
      using errcode = 'no_data_found', hint = 'See SELECT DISTINCT assessment_id FROM walhook.webhook;';
  end if;
  if mapped and not exists (select from walhook.assessment a where a.assessment_id = to_assessment) then
    raise notice 'there is no assessment "%" yet: its webhooks match once there is', to_assessment;
  end if;
  return walhook.inherit_webhooks(from_assessment, to_assessment);
end
$$;

CREATE FUNCTION walhook.cut_partitions(parent regclass, unit text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET lock_timeout TO '2s'
    AS $$
declare
  step  interval := case unit when '10 seconds' then unit else '1 ' || unit end;
  next  timestamptz := walhook.partition_begin(unit, now()) + step;
  p     record;
  empty boolean;
begin
  for p in select * from walhook.partitions_of(parent) q where q.upper > next and q.upper > q.lower + step order by q.lower desc loop
    execute format('select not exists (select from %s)', p.part) into empty;
    if empty and p.lower >= next then
      execute format('drop table %s', p.part);
    elsif p.lower < next then
      execute format('alter table %s detach partition %s', parent, p.part);
      execute format('alter table %s attach partition %s for values from (%L) to (%L)', parent, p.part, p.lower, next);
    end if;
  end loop;
exception
  when lock_not_available or check_violation then
    null; -- somebody reads the log for long, or a clock went back: the partitions stay as they are until the next time
end
$$;

CREATE FUNCTION walhook.display_url(url text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (lower("substring"(url, '^([A-Za-z]+://)'::text)) || "substring"(url, '^[A-Za-z]+://(?:[^/?#]*@)?([^/?#@]*)'::text));

CREATE FUNCTION walhook.drop_partitions(older_than interval) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET lock_timeout TO '2s'
    AS $$
declare
  p       record;
  waiting bigint[];
  held    text;
  reason  text;
  dropped integer := 0;
begin
  if older_than is null or older_than <= interval '0' then
    raise exception 'drop_partitions needs a positive age'
      using errcode = 'invalid_parameter_value', hint = 'For example interval ''90 days''.';
  end if;
  lock table walhook.incident_log in share update exclusive mode; -- one session at a time
  for p in
    select q.part, q.upper, parent.parent from unnest(array['walhook.attempt'::regclass, 'walhook.log'::regclass]) as parent (parent)
     cross join lateral walhook.partitions_of(parent.parent) q
     where q.upper <= now() - older_than
     order by q.upper
  loop
    if p.parent = 'walhook.attempt'::regclass then
      execute format('select array_agg(distinct q.webhook_id) from walhook.queue q where q.attempts > 0 and exists (select from %s a where a.delivery_id = q.delivery_id)', p.part)
        into waiting;
      if waiting is not null then
        select string_agg(w.id::text, ', ' order by w.id) into held from walhook.webhook w where w.id = any(waiting) and not w.enabled;
        if held is not null then
          reason := format('they are attempts of deliveries that wait for disabled webhooks (%s); enable or delete these', held);
        end if;
        continue;
      end if;
    end if;
    begin
      execute format('drop table %s', p.part);
      dropped := dropped + 1;
    exception
      when lock_not_available then
        -- The next look may find it free. What is long overdue by then is an incident.
        if p.upper <= now() - older_than - interval '1 hour' then
          reason := 'somebody has been reading the log in one long transaction; end it (pg_stat_activity tells whose)';
        end if;
        exit;
    end;
  end loop;
  if reason is null then
    update walhook.incident_log i set resolved_at = now() where i.kind = 'retention' and i.resolved_at is null;
  elsif not exists (select from walhook.incident_log i where i.kind = 'retention' and i.resolved_at is null) then
    insert into walhook.incident_log (kind, detail)
    values ('retention', format('log entries older than %s could not be dropped: %s', older_than, reason));
  end if;
  return dropped;
end
$$;

CREATE FUNCTION walhook.ensure_partitions(unit text DEFAULT NULL::text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
declare
  parent regclass;
  bound  timestamptz;
  upper  timestamptz;
  step   interval;
  made   integer := 0;
begin
  if unit is null then
    if (select count(*) = 2 from pg_inherits i cross join lateral walhook.partitions_of(i.inhparent) q
         where i.inhparent in ('walhook.log'::regclass, 'walhook.attempt'::regclass)
           and q.part = i.inhrelid and q.lower <= now() and q.upper > now()) then
      return 0;
    end if;
    unit := 'month';
  elsif unit not in ('10 seconds', 'minute', 'hour', 'day', 'month') then
    raise exception 'partitions by "%" are not supported', unit using hint = 'Use 10 seconds, minute, hour, day or month.';
  end if;
  step := case unit when '10 seconds' then unit else '1 ' || unit end;
  lock table walhook.incident_log in share update exclusive mode; -- one session at a time
  foreach parent in array array['walhook.attempt'::regclass, 'walhook.log'::regclass] loop
    perform walhook.cut_partitions(parent, unit);
    select max(q.upper) into bound from walhook.partitions_of(parent) q;
    bound := coalesce(bound, walhook.partition_begin(unit, now()) - step);
    -- After a long rest one partition holds the time in between: results of that time may still be on their way.
    if bound < walhook.partition_begin(unit, now()) then
      perform walhook.make_partition(parent, bound, walhook.partition_begin(unit, now()));
      made := made + 1;
      bound := walhook.partition_begin(unit, now());
    end if;
    -- Short ones are made further ahead, so that a busy store may miss a few looks.
    while bound <= now() + greatest(3 * step, least(12 * step, interval '1 hour')) loop
      -- The first one of a new, coarser unit runs up to that unit's next boundary.
      upper := walhook.partition_begin(unit, bound) + step;
      perform walhook.make_partition(parent, bound, upper);
      made := made + 1;
      bound := upper;
    end loop;
  end loop;
  return made;
end
$$;

CREATE FUNCTION walhook.event_name(event_type smallint) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE event_type WHEN 1 THEN 'response.created'::text WHEN 2 THEN 'response.started'::text WHEN 3 THEN 'response.completed'::text WHEN 4 THEN 'response.changed'::text ELSE NULL::text END;

CREATE FUNCTION walhook.event_number(event_type text) RETURNS smallint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE event_type WHEN 'response.created'::text THEN 1 WHEN 'response.started'::text THEN 2 WHEN 'response.completed'::text THEN 3 WHEN 'response.changed'::text THEN 4 ELSE NULL::integer END;

CREATE FUNCTION walhook.explain(response_id text) RETURNS TABLE(event_type text, happened text, webhook_id bigint, host text, matched boolean, reason text, delivery_id bigint, status text, attempts integer, error text, next_attempt_at timestamp without time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  with about as (
    select r from walhook.response_state r where r.response_id = $1
  ), delivered as ( -- the last delivery of each event and webhook, tests left out
    select distinct on (l.event_type, l.webhook_id) l.*
      from walhook.delivery_log l
     where l.response_id = $1 and not l.test
     order by l.event_type, l.webhook_id, l.delivery_id desc
  )
  select e.name, case when d.delivery_id is not null then 'yes' else t.happened end, coalesce(w.id, d.webhook_id), walhook.display_url(w.url),
         case when coalesce(w.id, d.webhook_id) is not null then d.delivery_id is not null end,
         case
           when d.status = 'success' then 'delivered'
           when d.status = 'failed' then format('given up after %s %s', d.attempts, case d.attempts when 1 then 'attempt' else 'attempts' end)
           when d.status = 'pending' then 'waits: ' || (select p.waits_for from walhook.pending p where p.delivery_id = d.delivery_id)
           when t.misfit is not null then t.misfit
           when w.id is null then format('there is no webhook for %s', e.name)
           else walhook.mismatch(w, a.r, t.event_type)
         end,
         d.delivery_id, d.status, d.attempts, d.error, d.next_attempt_at
    from walhook.story($1) t
   cross join lateral (select walhook.event_name(t.event_type) as name) e
    left join about a on true
    left join (walhook.webhook w full join delivered d on d.webhook_id = w.id and d.event_type = w.event_type)
           on coalesce(d.event_type, w.event_type) = e.name
   order by t.event_type, d.delivery_id is null, coalesce(w.id, d.webhook_id)
$_$;

CREATE FUNCTION walhook.inherit_webhooks(from_assessment text, to_assessment text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  copied integer;
begin
  insert into walhook.webhook (assessment_id, url, event_type, organization_id, enabled, ordered, log_successes, secret, previous_secret,
                               previous_secret_until, description, disabled_at, disabled_reason)
  select to_assessment, w.url, w.event_type, w.organization_id, w.enabled, w.ordered, w.log_successes, w.secret, w.previous_secret,
         w.previous_secret_until, w.description, w.disabled_at, w.disabled_reason
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

CREATE FUNCTION walhook.keep_settings() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception 'the settings cannot be deleted'
    using errcode = 'restrict_violation', schema = 'walhook', table = 'settings',
          hint = 'To stop all webhooks: UPDATE walhook.settings SET enabled = false;';
end
$$;

CREATE FUNCTION walhook.make_partition(parent regclass, lower timestamp with time zone, upper timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
declare
  part text := format('walhook.%I', (select c.relname from pg_class c where c.oid = parent) || '_' || to_char(lower, 'YYYYMMDD"t"HH24MISS'));
begin
  execute format('create table %s (like %s including defaults)', part, parent);
  execute format('alter table %s attach partition %s for values from (%L) to (%L)', parent, part, lower, upper);
end
$$;

CREATE FUNCTION walhook.message_id(kind smallint, delivery_id bigint, lsn pg_lsn, ordinal bigint, event_type smallint, webhook_id bigint) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  select 'msg_' || left(encode(sha256(convert_to(
    case when $1 in (0, 1)
      then concat_ws('|', a.system_identifier, $3, $4, $5, $6)
      else concat_ws('|', a.installation, $2)
    end, 'UTF8')), 'hex'), 32)
  from walhook.attachment a
$_$;

SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE walhook.response_state (
    response_id text NOT NULL COLLATE pg_catalog."C",
    assessment_id text COLLATE pg_catalog."C",
    organization_id text COLLATE pg_catalog."C",
    stamp text COLLATE pg_catalog."C",
    flags smallint NOT NULL,
    fate smallint DEFAULT 0 NOT NULL,
    created_lsn pg_lsn,
    fired_at timestamp with time zone
)
WITH (fillfactor='85', autovacuum_vacuum_scale_factor='0.05');

CREATE TABLE walhook.webhook (
    id bigint NOT NULL,
    assessment_id text COLLATE pg_catalog."C",
    url text NOT NULL,
    event_type text NOT NULL,
    organization_id text COLLATE pg_catalog."C",
    enabled boolean DEFAULT true NOT NULL,
    ordered boolean DEFAULT true NOT NULL,
    log_successes boolean DEFAULT true NOT NULL,
    secret text,
    previous_secret text,
    previous_secret_until timestamp with time zone,
    description text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    disabled_at timestamp with time zone,
    disabled_reason text,
    endpoint_id bigint NOT NULL,
    CONSTRAINT webhook_assessment_id_not_blank CHECK ((assessment_id <> ''::text)),
    CONSTRAINT webhook_event_type_known CHECK ((event_type = ANY (ARRAY['response.created'::text, 'response.started'::text, 'response.completed'::text, 'response.changed'::text]))),
    CONSTRAINT webhook_organization_id_not_blank CHECK ((organization_id <> ''::text)),
    CONSTRAINT webhook_previous_secret_ends CHECK (((previous_secret IS NULL) = (previous_secret_until IS NULL))),
    CONSTRAINT webhook_previous_secret_well_formed CHECK (((previous_secret ~ '^whsec_([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$'::text) AND ((((((length(previous_secret) - 6) / 4) * 3) - (length(previous_secret) - length(rtrim(previous_secret, '='::text)))) >= 24) AND (((((length(previous_secret) - 6) / 4) * 3) - (length(previous_secret) - length(rtrim(previous_secret, '='::text)))) <= 64)))),
    CONSTRAINT webhook_secret_well_formed CHECK (((secret ~ '^whsec_([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$'::text) AND ((((((length(secret) - 6) / 4) * 3) - (length(secret) - length(rtrim(secret, '='::text)))) >= 24) AND (((((length(secret) - 6) / 4) * 3) - (length(secret) - length(rtrim(secret, '='::text)))) <= 64)))),
    CONSTRAINT webhook_url_absolute CHECK (((url ~* '^https?://([^/?#@[:space:][:cntrl:]]*@)?([a-z0-9._~%!$&''()*+,;=-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?([/?#][^[:space:][:cntrl:]]*)?$'::text) AND (length(url) <= 2048)))
);

CREATE FUNCTION walhook.mismatch(hook walhook.webhook, about walhook.response_state, event smallint) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select case
    when hook.created_at > about.fired_at then 'the webhook was made after it, at ' || to_char(hook.created_at at time zone s.time_zone, 'YYYY-MM-DD HH24:MI:SS')
    when hook.assessment_id <> about.assessment_id or hook.assessment_id is not null and about.assessment_id is null then
      format('assessment differs: the webhook is for %s, the response is of %s', hook.assessment_id, coalesce(about.assessment_id, 'none'))
    when hook.organization_id is distinct from about.organization_id and hook.organization_id is not null then
      format('other organization: the webhook is for %s, the response is of %s', hook.organization_id, coalesce(about.organization_id, 'none'))
    when hook.assessment_id is null and coalesce((select a.assessment_oid <> 0 from walhook.attachment a), false)
         and not exists (select from walhook.assessment a where a.assessment_id = about.assessment_id and a.external_id is not null) then
      format('assessment %s has no external id, and the webhook is for all assessments that have one', coalesce(about.assessment_id, 'none'))
    when not hook.enabled then
      format('webhook disabled since %s: %s%s', to_char(hook.disabled_at at time zone s.time_zone, 'YYYY-MM-DD HH24:MI:SS'), hook.disabled_reason,
             case when hook.disabled_at > about.fired_at then '; that was after it, so it was probably disabled before as well, or its log entry is gone' else '' end)
    else 'no record of it, though the webhook matches as it stands; walhook cannot tell for certain. Either '
         || case when hook.log_successes then '' else 'it was delivered (successes of this webhook are not logged), or ' end
         || 'its log entry has been dropped with old ones, or the webhook, the response or its assessment did not fit at the time'
         || case when hook.updated_at > about.fired_at then format(' (the webhook was changed afterwards, at %s)', to_char(hook.updated_at at time zone s.time_zone, 'YYYY-MM-DD HH24:MI:SS')) else '' end
  end
  from walhook.settings s
$$;

CREATE FUNCTION walhook.new_secret() RETURNS text
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ select 'whsec_' || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64') $$;

CREATE FUNCTION walhook.partition_begin(unit text, moment timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
  select case unit when 'month' then date_trunc('month', moment)
    else date_bin(case unit when '10 seconds' then interval '10 seconds' else ('1 ' || unit)::interval end, moment, '2000-01-01 00:00:00+00') end
$$;

CREATE FUNCTION walhook.partitions_of(parent regclass) RETURNS TABLE(part regclass, lower timestamp with time zone, upper timestamp with time zone)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $_$
  select c.oid::regclass, substring(b.bounds from $re$FROM \('([^']+)'\)$re$)::timestamptz, substring(b.bounds from $re$TO \('([^']+)'\)$re$)::timestamptz
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
   cross join lateral (select pg_get_expr(c.relpartbound, c.oid) as bounds) b
   where i.inhparent = $1
$_$;

CREATE FUNCTION walhook.prepare_webhook() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
  new.event_type := lower(btrim(new.event_type));
  new.url := btrim(new.url, E' \t\r\n');

  if new.event_type not in ('response.created', 'response.started', 'response.completed', 'response.changed') then
    raise exception 'event type "%" is not known', new.event_type
      using errcode = 'check_violation', constraint = 'webhook_event_type_known', schema = 'walhook', table = 'webhook', column = 'event_type',
            hint = 'Use response.created, response.started, response.completed or response.changed; a webhook has one of them.';
  end if;
  -- As strict as the table's constraints, whose own message repeats the whole row, URL and secret included, and lands in the server's log.
  if new.url is not null and (length(new.url) > 2048 or new.url !~*
    '^https?://([^/?#@[:space:][:cntrl:]]*@)?([a-z0-9._~%!$&''()*+,;=-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?([/?#][^[:space:][:cntrl:]]*)?$') then
    raise exception 'webhook.url must be an absolute http or https URL'
      using errcode = 'check_violation', constraint = 'webhook_url_absolute', schema = 'walhook', table = 'webhook', column = 'url',
            hint = 'For example https://example.com/hooks/assessment; no blanks, at most 2048 characters.';
  end if;
  if exists (
    select from unnest(array[new.secret, new.previous_secret]) as u (secret)
     where u.secret is not null and not (
       u.secret ~ '^whsec_([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$'
       and (length(u.secret) - 6) / 4 * 3 - (length(u.secret) - length(rtrim(u.secret, '='))) between 24 and 64)) then
    raise exception 'a signing secret must be whsec_ followed by base64 of 24 to 64 bytes'
      using errcode = 'check_violation', constraint = 'webhook_secret_well_formed', schema = 'walhook', table = 'webhook', column = 'secret',
            hint = 'Let SELECT walhook.new_secret(); make one.';
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

  -- What the constraints and NOT NULL would refuse: their error repeats the whole row, URL and secret included.
  if new.id is null or tg_op = 'UPDATE' and new.id <> old.id then
    raise exception 'the id of a webhook is given by the server and never changes'
      using errcode = 'check_violation', schema = 'walhook', table = 'webhook', column = 'id',
            hint = 'Leave id out; RETURNING id tells what it is.';
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

  -- An id that was given by hand must not be given again by the server.
  if tg_op = 'INSERT' and (select new.id > q.last_value or not q.is_called from walhook.webhook_id_seq q) then
    perform setval('walhook.webhook_id_seq', new.id);
  end if;

  if tg_op = 'UPDATE' then
    new.updated_at := now();
    if new.enabled and not old.enabled then
      new.disabled_at := null;
      new.disabled_reason := null;
      delete from walhook.webhook_trouble t where t.webhook_id = new.id;
      update walhook.endpoint e set not_before = null, failures = 0, failing_since = null where e.id = old.endpoint_id;
      update walhook.queue q set next_attempt_at = now() where q.webhook_id = new.id and q.next_attempt_at > now();
    end if;
  end if;
  if not new.enabled and (tg_op = 'INSERT' or old.enabled) then
    new.disabled_at := coalesce(new.disabled_at, now());
    new.disabled_reason := coalesce(new.disabled_reason, 'disabled by ' || session_user);
  end if;

  if new.url is not null and (tg_op = 'INSERT' or new.url <> old.url or new.endpoint_id is distinct from old.endpoint_id) then
    insert into walhook.endpoint as e (url, url_hash)
    values (new.url, sha256(convert_to(new.url, 'UTF8')))
    on conflict (url_hash) do update set url = excluded.url
    returning e.id into new.endpoint_id;
  end if;
  return new;
end
$_$;

CREATE FUNCTION walhook.redeliver(delivery_id bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
  old    walhook.log;
  queued bigint;
begin
  update walhook.queue q set next_attempt_at = now()
   where q.delivery_id = redeliver.delivery_id and q.next_attempt_at is not null;
  if found or exists (select from walhook.queue q where q.delivery_id = redeliver.delivery_id) then
    perform pg_notify('walhook', '');
    return redeliver.delivery_id;
  end if;

  select * into old from walhook.log l where l.delivery_id = redeliver.delivery_id;
  if not found then
    raise exception 'there is no delivery %', redeliver.delivery_id
      using errcode = 'no_data_found', hint = 'See SELECT * FROM walhook.delivery_log; old entries may have been dropped.';
  end if;
  if not exists (select from walhook.webhook w where w.id = old.webhook_id) then
    raise exception 'webhook % of delivery % was deleted', old.webhook_id, redeliver.delivery_id
      using errcode = 'no_data_found', hint = 'Create the webhook anew; its id differs, so old deliveries cannot be sent through it.';
  end if;

  insert into walhook.queue as q (webhook_id, lsn, ordinal, committed_at, next_attempt_at, redelivery_of, event_type, kind, response_id)
  values (old.webhook_id, old.lsn, old.ordinal, old.committed_at, now(), coalesce(old.redelivery_of, old.delivery_id),
          old.event_type, case old.kind when 2 then 2 else 3 end, old.response_id)
  returning q.delivery_id into queued;
  perform pg_notify('walhook', '');
  return queued;
end
$$;

CREATE FUNCTION walhook.redeliver_failed(webhook_id bigint, since timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
  queued bigint;
begin
  if since is null then
    raise exception 'redeliver_failed needs a time since when'
      using errcode = 'null_value_not_allowed', hint = 'SELECT walhook.redeliver_failed(1, now() - interval ''1 day'');';
  end if;
  if not exists (select from walhook.webhook w where w.id = redeliver_failed.webhook_id) then
    raise exception 'there is no webhook %', redeliver_failed.webhook_id
      using errcode = 'no_data_found', hint = 'See SELECT id, event_type, url FROM walhook.webhook;';
  end if;

  with failed as (
    select distinct on (coalesce(l.redelivery_of, l.delivery_id)) l.*, coalesce(l.redelivery_of, l.delivery_id) as origin
      from walhook.log l
     where l.webhook_id = redeliver_failed.webhook_id and not l.succeeded
       and l.finished_at >= redeliver_failed.since and l.kind <> 2
     order by coalesce(l.redelivery_of, l.delivery_id), l.delivery_id
  )
  insert into walhook.queue (webhook_id, lsn, ordinal, committed_at, next_attempt_at, redelivery_of, event_type, kind, response_id)
  select f.webhook_id, f.lsn, f.ordinal, f.committed_at, now(), f.origin, f.event_type, 3, f.response_id
    from failed f
   where not exists (select from walhook.log l where l.redelivery_of = f.origin and l.succeeded)
     and not exists (select from walhook.queue q where q.response_id = f.response_id and q.redelivery_of = f.origin)
   order by f.origin;
  get diagnostics queued = row_count;
  if queued > 0 then
    perform pg_notify('walhook', '');
  end if;
  return queued;
end
$$;

CREATE FUNCTION walhook.rotate_secret(webhook_id bigint, keep interval DEFAULT '24:00:00'::interval) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
  fresh text := walhook.new_secret();
  hook  walhook.webhook;
begin
  if keep is null or keep < interval '0' then
    raise exception 'the old secret can be kept for a while or not at all, not for %', keep
      using errcode = 'invalid_parameter_value', hint = 'For example SELECT walhook.rotate_secret(1, ''24 hours'');';
  end if;
  select * into hook from walhook.webhook w where w.id = rotate_secret.webhook_id for update;
  if not found then
    raise exception 'there is no webhook %', rotate_secret.webhook_id
      using errcode = 'no_data_found', hint = 'See SELECT id, event_type, url FROM walhook.webhook;';
  end if;
  if hook.previous_secret_until > now() then
    raise notice 'webhook % was being rotated already: the secret before the last one ends now', hook.id;
  end if;
  update walhook.webhook w
     set secret = fresh,
         previous_secret = case when keep > interval '0' then hook.secret end,
         previous_secret_until = case when keep > interval '0' and hook.secret is not null then now() + keep end
   where w.id = hook.id;
  return fresh;
end
$$;

CREATE FUNCTION walhook.silence() RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ select pg_logical_emit_message(true, 'walhook', 'silence') $$;

CREATE FUNCTION walhook.story(response_id text) RETURNS TABLE(event_type smallint, happened text, misfit text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  select n::smallint,
         case
           when s.response_id is null then 'not known'
           when not c.happened then 'no'
           when not c.seen then 'before attach'
           else 'yes'
         end,
         case
           when s.response_id is null then
             'walhook knows no such response: it was never inserted or was deleted since, or the stream has not come so far (see walhook status)'
           when not c.happened then
             case n when 2 then 'not started yet' when 3 then 'not finished yet'
                    else case when s.flags & 2 = 0 then 'not finished yet' else 'not finished again since walhook attached' end end
           when not c.seen then 'it happened before walhook attached, or before the key of the response changed, and fires nothing'
           when c.silenced then 'its transaction had called walhook.silence()'
           when c.off then 'webhooks were switched off when it happened (walhook.settings)'
         end
    from generate_series(1, 4) n
    left join walhook.response_state s on s.response_id = $1
   cross join lateral (
     select s.fate & (1 << (n - 1)) <> 0 as seen, s.fate & (1 << (n + 3)) <> 0 as silenced, s.fate & (1 << (n + 7)) <> 0 as off,
            case n when 1 then true when 2 then s.flags & 1 <> 0 when 3 then s.flags & 2 <> 0 else s.fate & 8 <> 0 end as happened
   ) c
$_$;

CREATE FUNCTION walhook.test_webhook(webhook_id bigint, response_id text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_column
declare
  hook   walhook.webhook;
  about  text := test_webhook.response_id;
  queued bigint;
begin
  select * into hook from walhook.webhook w where w.id = test_webhook.webhook_id;
  if not found then
    raise exception 'there is no webhook %', test_webhook.webhook_id
      using errcode = 'no_data_found', hint = 'See SELECT id, event_type, url FROM walhook.webhook;';
  end if;

  if about is null then
    select s.response_id into about
      from walhook.response_state s
     where (hook.organization_id is null or s.organization_id = hook.organization_id)
       and case
             when hook.assessment_id is not null then s.assessment_id = hook.assessment_id
             when (select a.assessment_oid <> 0 from walhook.attachment a)
               then exists (select from walhook.assessment a where a.assessment_id = s.assessment_id and a.external_id is not null)
             else true
           end
     order by s.created_lsn desc nulls last, length(s.response_id) desc, s.response_id desc
     limit 1;
    if about is null then
      raise exception 'no respondent matches webhook % yet', hook.id
        using errcode = 'no_data_found',
              hint = format('Name a response yourself: SELECT walhook.test_webhook(%s, ''12345'');', hook.id);
    end if;
  elsif exists (select from walhook.attachment a where a.numeric_id) and about !~ '^(0|-?[1-9][0-9]{0,18})$' then
    raise exception 'response id "%" is not an integer, and the key of the respondent table is', about
      using errcode = 'invalid_parameter_value', hint = 'Pass the key as it stands in the table, for example ''12345''.';
  end if;

  if not (select s.enabled from walhook.settings s) then
    raise notice 'webhooks are switched off: the test stays pending until UPDATE walhook.settings SET enabled = true';
  end if;

  insert into walhook.queue as q (webhook_id, committed_at, next_attempt_at, event_type, kind, response_id)
  values (hook.id, now(), now(), walhook.event_number(hook.event_type), 2, about)
  returning q.delivery_id into queued;
  perform pg_notify('walhook', '');
  return queued;
end
$_$;

CREATE FUNCTION walhook.wake() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform pg_notify('walhook', '');
  return null;
end
$$;

CREATE TABLE walhook.assessment (
    assessment_id text NOT NULL COLLATE pg_catalog."C",
    external_id text
);

CREATE TABLE walhook.attachment (
    one boolean DEFAULT true NOT NULL,
    phase text NOT NULL,
    system_identifier text NOT NULL,
    database text NOT NULL,
    slot text NOT NULL,
    publication text NOT NULL,
    publish text NOT NULL,
    mapping jsonb NOT NULL,
    respondent_oid bigint NOT NULL,
    assessment_oid bigint NOT NULL,
    publication_rows text DEFAULT ''::text NOT NULL,
    numeric_id boolean NOT NULL,
    installation uuid DEFAULT gen_random_uuid() NOT NULL,
    begun_at timestamp with time zone DEFAULT now() NOT NULL,
    attached_at timestamp with time zone,
    CONSTRAINT attachment_one_check CHECK (one),
    CONSTRAINT attachment_phase_check CHECK ((phase = ANY (ARRAY['attaching'::text, 'attached'::text]))),
    CONSTRAINT attachment_publish_check CHECK ((publish = ANY (ARRAY['all'::text, 'mapped'::text])))
);

CREATE TABLE walhook.attempt (
    delivery_id bigint NOT NULL,
    attempt integer NOT NULL,
    attempted_at timestamp with time zone NOT NULL,
    duration_ms integer NOT NULL,
    http_status integer,
    succeeded boolean NOT NULL,
    error text
)
PARTITION BY RANGE (attempted_at);

CREATE TABLE walhook.attempt_20261001t000000 (
    delivery_id bigint NOT NULL,
    attempt integer NOT NULL,
    attempted_at timestamp with time zone NOT NULL,
    duration_ms integer NOT NULL,
    http_status integer,
    succeeded boolean NOT NULL,
    error text
);

CREATE TABLE walhook.attempt_20261101t000000 (
    delivery_id bigint NOT NULL,
    attempt integer NOT NULL,
    attempted_at timestamp with time zone NOT NULL,
    duration_ms integer NOT NULL,
    http_status integer,
    succeeded boolean NOT NULL,
    error text
);

CREATE TABLE walhook.attempt_20261201t000000 (
    delivery_id bigint NOT NULL,
    attempt integer NOT NULL,
    attempted_at timestamp with time zone NOT NULL,
    duration_ms integer NOT NULL,
    http_status integer,
    succeeded boolean NOT NULL,
    error text
);

CREATE TABLE walhook.attempt_20270101t000000 (
    delivery_id bigint NOT NULL,
    attempt integer NOT NULL,
    attempted_at timestamp with time zone NOT NULL,
    duration_ms integer NOT NULL,
    http_status integer,
    succeeded boolean NOT NULL,
    error text
);

CREATE TABLE walhook.attempt_20270201t000000 (
    delivery_id bigint NOT NULL,
    attempt integer NOT NULL,
    attempted_at timestamp with time zone NOT NULL,
    duration_ms integer NOT NULL,
    http_status integer,
    succeeded boolean NOT NULL,
    error text
);

CREATE TABLE walhook.daemon (
    id bigint NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    heartbeat_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL
)
WITH (fillfactor='50');

ALTER TABLE walhook.daemon ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME walhook.daemon_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE walhook.settings (
    one boolean DEFAULT true NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    time_zone text DEFAULT 'UTC'::text NOT NULL,
    CONSTRAINT settings_one_check CHECK (one)
);

CREATE VIEW walhook.delivery_attempt AS
 SELECT a.delivery_id,
    a.attempt,
    (a.attempted_at AT TIME ZONE s.time_zone) AS attempted_at,
    a.duration_ms,
    a.http_status,
    a.error,
    a.succeeded
   FROM (walhook.attempt a
     CROSS JOIN walhook.settings s);

CREATE SEQUENCE walhook.delivery_id
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE walhook.log (
    delivery_id bigint NOT NULL,
    webhook_id bigint NOT NULL,
    lsn pg_lsn,
    ordinal bigint NOT NULL,
    committed_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    redelivery_of bigint,
    attempts integer NOT NULL,
    http_status integer,
    event_type smallint NOT NULL,
    kind smallint NOT NULL,
    succeeded boolean NOT NULL,
    response_id text NOT NULL COLLATE pg_catalog."C",
    error text
)
PARTITION BY RANGE (finished_at);

CREATE TABLE walhook.queue (
    delivery_id bigint DEFAULT nextval('walhook.delivery_id'::regclass) NOT NULL,
    webhook_id bigint NOT NULL,
    lsn pg_lsn,
    ordinal bigint DEFAULT 0 NOT NULL,
    xid bigint,
    committed_at timestamp with time zone NOT NULL,
    next_attempt_at timestamp with time zone,
    last_attempt_at timestamp with time zone,
    redelivery_of bigint,
    attempts integer DEFAULT 0 NOT NULL,
    http_status integer,
    event_type smallint NOT NULL,
    kind smallint DEFAULT 0 NOT NULL,
    response_id text NOT NULL COLLATE pg_catalog."C",
    error text,
    CONSTRAINT queue_event_type_check CHECK (((event_type >= 1) AND (event_type <= 4))),
    CONSTRAINT queue_kind_check CHECK (((kind >= 0) AND (kind <= 3)))
)
WITH (fillfactor='90', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='20000', autovacuum_analyze_scale_factor='0', autovacuum_analyze_threshold='50000', autovacuum_vacuum_cost_delay='0');

CREATE VIEW walhook.delivery_log AS
 SELECT q.delivery_id,
    q.webhook_id,
    (q.last_attempt_at AT TIME ZONE s.time_zone) AS delivered_at,
    q.response_id,
    walhook.event_name(q.event_type) AS event_type,
    'pending'::text AS status,
    q.attempts,
    q.http_status,
    q.error,
    (q.kind = 2) AS test,
    (q.kind = 1) AS recovered,
    (q.next_attempt_at AT TIME ZONE s.time_zone) AS next_attempt_at,
    q.redelivery_of,
    walhook.message_id(q.kind, q.delivery_id, q.lsn, q.ordinal, q.event_type, q.webhook_id) AS message_id
   FROM (walhook.queue q
     CROSS JOIN walhook.settings s)
UNION ALL
 SELECT l.delivery_id,
    l.webhook_id,
    (l.finished_at AT TIME ZONE s.time_zone) AS delivered_at,
    l.response_id,
    walhook.event_name(l.event_type) AS event_type,
    'success'::text AS status,
    l.attempts,
    l.http_status,
    l.error,
    (l.kind = 2) AS test,
    (l.kind = 1) AS recovered,
    NULL::timestamp without time zone AS next_attempt_at,
    l.redelivery_of,
    walhook.message_id(l.kind, l.delivery_id, l.lsn, l.ordinal, l.event_type, l.webhook_id) AS message_id
   FROM (walhook.log l
     CROSS JOIN walhook.settings s)
  WHERE l.succeeded
UNION ALL
 SELECT l.delivery_id,
    l.webhook_id,
    (l.finished_at AT TIME ZONE s.time_zone) AS delivered_at,
    l.response_id,
    walhook.event_name(l.event_type) AS event_type,
    'failed'::text AS status,
    l.attempts,
    l.http_status,
    l.error,
    (l.kind = 2) AS test,
    (l.kind = 1) AS recovered,
    NULL::timestamp without time zone AS next_attempt_at,
    l.redelivery_of,
    walhook.message_id(l.kind, l.delivery_id, l.lsn, l.ordinal, l.event_type, l.webhook_id) AS message_id
   FROM (walhook.log l
     CROSS JOIN walhook.settings s)
  WHERE (NOT l.succeeded);

CREATE TABLE walhook.endpoint (
    id bigint NOT NULL,
    url text NOT NULL,
    url_hash bytea NOT NULL,
    owner bigint,
    failures integer DEFAULT 0 NOT NULL,
    failing_since timestamp with time zone,
    not_before timestamp with time zone,
    last_error text
)
WITH (fillfactor='70');

CREATE VIEW walhook.endpoint_health AS
 SELECT e.id AS endpoint_id,
    walhook.display_url(e.url) AS host,
    h.webhook_ids,
    e.failures,
    (e.failing_since AT TIME ZONE s.time_zone) AS failing_since,
    (e.not_before AT TIME ZONE s.time_zone) AS not_before,
        CASE
            WHEN (e.failures > 0) THEN e.last_error
            ELSE NULL::text
        END AS last_error,
    n.waiting,
    d.name AS daemon
   FROM ((((walhook.endpoint e
     CROSS JOIN walhook.settings s)
     CROSS JOIN LATERAL ( SELECT array_agg(w.id ORDER BY w.id) AS webhook_ids
           FROM walhook.webhook w
          WHERE (w.endpoint_id = e.id)) h)
     CROSS JOIN LATERAL ( SELECT count(*) AS waiting
           FROM walhook.queue q
          WHERE (q.webhook_id = ANY (h.webhook_ids))) n)
     LEFT JOIN walhook.daemon d ON ((d.id = e.owner)))
  WHERE (h.webhook_ids IS NOT NULL);

ALTER TABLE walhook.endpoint ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME walhook.endpoint_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE walhook.incident_log (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    kind text NOT NULL,
    detail text NOT NULL,
    resolved_at timestamp with time zone
);

CREATE VIEW walhook.incident AS
 SELECT i.at,
    i.kind,
    i.detail,
    i.resolved_at
   FROM walhook.incident_log i;

ALTER TABLE walhook.incident_log ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME walhook.incident_log_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE walhook.log_20261001t000000 (
    delivery_id bigint NOT NULL,
    webhook_id bigint NOT NULL,
    lsn pg_lsn,
    ordinal bigint NOT NULL,
    committed_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    redelivery_of bigint,
    attempts integer NOT NULL,
    http_status integer,
    event_type smallint NOT NULL,
    kind smallint NOT NULL,
    succeeded boolean NOT NULL,
    response_id text NOT NULL COLLATE pg_catalog."C",
    error text
);

CREATE TABLE walhook.log_20261101t000000 (
    delivery_id bigint NOT NULL,
    webhook_id bigint NOT NULL,
    lsn pg_lsn,
    ordinal bigint NOT NULL,
    committed_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    redelivery_of bigint,
    attempts integer NOT NULL,
    http_status integer,
    event_type smallint NOT NULL,
    kind smallint NOT NULL,
    succeeded boolean NOT NULL,
    response_id text NOT NULL COLLATE pg_catalog."C",
    error text
);

CREATE TABLE walhook.log_20261201t000000 (
    delivery_id bigint NOT NULL,
    webhook_id bigint NOT NULL,
    lsn pg_lsn,
    ordinal bigint NOT NULL,
    committed_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    redelivery_of bigint,
    attempts integer NOT NULL,
    http_status integer,
    event_type smallint NOT NULL,
    kind smallint NOT NULL,
    succeeded boolean NOT NULL,
    response_id text NOT NULL COLLATE pg_catalog."C",
    error text
);

CREATE TABLE walhook.log_20270101t000000 (
    delivery_id bigint NOT NULL,
    webhook_id bigint NOT NULL,
    lsn pg_lsn,
    ordinal bigint NOT NULL,
    committed_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    redelivery_of bigint,
    attempts integer NOT NULL,
    http_status integer,
    event_type smallint NOT NULL,
    kind smallint NOT NULL,
    succeeded boolean NOT NULL,
    response_id text NOT NULL COLLATE pg_catalog."C",
    error text
);

CREATE TABLE walhook.log_20270201t000000 (
    delivery_id bigint NOT NULL,
    webhook_id bigint NOT NULL,
    lsn pg_lsn,
    ordinal bigint NOT NULL,
    committed_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    redelivery_of bigint,
    attempts integer NOT NULL,
    http_status integer,
    event_type smallint NOT NULL,
    kind smallint NOT NULL,
    succeeded boolean NOT NULL,
    response_id text NOT NULL COLLATE pg_catalog."C",
    error text
);

CREATE VIEW walhook.pending AS
 SELECT q.delivery_id,
    q.webhook_id,
    walhook.display_url(w.url) AS host,
    q.response_id,
    walhook.event_name(q.event_type) AS event_type,
    (q.committed_at AT TIME ZONE s.time_zone) AS committed_at,
    q.attempts,
    q.error,
    (q.next_attempt_at AT TIME ZONE s.time_zone) AS next_attempt_at,
        CASE
            WHEN (w.id IS NULL) THEN 'the webhook was deleted'::text
            WHEN (NOT s.enabled) THEN 'webhooks are switched off (walhook.settings)'::text
            WHEN ((NOT w.enabled) AND (q.kind <> 2)) THEN ('webhook disabled'::text || COALESCE((': '::text || w.disabled_reason), ''::text))
            WHEN (b.delivery_id IS NOT NULL) THEN format('behind delivery %s about the same response'::text, b.delivery_id)
            WHEN ((q.attempts > 0) AND (q.next_attempt_at > now())) THEN format('backing off after %s failed %s'::text, q.attempts,
            CASE q.attempts
                WHEN 1 THEN 'attempt'::text
                ELSE 'attempts'::text
            END)
            WHEN ((e.not_before > now()) OR (e.failures > 2)) THEN format('endpoint in trouble: %s failures in a row'::text, e.failures)
            WHEN (NOT (EXISTS ( SELECT
               FROM walhook.daemon d
              WHERE (d.expires_at >= now())))) THEN 'due; no daemon is running'::text
            ELSE 'due'::text
        END AS waits_for,
    (q.kind = 2) AS test,
    (q.kind = 1) AS recovered
   FROM ((((walhook.queue q
     CROSS JOIN walhook.settings s)
     LEFT JOIN walhook.webhook w ON ((w.id = q.webhook_id)))
     LEFT JOIN walhook.endpoint e ON ((e.id = w.endpoint_id)))
     LEFT JOIN LATERAL ( SELECT p.delivery_id
           FROM (walhook.queue p
             JOIN walhook.webhook o ON ((o.id = p.webhook_id)))
          WHERE ((p.response_id = q.response_id) AND (p.delivery_id < q.delivery_id) AND (p.kind <> 2) AND (q.kind <> 2) AND w.ordered AND o.ordered AND o.enabled AND (o.endpoint_id = w.endpoint_id))
          ORDER BY p.delivery_id DESC
         LIMIT 1) b ON (true));

CREATE TABLE walhook."position" (
    turn bigint NOT NULL,
    lsn pg_lsn NOT NULL,
    partial_lsn pg_lsn,
    partial_changes bigint DEFAULT 0 NOT NULL,
    CONSTRAINT position_check CHECK (((partial_lsn IS NULL) = (partial_changes = 0)))
)
WITH (autovacuum_vacuum_threshold='1000', autovacuum_vacuum_scale_factor='0');

CREATE TABLE walhook.schema_version (
    version integer NOT NULL
);

ALTER TABLE walhook.webhook ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME walhook.webhook_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW walhook.webhook_overview AS
 SELECT w.id,
    w.assessment_id,
    walhook.display_url(w.url) AS host,
    w.event_type,
    w.organization_id,
    w.enabled,
    w.ordered,
    w.log_successes,
    (w.secret IS NOT NULL) AS signed,
    w.description,
    w.created_at,
    w.updated_at,
    w.disabled_at,
    w.disabled_reason
   FROM walhook.webhook w;

CREATE TABLE walhook.webhook_trouble (
    webhook_id bigint NOT NULL,
    failing_since timestamp with time zone NOT NULL
);

ALTER TABLE ONLY walhook.attempt ATTACH PARTITION walhook.attempt_20261001t000000 FOR VALUES FROM ('2026-10-01 00:00:00+00') TO ('2026-11-01 00:00:00+00');

ALTER TABLE ONLY walhook.attempt ATTACH PARTITION walhook.attempt_20261101t000000 FOR VALUES FROM ('2026-11-01 00:00:00+00') TO ('2026-12-01 00:00:00+00');

ALTER TABLE ONLY walhook.attempt ATTACH PARTITION walhook.attempt_20261201t000000 FOR VALUES FROM ('2026-12-01 00:00:00+00') TO ('2027-01-01 00:00:00+00');

ALTER TABLE ONLY walhook.attempt ATTACH PARTITION walhook.attempt_20270101t000000 FOR VALUES FROM ('2027-01-01 00:00:00+00') TO ('2027-02-01 00:00:00+00');

ALTER TABLE ONLY walhook.attempt ATTACH PARTITION walhook.attempt_20270201t000000 FOR VALUES FROM ('2027-02-01 00:00:00+00') TO ('2027-03-01 00:00:00+00');

ALTER TABLE ONLY walhook.log ATTACH PARTITION walhook.log_20261001t000000 FOR VALUES FROM ('2026-10-01 00:00:00+00') TO ('2026-11-01 00:00:00+00');

ALTER TABLE ONLY walhook.log ATTACH PARTITION walhook.log_20261101t000000 FOR VALUES FROM ('2026-11-01 00:00:00+00') TO ('2026-12-01 00:00:00+00');

ALTER TABLE ONLY walhook.log ATTACH PARTITION walhook.log_20261201t000000 FOR VALUES FROM ('2026-12-01 00:00:00+00') TO ('2027-01-01 00:00:00+00');

ALTER TABLE ONLY walhook.log ATTACH PARTITION walhook.log_20270101t000000 FOR VALUES FROM ('2027-01-01 00:00:00+00') TO ('2027-02-01 00:00:00+00');

ALTER TABLE ONLY walhook.log ATTACH PARTITION walhook.log_20270201t000000 FOR VALUES FROM ('2027-02-01 00:00:00+00') TO ('2027-03-01 00:00:00+00');

INSERT INTO walhook.assessment VALUES ('1', 'EXT-1');
INSERT INTO walhook.assessment VALUES ('2', NULL);

INSERT INTO walhook.attachment VALUES (true, 'attached', '7711973468266654957', 'app', 'walhook', 'walhook', 'all', '{"ID": "id", "Stamp": "", "Started": {"Column": "started_at", "Values": null}, "Finished": {"Column": "finished_at", "Values": null}, "Assessment": "assessment_id", "CopiedFrom": "", "ExternalID": "external_id", "Respondent": {"Table": "respondent", "Schema": "public"}, "AssessmentID": "id", "Organization": "organization_id", "AssessmentTable": {"Table": "assessment", "Schema": "public"}}', 16393, 16386, '16696:771 16707:772 16698:742', true, 'a5ccc6e6-12cc-4431-9f58-037f9e2de4a4', '2026-11-25 05:15:55.17793+00', '2026-11-25 05:15:55.218617+00');

INSERT INTO walhook.attempt_20261101t000000 VALUES (2, 1, '2026-11-25 05:16:00.85829+00', 9, 500, false, 'HTTP 500 Internal Server Error');
INSERT INTO walhook.attempt_20261101t000000 VALUES (4, 1, '2026-11-25 05:16:04.104004+00', 4, 500, false, 'HTTP 500 Internal Server Error');
INSERT INTO walhook.attempt_20261101t000000 VALUES (2, 2, '2026-11-25 05:16:05.167249+00', 2, 500, false, 'HTTP 500 Internal Server Error');
INSERT INTO walhook.attempt_20261101t000000 VALUES (4, 2, '2026-11-25 05:16:09.811051+00', 1, 500, false, 'HTTP 500 Internal Server Error');

INSERT INTO walhook.daemon OVERRIDING SYSTEM VALUE VALUES (1, 'vm/15977', 'dev', '2026-11-25 05:15:56.37201+00', '2026-11-25 05:16:11.624724+00', '2026-11-25 05:16:36.624724+00');

INSERT INTO walhook.endpoint OVERRIDING SYSTEM VALUE VALUES (1, 'http://127.0.0.1:18999/hook', '\xc715e9a69881ae10542139466a97b0763d6dc30823c0be848e95ebd41309f7a2', 1, 0, NULL, NULL, NULL);
INSERT INTO walhook.endpoint OVERRIDING SYSTEM VALUE VALUES (3, 'http://127.0.0.1:18999/down', '\xc8c253346246e2987c219ec5e8c405d841b7a57c597d7f410bc9257b7bdf0a31', 1, 4, '2026-11-25 05:16:00.85829+00', NULL, 'HTTP 500 Internal Server Error');

INSERT INTO walhook.incident_log OVERRIDING SYSTEM VALUE VALUES (1, '2026-11-25 05:16:07.078783+00', 'publication_changed', 'publication "walhook" lacks table public.respondent', '2026-11-25 05:16:07.249686+00');
INSERT INTO walhook.incident_log OVERRIDING SYSTEM VALUE VALUES (2, '2026-11-25 05:16:07.249686+00', 'reconcile', 'publication "walhook" lacks table public.respondent; made a new slot and compared 4 rows with the recorded state: 0 differed, 0 were gone, 0 events fired', '2026-11-25 05:16:07.249686+00');

INSERT INTO walhook.log_20261101t000000 VALUES (1, 2, '0/1E6F618', 1, '2026-11-25 05:16:00.685022+00', '2026-11-25 05:16:00.867307+00', NULL, 1, 200, 3, 0, true, '1', NULL);
INSERT INTO walhook.log_20261101t000000 VALUES (3, 1, '0/1E6F780', 1, '2026-11-25 05:16:00.751689+00', '2026-11-25 05:16:00.914835+00', NULL, 1, 200, 2, 0, true, '4', NULL);

INSERT INTO walhook."position" VALUES (5, '0/1E72478', NULL, 0);

INSERT INTO walhook.queue VALUES (2, 3, '0/1E6F618', 1, NULL, '2026-11-25 05:16:00.685022+00', '2026-11-25 05:16:13.887249+00', '2026-11-25 05:16:05.167249+00', NULL, 2, 500, 3, 0, '1', 'HTTP 500 Internal Server Error');
INSERT INTO walhook.queue VALUES (4, 3, NULL, 0, NULL, '2026-11-25 05:16:04.040988+00', '2026-11-25 05:16:21.433051+00', '2026-11-25 05:16:09.811051+00', NULL, 2, 500, 3, 2, '1', 'HTTP 500 Internal Server Error');

INSERT INTO walhook.response_state VALUES ('2', '1', NULL, '2026-01-03 04:05:06+00', 15, 0, NULL, NULL);
INSERT INTO walhook.response_state VALUES ('1', '1', '7', '2026-02-03 04:05:06+00', 15, 4, NULL, '2026-11-25 05:16:00.685022+00');
INSERT INTO walhook.response_state VALUES ('3', '2', NULL, NULL, 5, 2, NULL, '2026-11-25 05:16:00.724309+00');
INSERT INTO walhook.response_state VALUES ('4', '1', NULL, NULL, 5, 3, '0/1E6F780', '2026-11-25 05:16:00.751689+00');

INSERT INTO walhook.schema_version VALUES (1);

INSERT INTO walhook.settings VALUES (true, true, 'Europe/Berlin');

INSERT INTO walhook.webhook VALUES (2, '1', 'http://127.0.0.1:18999/hook', 'response.completed', NULL, true, true, true, NULL, NULL, NULL, NULL, '2026-11-25 05:15:55.732073+00', '2026-11-25 05:15:55.732073+00', NULL, NULL, 1);
INSERT INTO walhook.webhook VALUES (3, NULL, 'http://127.0.0.1:18999/down', 'response.completed', NULL, true, true, true, NULL, NULL, NULL, 'nobody answers', '2026-11-25 05:15:55.732073+00', '2026-11-25 05:15:55.732073+00', NULL, NULL, 3);
INSERT INTO walhook.webhook VALUES (1, '1', 'http://127.0.0.1:18999/hook', 'response.started', NULL, true, true, true, 'whsec_NH0tMhWD6p3heQmw1k76gcm2Pub6xtxJTlyK0UUxsHc=', 'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD', '2036-11-25 05:15:55.771372+00', 'LMS', '2026-11-25 05:15:55.732073+00', '2026-11-25 05:15:55.771372+00', NULL, NULL, 1);

INSERT INTO walhook.webhook_trouble VALUES (3, '2026-11-25 05:16:00.85829+00');

SELECT pg_catalog.setval('walhook.daemon_id_seq', 1, true);

SELECT pg_catalog.setval('walhook.delivery_id', 4, true);

SELECT pg_catalog.setval('walhook.endpoint_id_seq', 3, true);

SELECT pg_catalog.setval('walhook.incident_log_id_seq', 2, true);

SELECT pg_catalog.setval('walhook.webhook_id_seq', 3, true);

ALTER TABLE ONLY walhook.assessment
    ADD CONSTRAINT assessment_pkey PRIMARY KEY (assessment_id);

ALTER TABLE ONLY walhook.attachment
    ADD CONSTRAINT attachment_pkey PRIMARY KEY (one);

ALTER TABLE ONLY walhook.daemon
    ADD CONSTRAINT daemon_pkey PRIMARY KEY (id);

ALTER TABLE ONLY walhook.endpoint
    ADD CONSTRAINT endpoint_pkey PRIMARY KEY (id);

ALTER TABLE ONLY walhook.endpoint
    ADD CONSTRAINT endpoint_url_hash_key UNIQUE (url_hash);

ALTER TABLE ONLY walhook.incident_log
    ADD CONSTRAINT incident_log_pkey PRIMARY KEY (id);

ALTER TABLE ONLY walhook."position"
    ADD CONSTRAINT position_pkey PRIMARY KEY (turn);

ALTER TABLE ONLY walhook.queue
    ADD CONSTRAINT queue_pkey PRIMARY KEY (delivery_id);

ALTER TABLE ONLY walhook.response_state
    ADD CONSTRAINT response_state_pkey PRIMARY KEY (response_id);

ALTER TABLE ONLY walhook.settings
    ADD CONSTRAINT settings_pkey PRIMARY KEY (one);

ALTER TABLE ONLY walhook.webhook
    ADD CONSTRAINT webhook_pkey PRIMARY KEY (id);

ALTER TABLE ONLY walhook.webhook_trouble
    ADD CONSTRAINT webhook_trouble_pkey PRIMARY KEY (webhook_id);

CREATE INDEX attempt_by_delivery ON ONLY walhook.attempt USING btree (delivery_id, attempt);

CREATE INDEX attempt_20261001t000000_delivery_id_attempt_idx ON walhook.attempt_20261001t000000 USING btree (delivery_id, attempt);

CREATE INDEX attempt_20261101t000000_delivery_id_attempt_idx ON walhook.attempt_20261101t000000 USING btree (delivery_id, attempt);

CREATE INDEX attempt_20261201t000000_delivery_id_attempt_idx ON walhook.attempt_20261201t000000 USING btree (delivery_id, attempt);

CREATE INDEX attempt_20270101t000000_delivery_id_attempt_idx ON walhook.attempt_20270101t000000 USING btree (delivery_id, attempt);

CREATE INDEX attempt_20270201t000000_delivery_id_attempt_idx ON walhook.attempt_20270201t000000 USING btree (delivery_id, attempt);

CREATE INDEX incident_open ON walhook.incident_log USING btree (kind) WHERE (resolved_at IS NULL);

CREATE INDEX log_by_delivery ON ONLY walhook.log USING btree (delivery_id);

CREATE INDEX log_20261001t000000_delivery_id_idx ON walhook.log_20261001t000000 USING btree (delivery_id);

CREATE INDEX log_redelivered ON ONLY walhook.log USING btree (redelivery_of) WHERE (redelivery_of IS NOT NULL);

CREATE INDEX log_20261001t000000_redelivery_of_idx ON walhook.log_20261001t000000 USING btree (redelivery_of) WHERE (redelivery_of IS NOT NULL);

CREATE INDEX log_by_response ON ONLY walhook.log USING btree (response_id);

CREATE INDEX log_20261001t000000_response_id_idx ON walhook.log_20261001t000000 USING btree (response_id);

CREATE INDEX log_by_webhook ON ONLY walhook.log USING btree (webhook_id, finished_at);

CREATE INDEX log_20261001t000000_webhook_id_finished_at_idx ON walhook.log_20261001t000000 USING btree (webhook_id, finished_at);

CREATE INDEX log_failed ON ONLY walhook.log USING btree (webhook_id, finished_at) WHERE (NOT succeeded);

CREATE INDEX log_20261001t000000_webhook_id_finished_at_idx1 ON walhook.log_20261001t000000 USING btree (webhook_id, finished_at) WHERE (NOT succeeded);

CREATE INDEX log_20261101t000000_delivery_id_idx ON walhook.log_20261101t000000 USING btree (delivery_id);

CREATE INDEX log_20261101t000000_redelivery_of_idx ON walhook.log_20261101t000000 USING btree (redelivery_of) WHERE (redelivery_of IS NOT NULL);

CREATE INDEX log_20261101t000000_response_id_idx ON walhook.log_20261101t000000 USING btree (response_id);

CREATE INDEX log_20261101t000000_webhook_id_finished_at_idx ON walhook.log_20261101t000000 USING btree (webhook_id, finished_at);

CREATE INDEX log_20261101t000000_webhook_id_finished_at_idx1 ON walhook.log_20261101t000000 USING btree (webhook_id, finished_at) WHERE (NOT succeeded);

CREATE INDEX log_20261201t000000_delivery_id_idx ON walhook.log_20261201t000000 USING btree (delivery_id);

CREATE INDEX log_20261201t000000_redelivery_of_idx ON walhook.log_20261201t000000 USING btree (redelivery_of) WHERE (redelivery_of IS NOT NULL);

CREATE INDEX log_20261201t000000_response_id_idx ON walhook.log_20261201t000000 USING btree (response_id);

CREATE INDEX log_20261201t000000_webhook_id_finished_at_idx ON walhook.log_20261201t000000 USING btree (webhook_id, finished_at);

CREATE INDEX log_20261201t000000_webhook_id_finished_at_idx1 ON walhook.log_20261201t000000 USING btree (webhook_id, finished_at) WHERE (NOT succeeded);

CREATE INDEX log_20270101t000000_delivery_id_idx ON walhook.log_20270101t000000 USING btree (delivery_id);

CREATE INDEX log_20270101t000000_redelivery_of_idx ON walhook.log_20270101t000000 USING btree (redelivery_of) WHERE (redelivery_of IS NOT NULL);

CREATE INDEX log_20270101t000000_response_id_idx ON walhook.log_20270101t000000 USING btree (response_id);

CREATE INDEX log_20270101t000000_webhook_id_finished_at_idx ON walhook.log_20270101t000000 USING btree (webhook_id, finished_at);

CREATE INDEX log_20270101t000000_webhook_id_finished_at_idx1 ON walhook.log_20270101t000000 USING btree (webhook_id, finished_at) WHERE (NOT succeeded);

CREATE INDEX log_20270201t000000_delivery_id_idx ON walhook.log_20270201t000000 USING btree (delivery_id);

CREATE INDEX log_20270201t000000_redelivery_of_idx ON walhook.log_20270201t000000 USING btree (redelivery_of) WHERE (redelivery_of IS NOT NULL);

CREATE INDEX log_20270201t000000_response_id_idx ON walhook.log_20270201t000000 USING btree (response_id);

CREATE INDEX log_20270201t000000_webhook_id_finished_at_idx ON walhook.log_20270201t000000 USING btree (webhook_id, finished_at);

CREATE INDEX log_20270201t000000_webhook_id_finished_at_idx1 ON walhook.log_20270201t000000 USING btree (webhook_id, finished_at) WHERE (NOT succeeded);

CREATE INDEX queue_by_response ON walhook.queue USING btree (response_id, delivery_id);

CREATE INDEX queue_due ON walhook.queue USING btree (webhook_id, next_attempt_at) WHERE (next_attempt_at IS NOT NULL);

CREATE INDEX queue_fresh ON walhook.queue USING btree (webhook_id, ((delivery_id + 0))) WHERE (next_attempt_at IS NULL);

CREATE INDEX queue_tests ON walhook.queue USING btree (webhook_id, next_attempt_at) WHERE (kind = 2);

CREATE INDEX webhook_by_assessment ON walhook.webhook USING btree (assessment_id, event_type) WHERE enabled;

CREATE INDEX webhook_by_endpoint ON walhook.webhook USING btree (endpoint_id);

CREATE INDEX webhook_for_all ON walhook.webhook USING btree (event_type) WHERE (enabled AND (assessment_id IS NULL));

ALTER INDEX walhook.attempt_by_delivery ATTACH PARTITION walhook.attempt_20261001t000000_delivery_id_attempt_idx;

ALTER INDEX walhook.attempt_by_delivery ATTACH PARTITION walhook.attempt_20261101t000000_delivery_id_attempt_idx;

ALTER INDEX walhook.attempt_by_delivery ATTACH PARTITION walhook.attempt_20261201t000000_delivery_id_attempt_idx;

ALTER INDEX walhook.attempt_by_delivery ATTACH PARTITION walhook.attempt_20270101t000000_delivery_id_attempt_idx;

ALTER INDEX walhook.attempt_by_delivery ATTACH PARTITION walhook.attempt_20270201t000000_delivery_id_attempt_idx;

ALTER INDEX walhook.log_by_delivery ATTACH PARTITION walhook.log_20261001t000000_delivery_id_idx;

ALTER INDEX walhook.log_redelivered ATTACH PARTITION walhook.log_20261001t000000_redelivery_of_idx;

ALTER INDEX walhook.log_by_response ATTACH PARTITION walhook.log_20261001t000000_response_id_idx;

ALTER INDEX walhook.log_by_webhook ATTACH PARTITION walhook.log_20261001t000000_webhook_id_finished_at_idx;

ALTER INDEX walhook.log_failed ATTACH PARTITION walhook.log_20261001t000000_webhook_id_finished_at_idx1;

ALTER INDEX walhook.log_by_delivery ATTACH PARTITION walhook.log_20261101t000000_delivery_id_idx;

ALTER INDEX walhook.log_redelivered ATTACH PARTITION walhook.log_20261101t000000_redelivery_of_idx;

ALTER INDEX walhook.log_by_response ATTACH PARTITION walhook.log_20261101t000000_response_id_idx;

ALTER INDEX walhook.log_by_webhook ATTACH PARTITION walhook.log_20261101t000000_webhook_id_finished_at_idx;

ALTER INDEX walhook.log_failed ATTACH PARTITION walhook.log_20261101t000000_webhook_id_finished_at_idx1;

ALTER INDEX walhook.log_by_delivery ATTACH PARTITION walhook.log_20261201t000000_delivery_id_idx;

ALTER INDEX walhook.log_redelivered ATTACH PARTITION walhook.log_20261201t000000_redelivery_of_idx;

ALTER INDEX walhook.log_by_response ATTACH PARTITION walhook.log_20261201t000000_response_id_idx;

ALTER INDEX walhook.log_by_webhook ATTACH PARTITION walhook.log_20261201t000000_webhook_id_finished_at_idx;

ALTER INDEX walhook.log_failed ATTACH PARTITION walhook.log_20261201t000000_webhook_id_finished_at_idx1;

ALTER INDEX walhook.log_by_delivery ATTACH PARTITION walhook.log_20270101t000000_delivery_id_idx;

ALTER INDEX walhook.log_redelivered ATTACH PARTITION walhook.log_20270101t000000_redelivery_of_idx;

ALTER INDEX walhook.log_by_response ATTACH PARTITION walhook.log_20270101t000000_response_id_idx;

ALTER INDEX walhook.log_by_webhook ATTACH PARTITION walhook.log_20270101t000000_webhook_id_finished_at_idx;

ALTER INDEX walhook.log_failed ATTACH PARTITION walhook.log_20270101t000000_webhook_id_finished_at_idx1;

ALTER INDEX walhook.log_by_delivery ATTACH PARTITION walhook.log_20270201t000000_delivery_id_idx;

ALTER INDEX walhook.log_redelivered ATTACH PARTITION walhook.log_20270201t000000_redelivery_of_idx;

ALTER INDEX walhook.log_by_response ATTACH PARTITION walhook.log_20270201t000000_response_id_idx;

ALTER INDEX walhook.log_by_webhook ATTACH PARTITION walhook.log_20270201t000000_webhook_id_finished_at_idx;

ALTER INDEX walhook.log_failed ATTACH PARTITION walhook.log_20270201t000000_webhook_id_finished_at_idx1;

CREATE TRIGGER settings_check BEFORE INSERT OR UPDATE ON walhook.settings FOR EACH ROW EXECUTE FUNCTION walhook.check_settings();

CREATE TRIGGER settings_keep BEFORE DELETE OR TRUNCATE ON walhook.settings FOR EACH STATEMENT EXECUTE FUNCTION walhook.keep_settings();

CREATE TRIGGER settings_wake AFTER UPDATE ON walhook.settings FOR EACH STATEMENT EXECUTE FUNCTION walhook.wake();

CREATE TRIGGER webhook_bury AFTER DELETE ON walhook.webhook FOR EACH ROW EXECUTE FUNCTION walhook.bury_webhook();

CREATE TRIGGER webhook_prepare BEFORE INSERT OR UPDATE ON walhook.webhook FOR EACH ROW EXECUTE FUNCTION walhook.prepare_webhook();

CREATE TRIGGER webhook_wake AFTER INSERT OR DELETE OR UPDATE ON walhook.webhook FOR EACH STATEMENT EXECUTE FUNCTION walhook.wake();

ALTER TABLE ONLY walhook.webhook
    ADD CONSTRAINT webhook_endpoint_id_fkey FOREIGN KEY (endpoint_id) REFERENCES walhook.endpoint(id);

