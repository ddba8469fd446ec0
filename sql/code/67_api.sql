-- Views and functions of the HTTP API. All of them obey the API key in force.

-- A key with scope read sees only scheme and host of URLs, as viewers do.
create or replace view walhook.api_webhook with (security_barrier) as
  select v.id,
         case when (select k.scope = 'read' from walhook.api_credential k where k.id::text = current_setting('walhook.api_key', true))
           then walhook.display_url(v.url) else v.url end as url,
         v.event_type, v.assessment_id, v.organization_id, v.description, v.enabled, v.ordered, v.log_successes, v.secret is not null as signed,
         v.headers is not null as has_headers, v.created_at, v.updated_at, v.disabled_at, v.disabled_reason
    from walhook.visible_webhook v;
comment on view walhook.api_webhook is 'Internal: the webhooks as the HTTP API returns them.';

create or replace function walhook.known_event(event_type text) returns smallint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  number constant smallint := array_position(walhook.event_names(), lower(btrim(event_type)));
begin
  if number is null and event_type is not null then
    raise exception 'event type "%" is not known', event_type
      using errcode = 'check_violation', column = 'event_type',
            hint = format('Use %s.', regexp_replace(array_to_string(walhook.event_names(), ', '), ', ([^,]*)$', ' or \1'));
  end if;
  return number;
end
$$;
comment on function walhook.known_event(text) is 'Internal: the number of an event; fails for an unknown name.';

create or replace function walhook.create_webhook(url text, event_type text, assessment_id text default null, organization_id text default null,
  description text default null, headers jsonb default null, ordered boolean default true, out id bigint, out new_secret text) returns record
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  key walhook.api_credential := walhook.api_key_in_force();
begin
  perform walhook.check_api_key('{webhooks, admin}', key.organization_id, null);
  -- Of two concurrent calls, the second one finds what the first one created.
  perform pg_advisory_xact_lock(hashtextextended(concat_ws(' ', 'walhook.create_webhook', key.id, btrim(create_webhook.url, E' \t\r\n')), 0));
  select w.id into create_webhook.id
    from walhook.webhook w
   where w.api_key_id is not distinct from key.id and w.url = btrim(create_webhook.url, E' \t\r\n')
     and w.event_type = lower(btrim(create_webhook.event_type))
     and w.assessment_id is not distinct from coalesce(walhook.column_id('assessment', create_webhook.assessment_id), create_webhook.assessment_id)
     and w.organization_id is not distinct from
         coalesce(key.organization_id, walhook.organization_id(create_webhook.organization_id), create_webhook.organization_id)
   order by w.id limit 1;
  if not found then
    insert into walhook.webhook as w (url, event_type, assessment_id, organization_id, description, headers, ordered, secret)
    values (create_webhook.url, create_webhook.event_type, create_webhook.assessment_id, create_webhook.organization_id, create_webhook.description,
            create_webhook.headers, create_webhook.ordered, walhook.new_secret())
    returning w.id, w.secret into create_webhook.id, create_webhook.new_secret;
  end if;
end
$$;
comment on function walhook.create_webhook(text, text, text, text, text, jsonb, boolean) is
  'Creates a webhook with a new signing secret, and returns its id and the secret. If the same API key (or, without a key, a person) has already created one with '
  'the same URL, event, assessment and organization, returns its id and no secret, and changes nothing.';

-- Deleting a webhook again is no error. The change log shows that it existed.
create or replace function walhook.delete_webhook(id bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  key walhook.api_credential := walhook.api_key_in_force();
begin
  perform walhook.check_api_key('{webhooks, admin}', key.organization_id, null);
  delete from walhook.visible_webhook v where v.id = delete_webhook.id;
  if not found and (exists (select from walhook.webhook w where w.id = delete_webhook.id) or not exists (
    select from walhook.change c
     where c.object = 'webhook' and c.object_id = delete_webhook.id and c.action = 'delete'
       and (key.organization_id is null or c.changes -> 'organization_id' ->> 'old' = key.organization_id))) then
    raise exception 'there is no webhook %', delete_webhook.id
      using errcode = 'no_data_found', hint = 'See SELECT id, event_type, url FROM walhook.webhook;';
  end if;
end
$$;
comment on function walhook.delete_webhook(bigint) is 'Internal: deletes a webhook; nothing happens if it was deleted before.';

-- Which responses a webhook would be sent, the newest first. Without an event, whatever has happened to them. Events, and assessments
-- without an external id, are looked for among the newest 10,000 responses of their assessment, organization or site: no index has them.
create or replace function walhook.newest_responses(assessment_id text, organization_id text, event_type smallint, at_most integer)
returns setof walhook.response_state
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  scanned    constant integer := 10000;
  newest     constant text := '(select s.* from walhook.response_state s where %s order by s.created_lsn desc nulls last limit %s)';
  external   constant boolean := assessment_id is null and coalesce((select a.assessment_oid <> 0 from walhook.attachment a), false);
  candidates text;
  matching   text;
begin
  if newest_responses.organization_id is not null then -- as in organization_of
    candidates := format(newest, format('s.organization_id = %L', newest_responses.organization_id), scanned) || format('
      union all
      select s.* from walhook.assessment a
       cross join lateral %s s
       where a.organization_id = %L %s', format(newest, 's.assessment_id = a.assessment_id and s.organization_id is null', at_most * 20), newest_responses.organization_id,
      case when assessment_id is not null then format('and a.assessment_id = %L', assessment_id) end);
  else
    candidates := format(newest, case when assessment_id is null then 'true' else format('s.assessment_id = %L', newest_responses.assessment_id) end, scanned);
  end if;
  matching := format('select s.* from (%%s) s where %s order by s.created_lsn desc nulls last, length(s.response_id) desc, s.response_id desc limit %s',
    concat_ws(' and ', 'not walhook.has_flag(s.flags, ''excluded'')',
      case when newest_responses.assessment_id is not null then format('s.assessment_id = %L', newest_responses.assessment_id) end,
      case when external then 'exists (select from walhook.assessment a where a.assessment_id = s.assessment_id and a.external_id is not null)' end,
      case newest_responses.event_type
        when 2 then 'walhook.has_flag(s.flags, ''started'')'
        when 3 then 'walhook.has_flag(s.flags, ''completed'')'
        when 4 then 'walhook.fate_has(s.fate, ''fired'', 4)'
      end), at_most);
  return query execute format(matching, candidates);
  if external and organization_id is null and not found then
    return query execute format(matching, 'select s.* from walhook.assessment a cross join lateral '
      || format(newest, 's.assessment_id = a.assessment_id', at_most) || ' s where a.external_id is not null');
  end if;
end
$$;
comment on function walhook.newest_responses(text, text, smallint, integer) is 'Internal: the newest responses that a webhook matches.';

-- The time is that of the delivery in the log or, if there is none, the latest that the state has.
create or replace function walhook.samples(event_type text, assessment_id text, at_most integer)
returns table (event text, happened_at timestamptz, response_id text, numeric_id boolean)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  key    walhook.api_credential := walhook.api_key_in_force();
  wanted smallint := walhook.known_event(samples.event_type);
begin
  return query
    select walhook.event_name(n.event_number),
           coalesce((select max(d.committed_at)
                       from (select q.committed_at, q.event_type, q.kind from walhook.queue q where q.response_id = n.response_id
                             union all
                             select l.committed_at, l.event_type, l.kind from walhook.log_entry l where l.response_id = n.response_id) d
                      where d.event_type = n.event_number and d.kind in (0, 1)), n.fired_at, a.attached_at, now()),
           n.response_id, a.numeric_id
      from walhook.attachment a
     cross join (
       select r.*, coalesce(wanted, case when walhook.has_flag(r.flags, 'completed') then 3 when walhook.has_flag(r.flags, 'started') then 2 else 1 end)::smallint as event_number
         from walhook.newest_responses(coalesce(walhook.column_id('assessment', samples.assessment_id), samples.assessment_id), key.organization_id, wanted, at_most)
              with ordinality r) n
     order by n.ordinality;
end
$$;
comment on function walhook.samples(text, text, integer) is
  'Internal: what the bodies of a webhook contain, for the newest responses that it matches; without an event, for the latest event of each.';
