-- Small functions that views, triggers and queries share. Each pins its search_path and qualifies what it names.

-- Not strict, so that the planner puts the expression itself in its place.
create or replace function walhook.event_name(event_type smallint) returns text
language sql immutable parallel safe
return case event_type
  when 1 then 'response.created'
  when 2 then 'response.started'
  when 3 then 'response.completed'
  when 4 then 'response.changed'
end;
comment on function walhook.event_name(smallint) is 'The public name of an event type''s number.';

create or replace function walhook.event_number(event_type text) returns smallint
language sql immutable strict parallel safe
return case event_type
  when 'response.created' then 1
  when 'response.started' then 2
  when 'response.completed' then 3
  when 'response.changed' then 4
end;
comment on function walhook.event_number(text) is 'The stored number of an event type''s public name.';

create or replace function walhook.display_url(url text) returns text
language sql immutable strict parallel safe
return lower(substring(url from '^([A-Za-z]+://)')) || substring(url from '^[A-Za-z]+://(?:[^/?#]*@)?([^/?#@]*)');
comment on function walhook.display_url(text) is 'Scheme and host of a URL: as much as people who are not administrators may see.';

-- Views show local times by walhook.local_time. It has the zone as a literal, so that the planner can put the expression in its place and
-- find the indexes on it. After a change plans are made anew, in sessions that prepared a query as well.
create or replace function walhook.set_local_time(zone text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('create or replace function walhook.local_time(moment timestamptz) returns timestamp
    language sql immutable strict parallel safe return moment at time zone %L', zone);
end
$$;
comment on function walhook.set_local_time(text) is 'Internal: changes the time zone of walhook.local_time.';

select walhook.set_local_time(s.time_zone) from walhook.settings s for update;
comment on function walhook.local_time(timestamptz) is 'The local time of a moment in the time zone of walhook.settings.';

-- Refuses what the senders would refuse, while the administrator is still there to hear it. No sentence repeats any of the URL.
create or replace function walhook.url_fault(url text) returns text
language plpgsql stable strict
set search_path = pg_catalog, pg_temp
as $$
declare
  authority text := substring(url from '^[A-Za-z]+://([^/?#]*)');
  host      text := regexp_replace(substring(authority from '[^@]*$'), ':[0-9]*$', '');
  port      text := substring(authority from ':([0-9]+)$');
begin
  if authority ~ '[^\x01-\x7f]' then
    return 'must have its host name in ASCII, such as xn--r8jz45g.jp for an international one';
  end if;
  -- As strict as the table's constraints, whose own message repeats the whole row, URL and secret included, and lands in the server's log.
  if length(url) > 2048 or url !~*
    '^https?://([^/?#@[:space:][:cntrl:]]*@)?([a-z0-9._~%!$&''()*+,;=-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?([/?#][^[:space:][:cntrl:]]*)?$' then
    return 'must be an absolute http or https URL';
  end if;
  if getdatabaseencoding() = 'UTF8' and url ~ '[\u0080-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]' then
    return 'must not hold blanks or control characters';
  end if;
  if port::integer not between 1 and 65535 then
    return 'must have a port from 1 to 65535';
  end if;
  if authority ~ '@' and authority !~ '^([A-Za-z0-9._~!$&''()*+,;=:-]|%[0-9A-Fa-f]{2})*@' then
    return 'must have user and password percent-encoded';
  end if;
  if url ~ '^[^?#]*%(?![0-9A-Fa-f]{2})' or url ~ '#.*%(?![0-9A-Fa-f]{2})' then
    return 'must have a percent sign in its path written as %25';
  end if;
  if host ~ '^\[' then
    begin
      if family(btrim(host, '[]')::inet) <> 6 then
        return 'must have an IPv6 address between the brackets';
      end if;
    exception when invalid_text_representation then
      return 'must have an IPv6 address between the brackets';
    end;
  elsif host !~ '^[A-Za-z0-9._-]+$' then
    return 'must have a name or an address as its host';
  end if;
  return null;
end
$$;
comment on function walhook.url_fault(text) is 'Internal: why a URL cannot be that of a webhook; NULL where it can.';

create or replace function walhook.message_id(kind smallint, delivery_id bigint, lsn pg_lsn, ordinal bigint, event_type smallint, webhook_id bigint)
returns text
language sql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
as $$
  select 'msg_' || left(encode(sha256(convert_to(
    case when $1 in (0, 1)
      then concat_ws('|', o.events, $3, $4, $5, $6)
      else concat_ws('|', o.manual, $2)
    end, 'UTF8')), 'hex'), 32)
  from walhook.origin o
  where o.from_delivery_id <= $2
  order by o.from_delivery_id desc
  limit 1
$$;
comment on function walhook.message_id(smallint, bigint, pg_lsn, bigint, smallint, bigint) is
  'The webhook-id header of a delivery: the same whoever computes it, and when.';

-- The daemon's sessions listen on this channel; a notification says only that something changed.
create or replace function walhook.wake() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_notify('walhook', '');
  return null;
end
$$;
comment on function walhook.wake() is 'Tells the daemons that an administrator changed something.';

-- Compare and set: of two daemons that both believe they read the slot, one fails here and its transaction with it.
create or replace function walhook.advance(from_turn bigint, to_lsn pg_lsn, to_partial_lsn pg_lsn, to_partial_changes bigint) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from walhook.position p where p.turn = from_turn;
  if not found then
    raise exception 'the stored position is no longer that of turn %', from_turn
      using errcode = 'WH001', hint = 'Another daemon advanced it; this one starts over from the stored position.';
  end if;
  insert into walhook.position (turn, lsn, partial_lsn, partial_changes) values (from_turn + 1, to_lsn, to_partial_lsn, to_partial_changes);
end
$$;
comment on function walhook.advance(bigint, pg_lsn, pg_lsn, bigint) is
  'Moves the stored position of the stream, or fails with WH001 when it is not where the caller left it.';

-- TRUNCATE waits for everybody who has read the table in a transaction that is still open, such as pg_dump, and keeps all others waiting.
create or replace function walhook.clear_table(what regclass) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '300ms'
as $$
begin
  execute format('truncate %s', what);
exception
  when lock_not_available then
    execute format('delete from %s', what);
end
$$;
comment on function walhook.clear_table(regclass) is 'Internal: empties a table without waiting for those who read it.';
