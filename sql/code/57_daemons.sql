-- Each daemon holds an advisory lock of its session (cdc.DaemonLock). It is dead if its lease has expired, or if it missed heartbeats and
-- nobody holds the lock.
create or replace view walhook.live_daemon as
  select d.id, d.name, d.heartbeat_at, d.reads, d.unready, d.draining, l.connected
    from walhook.daemon d
   cross join lateral (
     select exists (select from pg_catalog.pg_locks l
                     where l.locktype = 'advisory' and l.objsubid = 2 and l.granted and l.classid = x'77686b64'::int::oid and l.objid = d.id::oid
                       and l.database = (select c.oid from pg_catalog.pg_database c where c.datname = current_database())) as connected
   ) l
   where d.expires_at >= now() and (d.heartbeat_at >= now() - interval '4 seconds' or l.connected);
comment on view walhook.live_daemon is 'Internal: the live daemons, and whether each still has its session.';
