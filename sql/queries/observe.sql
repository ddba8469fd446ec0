-- Queries of metrics and status. Their cost does not grow with the queue.

-- How many deliveries are pending, and the age in seconds of the oldest that does not wait for a disabled webhook. Up to 10,000
-- are counted. Beyond that the number is what the server's statistics say, and the age is that of the oldest among the 10,000
-- queued first and the first never tried of each webhook.
-- name: QueueDepth
with recursive head as materialized (
  select q.webhook_id, q.committed_at from walhook.queue q order by q.delivery_id limit 10001
), fresh as (
  (select q.webhook_id as id from walhook.queue q where q.next_attempt_at is null order by q.webhook_id limit 1)
  union all
  select (select q.webhook_id from walhook.queue q where q.next_attempt_at is null and q.webhook_id > f.id order by q.webhook_id limit 1)
    from fresh f where f.id is not null
), oldest as (
  select min(h.committed_at) as at from head h join walhook.webhook w on w.id = h.webhook_id where w.enabled
  union all
  select (select q.committed_at from walhook.queue q
           where q.webhook_id = f.id and q.next_attempt_at is null and q.delivery_id + 0 > 0 order by q.delivery_id + 0 limit 1)
    from fresh f join walhook.webhook w on w.id = f.id
   where w.enabled and (select count(*) from head) > 10000
), counted as (
  select least(count(*), 10000) as n, count(*) > 10000 as more from head
)
select case when not c.more then c.n
            when s.live > c.n then s.live
            else greatest(c.n, (select t.reltuples::bigint from pg_catalog.pg_class t where t.oid = 'walhook.queue'::regclass)) end as deliveries,
       c.more as estimated,
       coalesce(greatest(extract(epoch from now() - (select min(o.at) from oldest o)), 0), 0)::float8 as oldest_seconds
from counted c
cross join (select pg_catalog.pg_stat_get_live_tuples('walhook.queue'::regclass) as live) s;

-- An endpoint is in trouble when its last attempt failed and a webhook that is enabled goes there.
-- name: Overview
select (select count(*) from walhook.endpoint e
         where e.failures > 0 and exists (select from walhook.webhook w where w.endpoint_id = e.id and w.enabled)) as endpoints_in_trouble,
       (select count(*) from walhook.webhook w where w.enabled) as webhooks_enabled,
       (select count(*) from walhook.webhook w where not w.enabled) as webhooks_disabled,
       (select count(*) from walhook.live_daemon) as daemons,
       (select s.enabled from walhook.settings s) as switched_on;

-- name: TroubledEndpoints
select walhook.display_url(e.url) as host,
       array(select w.id from walhook.webhook w where w.endpoint_id = e.id and w.enabled order by w.id limit @max) as webhooks,
       e.failures, coalesce(e.last_error, '') as error,
       coalesce(extract(epoch from now() - e.failing_since), 0)::float8 as since_seconds
from walhook.endpoint e
where e.failures > 0 and exists (select from walhook.webhook w where w.endpoint_id = e.id and w.enabled)
order by e.failures desc, e.id
limit @max;

-- name: OpenIncidents
select i.at, i.kind, i.detail, count(*) over () as open from walhook.incident i where i.resolved_at is null order by i.at desc limit @max;

-- name: OpenIncidentKinds
select i.kind, count(*) from walhook.incident_log i where i.resolved_at is null group by i.kind;

-- What the living daemons report of themselves, and for how many seconds each has not reported. A daemon that is being stopped, and one
-- without a session, which has just ended or is about to connect again, report nothing that somebody could mend.
-- name: DaemonReports
select d.name, case when d.connected and not d.draining then coalesce(d.unready, '') else '' end as unready,
       case when d.connected then extract(epoch from now() - d.heartbeat_at)::float8 else 0 end as silent
from walhook.live_daemon d order by d.id limit @max;

-- Whether the slot is about to get another reader: attach, detach or reconcile holds its lock (a key of eight bytes), or a daemon that does
-- not read reports that it is ready or starting.
-- name: SlotHandover
select exists (select from walhook.live_daemon d where d.connected and not d.reads and not d.draining
                 and (d.unready is null or d.unready ~ '^starting(:|$)'))
    or exists (
  select from pg_catalog.pg_locks l
   where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
     and l.classid = (@key::bigint >> 32)::int::oid and l.objid = ((@key::bigint << 32) >> 32)::int::oid
     and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())) as handover;

-- Whether the schema exists, who besides the owner and the group roles has rights in it, and the statements that revoke them. Everybody may
-- call walhook.silence, and a daemon's role walhook.unpublish.
-- name: OthersRights
with object as (
  select case c.relkind when 'S' then 'sequence ' else 'table ' end || c.oid::regclass as name, c.relowner as owner, c.relacl as acl
    from pg_catalog.pg_class c where c.relnamespace = pg_catalog.to_regnamespace('walhook') and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
  union all
  select 'table ' || t.attrelid::regclass, c.relowner, t.attacl
    from pg_catalog.pg_class c join pg_catalog.pg_attribute t on t.attrelid = c.oid and t.attacl is not null where c.relnamespace = pg_catalog.to_regnamespace('walhook')
  union all
  select 'routine ' || p.oid::regprocedure, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
    from pg_catalog.pg_proc p where p.pronamespace = pg_catalog.to_regnamespace('walhook') and p.proname not in ('silence', 'unpublish')
  union all
  select 'schema walhook', n.nspowner, n.nspacl from pg_catalog.pg_namespace n where n.nspname = 'walhook'
), granted as (
  select distinct o.name, case a.grantee when 0 then 'public' else a.grantee::regrole::text end as grantee, lower(a.privilege_type) as privilege
    from object o cross join lateral aclexplode(o.acl) a
   where a.grantee <> o.owner and not (o.name = 'schema walhook' and a.grantee = 0 and a.privilege_type = 'USAGE')
     and not exists (select from pg_catalog.pg_roles r where r.oid = a.grantee and r.rolname in ('walhook_admin', 'walhook_viewer', 'walhook_daemon'))
), listed as (
  select g.grantee || ' may ' || string_agg(g.privilege, ', ' order by g.privilege) || ' on ' || g.name as found,
         'REVOKE ALL ON ' || g.name || ' FROM ' || g.grantee || ' CASCADE;' as remedy
    from granted g group by g.grantee, g.name order by 1 limit 5
)
select pg_catalog.to_regnamespace('walhook') is not null, coalesce(array_agg(l.found), '{}'), coalesce(array_agg(l.remedy), '{}') from listed l;
