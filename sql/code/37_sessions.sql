-- Sessions of the console. No role reads the table; a console passes the hash of the token that a browser sent. idle is how long a session
-- lasts without a request of its person.

create or replace function walhook.begin_session(token_hash bytea, person text, groups text[], sealed bytea, life interval) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into walhook.console_session (token_hash, person, groups, sealed, expires_at)
  values (begin_session.token_hash, begin_session.person, begin_session.groups, begin_session.sealed, now() + life);
  -- A person keeps the newest 12 sessions.
  delete from walhook.console_session s
   where s.token_hash in (select o.token_hash from walhook.console_session o where o.person = begin_session.person
                           order by o.created_at desc, o.token_hash offset 12);
end
$$;
comment on function walhook.begin_session(bytea, text, text[], bytea, interval) is 'Internal: begins a session of the console.';

-- Only one request of all consoles gets ask = true, since a refresh token may work only once.
create or replace function walhook.use_session(token_hash bytea, live boolean, idle interval, recheck interval)
returns table (person text, groups text[], sealed bytea, named_at timestamptz, ask boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  found_session walhook.console_session;
  asks          boolean := false;
begin
  select * into found_session from walhook.console_session s
   where s.token_hash = use_session.token_hash and s.expires_at > now() and s.seen_at > now() - idle;
  if not found then
    return;
  end if;
  if current_setting('transaction_read_only') = 'off' then
    if not live and found_session.seen_at < now() - interval '1 minute' then
      update walhook.console_session s set seen_at = now() where s.token_hash = use_session.token_hash;
    end if;
    if found_session.asked_at <= now() - recheck then
      update walhook.console_session s set asked_at = now() where s.token_hash = use_session.token_hash and s.asked_at <= now() - recheck;
      asks := found;
    end if;
  end if;
  return query select found_session.person, found_session.groups, found_session.sealed, found_session.named_at, asks;
end
$$;
comment on function walhook.use_session(bytea, boolean, interval, interval) is
  'Internal: returns a session of the console, and whether to ask the provider for the groups; no row if it has ended.';

create or replace function walhook.renew_session(token_hash bytea, groups text[], sealed bytea, named boolean) returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  update walhook.console_session s
     set groups = renew_session.groups, sealed = renew_session.sealed, named_at = case when named then now() else s.named_at end
   where s.token_hash = renew_session.token_hash
$$;
comment on function walhook.renew_session(bytea, text[], bytea, boolean) is 'Internal: stores what the provider answered about a session of the console.';

create or replace function walhook.end_session(token_hash bytea) returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  delete from walhook.console_session s where s.token_hash = end_session.token_hash
$$;
comment on function walhook.end_session(bytea) is 'Internal: ends a session of the console.';

create or replace function walhook.reap_sessions(idle interval) returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  delete from walhook.console_session s where s.expires_at <= now() or s.seen_at <= now() - idle
$$;
comment on function walhook.reap_sessions(interval) is 'Internal: deletes sessions of the console that have ended.';
