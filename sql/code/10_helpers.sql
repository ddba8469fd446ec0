-- Small functions that views, triggers and queries share. Each pins its search_path and qualifies what it names.

-- Rows move between queue, log and overflow by the names of their columns, so a new column needs no change here.
create or replace function walhook.shared_columns(one regclass, other regclass, without text[] default '{}') returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
    from pg_attribute a join pg_attribute b on b.attname = a.attname and b.attnum > 0 and not b.attisdropped
   where a.attrelid = one and b.attrelid = other and a.attnum > 0 and not a.attisdropped and a.attname <> all (without)
$$;
comment on function walhook.shared_columns(regclass, regclass, text[]) is 'Internal: the columns that two tables share, as a list for SQL.';

create or replace function walhook.display_url(url text) returns text
language sql immutable strict parallel safe
return lower(substring(url from '^([A-Za-z]+://)')) || substring(url from '^[A-Za-z]+://(?:[^/?#]*@)?([^/?#@]*)');
comment on function walhook.display_url(text) is 'Scheme and host of a URL, which is all that viewers may see.';

-- Views show local times through walhook.local_time, which has the zone as a literal: the planner can inline the expression and find
-- the indexes on it. After a change queries are planned again, prepared ones as well.
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
comment on function walhook.local_time(timestamptz) is 'Converts a timestamp to the time zone of walhook.settings.';

create or replace function walhook.time_text(moment timestamptz) returns text
language sql stable strict
set search_path = pg_catalog, pg_temp
as $$ select to_char(walhook.local_time(moment), 'YYYY-MM-DD HH24:MI:SS ') || s.time_zone from walhook.settings s $$;
comment on function walhook.time_text(timestamptz) is 'Internal: a time as sentences name it, with the zone.';

-- Invisible characters, which are easily copied from documents and mails: Unicode's blanks, control and format characters, and those that are
-- default ignorable.
create or replace function walhook.unseen_character(url text) returns text
language plpgsql stable strict
set search_path = pg_catalog, pg_temp
as $$
declare
  unseen text;
begin
  if getdatabaseencoding() <> 'UTF8' then
    return null;
  end if;
  unseen := substring(url from '[\u0080-\u00a0\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f'
    '\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff'
    '\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]');
  if unseen is null then
    return null;
  end if;
  return format('the invisible character U+%s%s, at position %s', regexp_replace(upper(lpad(to_hex(ascii(unseen)), 8, '0')), '^0{1,4}', ''), case ascii(unseen)
    when x'00a0'::integer then ' (no-break space)'
    when x'00ad'::integer then ' (soft hyphen)'
    when x'200b'::integer then ' (zero width space)'
    when x'200c'::integer then ' (zero width non-joiner)'
    when x'200d'::integer then ' (zero width joiner)'
    when x'200e'::integer then ' (left-to-right mark)'
    when x'200f'::integer then ' (right-to-left mark)'
    when x'202a'::integer then ' (left-to-right embedding)'
    when x'202c'::integer then ' (pop directional formatting)'
    when x'202d'::integer then ' (left-to-right override)'
    when x'202e'::integer then ' (right-to-left override)'
    when x'202f'::integer then ' (narrow no-break space)'
    when x'2060'::integer then ' (word joiner)'
    when x'3000'::integer then ' (ideographic space)'
    when x'feff'::integer then ' (byte order mark)'
    else '' end, position(unseen in url));
end
$$;
comment on function walhook.unseen_character(text) is 'Internal: names the first invisible character of a URL; NULL if there is none.';

-- URLs that are valid, but rarely what somebody means.
create or replace function walhook.url_doubt(url text) returns text
language plpgsql stable strict
set search_path = pg_catalog, pg_temp
as $$
begin
  if url ~ '[,;]$' then
    return format('ends with "%s", which is sent as part of it', right(url, 1));
  elsif getdatabaseencoding() = 'UTF8' and url ~ '[\u00ab\u00bb\u2018-\u201f\u2039\u203a]' then
    return 'holds typographic quotation marks, which are sent as part of it';
  end if;
  return null;
end
$$;
comment on function walhook.url_doubt(text) is 'Internal: what is probably a mistake in a valid URL; NULL if nothing is.';

-- Refuses at once what the senders would refuse later. No message repeats any part of the URL.
create or replace function walhook.url_fault(url text) returns text
language plpgsql stable strict
set search_path = pg_catalog, pg_temp
as $$
declare
  authority text := substring(url from '^[A-Za-z]+://([^/?#]*)');
  host      text := regexp_replace(substring(authority from '[^@]*$'), ':[0-9]*$', '');
  port      text := substring(authority from ':([0-9]+)$');
  unseen    text := walhook.unseen_character(url);
begin
  if unseen is not null then
    return format('must not hold %s: delete it, or write it percent-encoded', unseen);
  end if;
  if authority ~ '[^\x01-\x7f]' then
    return 'must have its host name in ASCII, such as xn--r8jz45g.jp for an international one';
  end if;
  -- As strict as the table's constraints, whose message would write the whole row, with URL and secret, to the server's log.
  if length(url) > 2048 or url !~*
    '^https?://([^/?#@[:space:][:cntrl:]]*@)?([a-z0-9._~%!$&''()*+,;=-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?([/?#][^[:space:][:cntrl:]]*)?$' then
    return 'must be an absolute http or https URL';
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
comment on function walhook.url_fault(text) is 'Internal: why a URL is refused; NULL if it is accepted.';

-- No message repeats a value, or a name that is not reserved. The pattern of a name is that of a token in HTTP (RFC 9110, section 5.6.2).
create or replace function walhook.headers_fault(headers jsonb) returns text
language plpgsql stable strict
set search_path = pg_catalog, pg_temp
as $$
declare
  control  constant text := case when getdatabaseencoding() = 'UTF8' then '[\x01-\x1f\x7f\u0080-\u009f]' else '[\x01-\x1f\x7f]' end;
  reserved constant text := '^((?:host|user-agent|connection|keep-alive|proxy-connection|transfer-encoding|te|trailer|upgrade|expect)$|content-|webhook-|walhook-)';
  header   record;
  taken    text;
begin
  if jsonb_typeof(headers) <> 'object' then
    return 'must be a JSON object of names and values';
  elsif (select count(*) from jsonb_object_keys(headers)) > 20 then
    return 'must have at most 20 names';
  end if;
  for header in
    select h.key as name, lower(h.key collate "C") as folded, jsonb_typeof(h.value) as type, h.value #>> '{}' as value from jsonb_each(headers) h
  loop
    taken := substring(header.folded from reserved);
    if header.name !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]+$' then
      return 'must have names of letters, digits and hyphens';
    elsif taken is not null then
      return format('must not set %s, which is reserved', case when taken like '%-' then taken || '*' else taken end);
    elsif header.type <> 'string' then
      return 'must have a text as each value';
    elsif header.value ~ control then
      return 'must not have a control character in a value, such as a line break or a tab';
    end if;
  end loop;
  if (select sum(octet_length(h.key) + octet_length(h.value)) from jsonb_each_text(headers) h) > 4096 then
    return 'must have at most 4 kB in all';
  elsif (select count(*) <> count(distinct lower(h.name collate "C")) from jsonb_object_keys(headers) h (name)) then
    return 'must have each name once, whatever its case';
  end if;
  return null;
end
$$;
comment on function walhook.headers_fault(jsonb) is 'Internal: why headers are refused; NULL if they are accepted.';

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
  'The webhook-id header of a delivery that is not a redelivery; deterministic.';

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
comment on function walhook.wake() is 'Internal: notifies the daemons that an administrator changed something.';

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
  'Moves the stored position of the stream. Fails with WH001 if somebody else has moved it.';

-- TRUNCATE waits for every open transaction that has read the table, such as that of pg_dump, and blocks all other sessions meanwhile.
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
comment on function walhook.clear_table(regclass) is 'Internal: empties a table without waiting for its readers.';
