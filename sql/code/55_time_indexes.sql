-- The indexes on local times, which the queries of people use.

-- Their definitions. The name of the zone is part of each name, since each zone needs its own indexes.
create or replace function walhook.time_indexes(out parent regclass, out kind text, out name name, out columns text) returns setof record
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select d.parent, d.kind, (d.kind || '_' || s.time_zone)::name, replace(d.columns, 'local(', format('timezone(%L, ', s.time_zone))
    from walhook.settings s
   cross join (
     select l.parent, l.prefix || i.kind, i.columns
       from (values ('walhook.log'::regclass, 'log_'), ('walhook.log_overflow', 'overflow_')) as l (parent, prefix)
      cross join (values
        ('newest', '(local(finished_at))'),
        ('webhook', '(webhook_id, local(finished_at))'),
        -- Rows that are not as usual are far apart.
        ('failed_newest', $q$(local(finished_at)) where case when succeeded then 'success' else 'failed' end <> 'success'$q$),
        ('failed_webhook', $q$(webhook_id, local(finished_at)) where case when succeeded then 'success' else 'failed' end <> 'success'$q$),
        ('http_status', '(http_status, local(finished_at)) where http_status < 200 or http_status > 299'),
        ('kind', '(kind, local(finished_at)) where kind <> 0')) as i (kind, columns)
     union all
     values
       ('walhook.attempt'::regclass, 'attempt_newest', '(local(attempted_at))'),
       ('walhook.attempt_overflow', 'attempt_overflow_newest', '(local(attempted_at))'),
       ('walhook.queue', 'queue_newest', '(local(last_attempt_at))'),
       -- With the id, which orders those that were never tried.
       ('walhook.queue', 'queue_webhook', '((webhook_id - 0), local(last_attempt_at), delivery_id)'),
       ('walhook.queue', 'queue_http_status', '(http_status, local(last_attempt_at)) where http_status < 200 or http_status > 299'),
       ('walhook.queue', 'queue_kind', '(kind, local(last_attempt_at)) where kind <> 0')) as d (parent, kind, columns)
$$;
comment on function walhook.time_indexes() is 'Internal: the indexes on local times that there should be.';

-- One at a time, since recording waits while an index of the newest partition is built. It returns how many were missing: with at_most, call it
-- until that is 0. Indexes for another time zone go once none is missing; somebody who reads the log for long keeps them.
create or replace function walhook.ensure_time_indexes(at_most integer default null) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '300ms' -- less than deadlock_timeout, after which a reader would be ended instead
as $$
declare
  i     record;
  part  regclass;
  child text;
  built integer := 0;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('walhook.ensure_time_indexes', 0)) then
    return 0; -- another daemon is building them
  end if;
  for i in select t.*, format('walhook.%I', t.name) as qualified, c.relkind = 'p' as partitioned
             from walhook.time_indexes() t join pg_class c on c.oid = t.parent loop
    if to_regclass(i.qualified) is null then
      execute format('create index %I on only %s %s', i.name, i.parent, i.columns);
      built := built + (not i.partitioned)::integer;
    end if;
    for part in
      select p.inhrelid from pg_inherits p
       where p.inhparent = i.parent and not exists (
         select from pg_index x join pg_inherits a on a.inhrelid = x.indexrelid
          where x.indrelid = p.inhrelid and a.inhparent = to_regclass(i.qualified))
    loop
      exit when built >= at_most;
      child := format('walhook.%I', left(i.kind, 20) || '_' || part::oid || '_' || substr(md5(i.name), 1, 8));
      execute format('create index %s on %s %s', substring(child from '[^.]*$'), part, i.columns);
      execute format('alter index %s attach partition %s', i.qualified, child);
      built := built + 1;
    end loop;
    exit when built >= at_most;
  end loop;
  if built = 0 then
    for i in select x.indexrelid::regclass as stale from walhook.time_indexes() t
               join pg_index x on x.indrelid = t.parent
               join pg_class c on c.oid = x.indexrelid and c.relname <> t.name and starts_with(c.relname, t.kind || '_') loop
      execute format('drop index %s', i.stale);
    end loop;
  end if;
  return built;
exception
  when lock_not_available then
    return 0; -- the next call builds them
end
$$;
comment on function walhook.ensure_time_indexes(integer) is
  'Internal: builds the indexes on local times that are missing, as after a change of walhook.settings.time_zone, and returns how many.';

select walhook.ensure_time_indexes();
