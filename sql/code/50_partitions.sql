-- Time partitions of the log: created ahead, dropped whole. Bounds are written and read in UTC.

-- Partitions of a table with their bounds.
create or replace function walhook.partitions_of(parent regclass) returns table (part regclass, lower timestamptz, upper timestamptz)
language sql stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
  select c.oid::regclass, substring(b.bounds from $re$FROM \('([^']+)'\)$re$)::timestamptz, substring(b.bounds from $re$TO \('([^']+)'\)$re$)::timestamptz
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
   cross join lateral (select pg_get_expr(c.relpartbound, c.oid) as bounds) b
   where i.inhparent = $1
$$;
comment on function walhook.partitions_of(regclass) is 'Internal: a table''s partitions with their bounds.';

create or replace function walhook.partition_begin(unit text, moment timestamptz) returns timestamptz
language sql immutable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
  select case unit when 'month' then date_trunc('month', moment)
    else date_bin(case unit when '10 seconds' then interval '10 seconds' else ('1 ' || unit)::interval end, moment, '2000-01-01 00:00:00+00') end
$$;
comment on function walhook.partition_begin(text, timestamptz) is 'Internal: where the partition of a moment begins.';

-- Creates a table and attaches it. Unlike CREATE TABLE PARTITION OF, that does not block readers and writers of the log. A partition that
-- somebody detached keeps its name, so a new one for the same time gets another name.
create or replace function walhook.make_partition(parent regclass, lower timestamptz, upper timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  stem    text := (select c.relname from pg_class c where c.oid = parent) || '_' || to_char(lower, 'YYYYMMDD"t"HH24MISS');
  part    text := format('walhook.%I', stem);
  grantee text;
begin
  for n in 2 .. 100 loop
    exit when to_regclass(part) is null;
    part := format('walhook.%I', stem || '_' || n);
  end loop;
  execute format('create table %s (like %s including defaults including constraints)', part, parent);
  execute format('alter table %s replica identity full', part); -- for publications FOR ALL TABLES
  for grantee in -- by ALTER DEFAULT PRIVILEGES
    select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end
      from pg_class c cross join lateral aclexplode(c.relacl) a where c.oid = part::regclass and a.grantee <> c.relowner
  loop
    execute format('revoke all on table %s from %s', part, grantee);
  end loop;
  execute format('alter table %s attach partition %s for values from (%L) to (%L)', parent, part, lower, upper);
end
$$;
comment on function walhook.make_partition(regclass, timestamptz, timestamptz) is 'Internal: creates one partition.';

-- Called if the unit has become finer: drops future partitions, which are empty, and ends the current one at the unit's next boundary.
create or replace function walhook.cut_partitions(parent regclass, unit text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set lock_timeout = '300ms' -- less than deadlock_timeout, after which a reader would be ended instead
as $$
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
    perform set_config('lock_timeout', '1ms', true); -- whoever already holds locks on the log must not wait
  end loop;
exception
  when lock_not_available or check_violation then
    null; -- a long reader of the log, or a clock that was set back: the partitions stay as they are until the next call
end
$$;
comment on function walhook.cut_partitions(regclass, text) is 'Internal: makes room for partitions of a finer unit.';

-- The error of a CREATE TABLE that would fail, or NULL: rights and event triggers can change at any time. Everything is rolled back.
create or replace function walhook.partition_refusal() returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '300ms'
as $$
begin
  perform walhook.make_partition(parent, '9999-01-01 UTC', '9999-01-02 UTC')
    from unnest(array['walhook.log'::regclass, 'walhook.attempt']) parent;
  raise exception using errcode = 'WH002';
exception
  when sqlstate 'WH002' or lock_not_available then return null;
  when others then return sqlerrm;
end
$$;
comment on function walhook.partition_refusal() is 'Internal: why no partition of the log can be created; NULL if one can. It changes nothing.';

-- The end of the contiguous partitions from now on; NULL if there is none for now.
create or replace function walhook.log_covered_until() returns timestamptz
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  parent  regclass;
  bound   timestamptz;
  upper   timestamptz;
  covered timestamptz;
begin
  foreach parent in array array['walhook.attempt'::regclass, 'walhook.log'::regclass] loop
    bound := now();
    loop
      select q.upper into upper from walhook.partitions_of(parent) q where q.lower <= bound and q.upper > bound;
      exit when not found;
      bound := upper;
    end loop;
    if bound = now() then
      return null;
    end if;
    covered := least(covered, bound);
  end loop;
  return covered;
end
$$;
comment on function walhook.log_covered_until() is 'Internal: until when the log has partitions without a hole; NULL: it has none for now.';

create or replace function walhook.ensure_partitions(unit text default null) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set lock_timeout = '2s'
as $$
declare
  parent  regclass;
  today   timestamptz; -- where the unit of now begins
  bound   timestamptz;
  upper   timestamptz;
  step    interval;
  made    integer := 0;
begin
  if unit is null then
    if walhook.log_covered_until() is not null then
      return 0;
    end if;
    unit := 'month';
  elsif unit not in ('10 seconds', 'minute', 'hour', 'day', 'month') then
    raise exception 'partitions by "%" are not supported', unit using hint = 'Use 10 seconds, minute, hour, day or month.';
  end if;
  step := case unit when '10 seconds' then unit else '1 ' || unit end;
  today := walhook.partition_begin(unit, now());
  lock table walhook.incident_log in share update exclusive mode; -- one session at a time
  foreach parent in array array['walhook.attempt'::regclass, 'walhook.log'::regclass] loop
    perform walhook.cut_partitions(parent, unit);
    -- From the last partition of the past on, or from the oldest entry that has found none: the clock may have been ahead, and partitions
    -- may have been dropped.
    select max(q.upper) into bound from walhook.partitions_of(parent) q where q.upper <= now();
    bound := least(coalesce(bound, today - step), walhook.partition_begin(unit, case parent
      when 'walhook.log'::regclass then (select min(o.finished_at) from walhook.log_overflow o)
      else (select min(o.attempted_at) from walhook.attempt_overflow o) end));
    -- Short ones are created further ahead, so that a busy store may miss a few rounds.
    while bound <= now() + greatest(3 * step, least(12 * step, interval '1 hour')) loop
      select q.upper into upper from walhook.partitions_of(parent) q where q.lower <= bound and q.upper > bound;
      if not found then
        -- One partition holds the past that has none. The first one of a new, coarser unit runs up to that unit's next boundary.
        upper := least(case when bound < today then today else walhook.partition_begin(unit, bound) + step end,
                       (select min(q.lower) from walhook.partitions_of(parent) q where q.lower > bound));
        perform walhook.make_partition(parent, bound, upper);
        made := made + 1;
      end if;
      bound := upper;
    end loop;
  end loop;
  return made;
end
$$;
comment on function walhook.ensure_partitions(text) is
  'Creates the log''s partitions ahead and wherever one is missing, each as long as the unit says (10 seconds, minute, hour, day or month), and returns how many were missing. Without a unit it creates some only where there is none for now.';

-- The log may take rows again that it refused. It returns how many it took, and whether some are left. Rows that are refused together are tried
-- one by one, in any order, until a hundred were refused: those that the log never takes keep no others back. If it takes none, the refusal is raised.
create or replace function walhook.drain_overflow(max_rows integer default 5000, out moved bigint, out remain boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '300ms'
as $$
declare
  part    text;
  shared  text;
  entry   tid;
  rows    bigint;
  refused integer;
  state   text;
  reason  text;
begin
  moved := 0;
  foreach part in array array['log', 'attempt'] loop
    shared := walhook.shared_columns(format('walhook.%s', part)::regclass, format('walhook.%s_overflow', part)::regclass);
    begin
      execute format('with o as (
          delete from walhook.%1$s_overflow o
           where o.ctid = any (array(select c.ctid from walhook.%1$s_overflow c order by c.%2$s limit $1 for update skip locked))
          returning o.*)
        insert into walhook.%1$s (%3$s) select %3$s from o', part, case part when 'log' then 'finished_at' else 'attempted_at' end, shared) using max_rows;
      get diagnostics rows = row_count;
      moved := moved + rows;
    exception
      when lock_not_available then raise;
      when others then
        refused := 0;
        for entry in execute format('select c.ctid from walhook.%s_overflow c order by random() limit $1 for update skip locked', part) using max_rows loop
          begin
            execute format('with o as (delete from walhook.%1$s_overflow o where o.ctid = $1 returning o.*) insert into walhook.%1$s (%2$s) select %2$s from o', part, shared) using entry;
            moved := moved + 1;
          exception
            when lock_not_available then raise;
            when others then
              get stacked diagnostics state = returned_sqlstate, reason = message_text;
              refused := refused + 1;
              exit when refused = 100;
          end;
        end loop;
    end;
  end loop;
  if moved = 0 and reason is not null then
    raise exception using errcode = state, message = reason;
  end if;
  remain := exists (select from walhook.log_overflow) or exists (select from walhook.attempt_overflow);
end
$$;
comment on function walhook.drain_overflow(integer) is 'Internal: moves to the log what it refused before.';

-- What is pending keeps its attempts, as in drop_partitions.
create or replace function walhook.trim_overflow(older_than interval, max_rows integer default 5000) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '300ms'
as $$
declare
  entries  bigint;
  attempts bigint;
begin
  delete from walhook.log_overflow o
   where o.ctid = any (array(select c.ctid from walhook.log_overflow c where c.finished_at < now() - older_than limit max_rows));
  get diagnostics entries = row_count;
  delete from walhook.attempt_overflow o
   where o.ctid = any (array(select c.ctid from walhook.attempt_overflow c where c.attempted_at < now() - older_than
                                and not exists (select from walhook.queue q where q.delivery_id = c.delivery_id) limit max_rows));
  get diagnostics attempts = row_count;
  return entries + attempts;
end
$$;
comment on function walhook.trim_overflow(interval, integer) is 'Internal: retention for what the log refused.';

-- Attempts of pending deliveries stay. Anything else that keeps an old partition is an incident, or the log would grow unnoticed.
create or replace function walhook.drop_partitions(older_than interval) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set lock_timeout = '300ms' -- three tries in all take less than deadlock_timeout, after which a reader would be ended instead
as $$
-- Once one is dropped, its lock is held until the end, so that nothing more is waited for: a reader of both tables would wait for this one
-- meanwhile, and be ended. What is busy then is left to the next call.
declare
  p       record;
  waiting bigint[];
  held    text;
  reason  text;
  overdue boolean;
  empty   boolean;
  busy    boolean;
  dropped integer := 0;
  hindered boolean := false; -- an empty one could not be had
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
    -- The next look may find it free. What is long overdue by then, and is not had at the third try, is an incident; one that is empty,
    -- such as a new store has of the time before, takes up nothing and keeps none that is not from its turn.
    execute format('select not exists (select from %s)', p.part) into empty;
    continue when empty and hindered;
    overdue := p.upper <= now() - older_than - interval '1 hour' and not empty;
    for try in 1 .. case when not overdue or dropped > 0 then 1 when hindered then 2 else 3 end loop
      begin
        execute format('drop table %s', p.part);
        busy := false;
        exit;
      exception
        when lock_not_available then busy := true;
      end;
    end loop;
    if busy and empty then
      hindered := true;
      continue;
    elsif busy and overdue and dropped = 0 then
      reason := 'somebody has been reading the log in one long transaction; end it (pg_stat_activity shows whose)';
    end if;
    exit when busy;
    dropped := dropped + 1;
    perform set_config('lock_timeout', '1ms', true);
  end loop;
  if reason is null then
    update walhook.incident_log i set resolved_at = now() where i.kind = 'retention' and i.resolved_at is null;
  elsif not exists (select from walhook.incident_log i where i.kind = 'retention' and i.resolved_at is null) then
    insert into walhook.incident_log (kind, detail)
    values ('retention', format('log entries older than %s could not be dropped: %s', older_than, reason));
  end if;
  delete from walhook.incident_log
   where id in (select i.id from walhook.incident_log i where i.resolved_at < now() - greatest(older_than, interval '1 year') limit 10000
                   for update skip locked);
  return dropped;
end
$$;
comment on function walhook.drop_partitions(interval) is
  'Drops the log''s partitions in which everything is older than that, and returns how many. What could not be dropped is in walhook.incident. Incidents that were resolved longer ago than that, and than a year, are deleted.';
