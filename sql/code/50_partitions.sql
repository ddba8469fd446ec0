-- Time partitions of the log: made ahead, dropped whole.

create or replace function walhook.ensure_partitions(unit text default 'month') returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  parent regclass;
  bound  timestamptz;
  upper  timestamptz;
  step   interval;
  made   integer := 0;
begin
  if unit not in ('minute', 'hour', 'day', 'month') then
    raise exception 'partitions by "%" are not supported', unit using hint = 'Use minute, hour, day or month.';
  end if;
  step := ('1 ' || unit)::interval;
  perform set_config('timezone', 'UTC', true);
  lock table walhook.incident_log in share update exclusive mode; -- one session at a time
  foreach parent in array array['walhook.log'::regclass, 'walhook.attempt'::regclass] loop
    select max(substring(pg_get_expr(c.relpartbound, c.oid) from $re$TO \('([^']+)'\)$re$)::timestamptz) into bound
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = parent;
    bound := coalesce(bound, date_trunc(unit, now()) - step);
    while bound <= now() + 3 * step loop
      -- The first one of a new, coarser unit runs up to that unit's next boundary.
      upper := date_trunc(unit, bound) + step;
      execute format('create table %s partition of %s for values from (%L) to (%L)',
        format('walhook.%I', (select relname from pg_class where oid = parent) || '_' || to_char(bound, 'YYYYMMDD"t"HH24MI')),
        parent, bound, upper);
      made := made + 1;
      bound := upper;
    end loop;
  end loop;
  return made;
end
$$;
comment on function walhook.ensure_partitions(text) is 'Makes the log''s partitions up to three units ahead and returns how many were missing.';

create or replace function walhook.drop_partitions(older_than interval) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  part    regclass;
  dropped integer := 0;
begin
  if older_than is null or older_than <= interval '0' then
    raise exception 'drop_partitions needs a positive age';
  end if;
  perform set_config('timezone', 'UTC', true);
  perform set_config('lock_timeout', '2s', true);
  for part in
    select c.oid::regclass
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent in ('walhook.log'::regclass, 'walhook.attempt'::regclass)
       and substring(pg_get_expr(c.relpartbound, c.oid) from $re$TO \('([^']+)'\)$re$)::timestamptz <= now() - older_than
  loop
    execute format('drop table %s', part);
    dropped := dropped + 1;
  end loop;
  return dropped;
end
$$;
comment on function walhook.drop_partitions(interval) is 'Drops the log''s partitions in which everything is older than that, and returns how many.';
