-- What the console's overview shows. Its cost grows neither with the queue nor with the log.

create or replace view walhook.overview as
  select s.enabled as switched_on,
         coalesce(r.streams, false) as streams,
         case when r.streams then null
              when r.name is not null then coalesce(r.unready, 'the daemon has not reported for a while')
              when d.living = 0 then 'no daemon is running'
              else coalesce(d.unready, 'no daemon reads the stream at the moment') end as reason,
         r.lag_bytes, r.lag_seconds, d.living as daemons, q.pending, q.more as pending_more, q.oldest as oldest_pending_at,
         (select count(*) from walhook.endpoint e
           where e.failures > 0 and exists (select from walhook.webhook w where w.endpoint_id = e.id and w.enabled)) as endpoints_in_trouble,
         (select count(*) from walhook.incident_log i where i.resolved_at is null) as open_incidents,
         (select count(*) from walhook.webhook w where w.enabled) as webhooks_enabled,
         (select count(*) from walhook.webhook w where not w.enabled) as webhooks_disabled,
         s.time_zone
    from walhook.settings s
   cross join (select count(*) as living, min(l.unready) as unready from walhook.live_daemon l where l.connected and not l.draining) d
    left join lateral (
      select l.name, l.unready, l.unready is null and l.heartbeat_at > now() - interval '4 seconds' as streams, b.lag_bytes, b.lag_seconds
        from walhook.live_daemon l join walhook.daemon b on b.id = l.id
       where l.reads order by l.heartbeat_at desc limit 1) r on true
   cross join (
      select least(count(*), 10000) as pending, count(*) > 10000 as more,
             min(h.committed_at) filter (where exists (select from walhook.webhook w where w.id = h.webhook_id and w.enabled)) as oldest
        from (select q.webhook_id, q.committed_at from walhook.queue q order by q.delivery_id limit 10001) h) q;
comment on view walhook.overview is 'One row: whether walhook streams, how far it is behind, and how many deliveries are pending. The console''s overview shows it.';
comment on column walhook.overview.switched_on is 'The site''s Use Webhooks switch.';
comment on column walhook.overview.streams is 'Whether a daemon reads the stream and is ready.';
comment on column walhook.overview.reason is 'Why walhook does not stream; NULL if it does.';
comment on column walhook.overview.lag_bytes is 'Bytes of WAL between the end that the server reports and the stored position; NULL if no daemon reads the stream.';
comment on column walhook.overview.lag_seconds is 'Age in seconds of the oldest commit that was read and is not stored; NULL if no daemon reads the stream.';
comment on column walhook.overview.daemons is 'Number of daemons that send.';
comment on column walhook.overview.pending is 'Number of pending deliveries, at most 10,000.';
comment on column walhook.overview.pending_more is 'Whether more than 10,000 are pending.';
comment on column walhook.overview.oldest_pending_at is 'When the application committed the oldest of them whose webhook is enabled; NULL if there is none.';
comment on column walhook.overview.endpoints_in_trouble is 'Number of URLs that an enabled webhook uses and whose last attempt failed.';
comment on column walhook.overview.open_incidents is 'Number of incidents that are not resolved.';
comment on column walhook.overview.webhooks_enabled is 'Number of enabled webhooks.';
comment on column walhook.overview.webhooks_disabled is 'Number of disabled webhooks.';
comment on column walhook.overview.time_zone is 'The site''s time zone.';

create or replace view walhook.troubled_endpoint as
  select e.id as endpoint_id, walhook.display_url(e.url) as host,
         array(select w.id from walhook.webhook w where w.endpoint_id = e.id and w.enabled order by w.id limit 20) as webhook_ids,
         e.failures, coalesce(e.last_error, '') as last_error, e.failing_since
    from walhook.endpoint e
   where e.failures > 0 and exists (select from walhook.webhook w where w.endpoint_id = e.id and w.enabled);
comment on view walhook.troubled_endpoint is 'One row per URL, shown as scheme and host, that an enabled webhook uses and whose last attempt failed.';
comment on column walhook.troubled_endpoint.endpoint_id is 'Distinguishes several URLs of one host.';
comment on column walhook.troubled_endpoint.host is 'Scheme and host of the URL.';
comment on column walhook.troubled_endpoint.webhook_ids is 'The enabled webhooks that use it, at most 20.';
comment on column walhook.troubled_endpoint.failures is 'Failed attempts in a row.';
comment on column walhook.troubled_endpoint.last_error is 'Error of the last attempt.';
comment on column walhook.troubled_endpoint.failing_since is 'When the first of them ended.';

create or replace function walhook.hourly_deliveries(at_most integer default 2000)
returns table (hour timestamptz, deliveries bigint, failures bigint, estimated boolean)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$ select a.hour, a.deliveries, a.failures, a.estimated from walhook.webhook_activity(null, at_most) a order by a.hour $$;
comment on function walhook.hourly_deliveries(integer) is
  'Returns for each of the last 24 hours, which are those of UTC, how many deliveries ended and how many of them failed. Beyond at_most, the numbers of the present hour are estimates.';
