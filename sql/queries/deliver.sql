-- Queries of the senders: leases, claims and results.
--
-- None of them waits for a row that an administrator's open transaction may have locked. Each skips such rows, and the daemon repeats it.

-- name: RegisterDaemon
insert into walhook.daemon (name, version, expires_at, unready)
values (@name, @version, now() + @lease::interval, 'starting')
returning id;

-- name: Heartbeat
update walhook.daemon
   set heartbeat_at = now(), expires_at = now() + @lease::interval, reads = @reads, unready = nullif(@unready, ''),
       draining = @draining, lag_bytes = @lag_bytes, lag_seconds = @lag_seconds
 where id = @id and name = @name;

-- Another daemon that reports that it reads the slot, and the seconds since its last report.
-- name: SlotReader
select d.name, coalesce(d.unready, '') as unready, extract(epoch from now() - d.heartbeat_at)::float8 as silent
  from walhook.live_daemon d where d.reads and d.id <> @self order by d.heartbeat_at desc limit 1;

-- name: RemoveDaemon
delete from walhook.daemon where id = @id;

-- A heartbeat in the future was written before the clock was set back, and counts as one of now. A daemon that could not reach the store may be
-- alive, so an incident is recorded only if this session or this daemon is older than the last heartbeat: then the store could be reached.
-- name: ReapDaemons
with ahead as (
  update walhook.daemon d
     set heartbeat_at = now(), expires_at = now() + (d.expires_at - d.heartbeat_at)
   where d.heartbeat_at > now() + interval '4 seconds'
), dead as (
  delete from walhook.daemon
  where id in (
    select d.id from walhook.daemon d
     where d.id <> @self and not exists (select from walhook.live_daemon l where l.id = d.id)
       for update skip locked)
  returning id, name, heartbeat_at
), told as (
  insert into walhook.incident_log (kind, detail, resolved_at)
  select 'takeover', format('daemon %s stopped without signing off; the other daemons took over its deliveries', d.name), now()
    from dead d join walhook.daemon s on s.id = @self
   where d.heartbeat_at > pg_catalog.pg_postmaster_start_time()
     and (s.started_at > d.heartbeat_at
          or d.heartbeat_at > (select a.backend_start from pg_catalog.pg_stat_activity a where a.pid = pg_catalog.pg_backend_pid()))
)
select d.id, d.name from dead d;

-- Terminates the session that still holds a daemon's lock although the daemon has lost the session. It returns a row if the daemon is
-- registered; after a restore of the store its id may belong to another daemon.
-- name: EndLostSession
select pg_terminate_backend(l.pid)
  from walhook.daemon d
  left join pg_catalog.pg_locks l on l.locktype = 'advisory' and l.objsubid = 2 and l.granted and l.classid = @lock_class::oid and l.objid = d.id::oid
   and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
 where d.id = @id and d.name = @name;

-- The daemons among which endpoints are divided. A daemon that is stopping takes no more of them.
-- name: LiveDaemons
select id from walhook.daemon where expires_at >= now() and not draining order by id;

-- The version of each webhook. left_at are the endpoints of its former URLs where attempts of live daemons may be in flight.
-- name: WebhookVersions
select w.id, w.xmin::text::bigint as version, m.left_at
from walhook.webhook w
left join (
  select m.webhook_id, array_agg(m.endpoint_id order by m.endpoint_id) as left_at
    from walhook.webhook_move m join walhook.endpoint e on e.id = m.endpoint_id join walhook.daemon d on d.id = e.owner
   group by m.webhook_id
) m on m.webhook_id = w.id;

-- What the deliveries of these webhooks need.
-- name: LoadWebhooks
select w.id, w.url, w.event_type, w.enabled, w.ordered, w.log_successes, w.secret, w.previous_secret, w.previous_secret_until, w.headers,
       w.previous_secret_until - now() as previous_secret_left, w.endpoint_id,
       w.xmin::text::bigint as version, w.activation, m.left_at
from walhook.webhook w
left join (
  select m.webhook_id, array_agg(m.endpoint_id order by m.endpoint_id) as left_at
    from walhook.webhook_move m join walhook.endpoint e on e.id = m.endpoint_id join walhook.daemon d on d.id = e.owner
   group by m.webhook_id
) m on m.webhook_id = w.id
where w.id = any(@webhook_ids::bigint[]);

-- version changes with any insert, update or delete of a webhook, of the settings, or of a move that a webhook waits for. moves is the number
-- of URLs that webhooks have left.
-- name: WebhooksVersion
select (select count(*) || ':' || coalesce(sum(hashint8extended(id, xmin::text::bigint)), 0) from walhook.webhook) || ':' ||
       (select s.xmin::text || ':' || s.enabled from walhook.settings s) || ':' ||
       (select count(*) || ':' || coalesce(sum(m.webhook_id + m.endpoint_id), 0)
          from walhook.webhook_move m join walhook.endpoint e on e.id = m.endpoint_id join walhook.daemon d on d.id = e.owner) as version,
       (select s.enabled from walhook.settings s) as enabled,
       (select count(*) from walhook.webhook_move) as moves,
       coalesce((select a.numeric_id from walhook.attachment a), false) as numeric_id;

-- Deletes moves away from these endpoints, where the webhooks have nothing in flight any more, and from endpoints that no live daemon owns.
-- name: SettleMoves
delete from walhook.webhook_move
 where (webhook_id, endpoint_id) in (
   select m.webhook_id, m.endpoint_id from walhook.webhook_move m
    where (m.webhook_id, m.endpoint_id) in (select * from unnest(@webhook_ids::bigint[], @endpoint_ids::bigint[]))
       or not exists (select from walhook.endpoint e join walhook.daemon d on d.id = e.owner where e.id = m.endpoint_id)
      for update skip locked);

-- An endpoint's failures count only while one of its webhooks is still in trouble. Enabling a webhook again ends its trouble.
-- name: ClaimEndpoints
update walhook.endpoint e
   set owner = @self, failures = case when t.troubled then e.failures else 0 end, not_before = case when t.troubled then e.not_before end,
       failing_since = case when t.troubled then e.failing_since end
  from (
   select c.id, exists (select from walhook.webhook w join walhook.webhook_trouble t on t.webhook_id = w.id and t.activation = w.activation
                 where w.endpoint_id = c.id) as troubled
     from walhook.endpoint c where c.id = any(@endpoint_ids::bigint[])) t
 where t.id = e.id and e.id in (
   select c.id from walhook.endpoint c
    where c.id = any(@endpoint_ids::bigint[])
      and (c.owner is null or c.owner = @self or not exists (select from walhook.daemon d where d.id = c.owner))
    for no key update skip locked)
returning e.id, e.failures, case when e.not_before > now() then least(e.not_before - now(), e.not_before - e.recorded_at) end as pause;

-- name: ReleaseEndpoints
update walhook.endpoint
   set owner = null
 where id in (select e.id from walhook.endpoint e where e.owner = @self and e.id = any(@endpoint_ids::bigint[]) for no key update skip locked)
returning id;

-- name: ReleaseAllEndpoints
update walhook.endpoint
   set owner = null
 where id in (select e.id from walhook.endpoint e where e.owner = @self for no key update skip locked);

-- The never-tried deliveries of each endpoint after its cursor, in order. n is the endpoint's place in the parameter, as in the queries below.
-- others is set at the first delivery of an ordered webhook about a response: the deliveries about it that are pending at the same URL through
-- ordered webhooks and are not in this result. They are the last one up to the cursor, and those after it that were tried or whose webhook is
-- moving. If a URL has few webhooks, the query searches for each of them; otherwise it reads all that is pending about the response. The sums
-- (+ 0) keep the planner away from other indexes: if it expects few rows of a response, it would read the whole queue by the primary key.
-- name: FetchFresh
select q.delivery_id, q.webhook_id, q.lsn, q.ordinal, q.xid, q.committed_at, q.attempts, q.event_type, q.kind, q.response_id,
       (select h.xmin::text::bigint from walhook.webhook h where h.id = q.webhook_id) as version, q.message_id,
       (select case when q.kind < 2 then o.events else o.manual end from walhook.origin o
         where o.from_delivery_id <= q.delivery_id order by o.from_delivery_id desc limit 1) as origin,
       l.n, q.keeps,
       nullif(case when not q.first then null
         when cardinality(l.ordered) <= 8 then array(
           select b.id from unnest(l.ordered) as o (id) cross join lateral (
             (select b.delivery_id as id from walhook.queue b
               where b.response_id = q.response_id and b.webhook_id = o.id and b.delivery_id + 0 <= l.after and b.kind <> 2
               order by b.delivery_id + 0 desc limit 1)
             union all
             select b.delivery_id as id from walhook.queue b
              where b.response_id = q.response_id and b.webhook_id = o.id and b.delivery_id + 0 > l.after and b.kind <> 2
                and (b.next_attempt_at is not null or b.webhook_id = any(l.moving))) as b)
         else array(
           (select b.id
              from (select b.delivery_id as id, b.webhook_id from walhook.queue b
                     where b.response_id = q.response_id and b.delivery_id + 0 <= l.after and b.kind <> 2
                     order by b.delivery_id + 0 desc offset 0) as b
             where b.webhook_id = any(l.ordered) limit 1)
           union all
           select b.delivery_id from walhook.queue b
            where b.response_id = q.response_id and b.delivery_id + 0 > l.after and b.kind <> 2
              and (b.next_attempt_at is not null or b.webhook_id = any(l.moving)) and b.webhook_id + 0 = any(l.ordered))
         end, '{}') as others
from unnest(@requests::walhook.look_in[]) with ordinality as l (tests, enabled, keeps, ordered, moving, held, after, room, room_due, n)
cross join lateral (
  select f.*, f.keeps and row_number() over (partition by f.keeps, f.response_id order by f.delivery_id) = 1 as first
  from (
    select f.*, w.keeps
    from unnest(l.enabled, l.keeps) as w (id, keeps)
    cross join lateral (
      select * from walhook.queue f
       where f.webhook_id = w.id and f.next_attempt_at is null and f.delivery_id + 0 > l.after
       order by f.delivery_id + 0 limit l.room
    ) as f
    order by f.delivery_id limit l.room
  ) as f
) as q
order by l.n, q.delivery_id;

-- Deliveries that are due for a retry, if nothing earlier about their response is pending, under any of its keys. Events and redeliveries
-- alternate, and redeliveries get at most half of the room, so that neither waits behind a backlog of the other.
-- name: FetchDue
select q.delivery_id, q.webhook_id, q.lsn, q.ordinal, q.xid, q.committed_at, q.attempts, q.event_type, q.kind, q.response_id,
       (select h.xmin::text::bigint from walhook.webhook h where h.id = q.webhook_id) as version, q.message_id,
       (select case when q.kind < 2 then o.events else o.manual end from walhook.origin o
         where o.from_delivery_id <= q.delivery_id order by o.from_delivery_id desc limit 1) as origin,
       l.n
from unnest(@requests::walhook.look_in[]) with ordinality as l (tests, enabled, keeps, ordered, moving, held, after, room, room_due, n)
cross join lateral (
  select f.*, row_number() over (partition by f.kind = 3 order by f.next_attempt_at, f.delivery_id) as turn
  from unnest(l.enabled, l.keeps) as w (id, keeps)
  cross join (values (0::smallint), (1), (3)) as k (kind)
  cross join lateral (
    select * from walhook.queue f
     where f.webhook_id = w.id and f.kind = k.kind and f.next_attempt_at <= now() and f.delivery_id <> all(l.held)
       and not case when not w.keeps then false
             when cardinality(l.ordered) <= 8 then
               exists (select from unnest(l.ordered) as o (id) cross join lateral (
                         select from walhook.queue b
                          where b.response_id = f.response_id and b.webhook_id = o.id and b.delivery_id + 0 < f.delivery_id and b.kind <> 2
                          limit 1) as b)
             else
               exists (select from walhook.queue b
                        where b.response_id = f.response_id and b.webhook_id + 0 = any(l.ordered)
                          and b.delivery_id + 0 < f.delivery_id and b.kind <> 2)
             end
       and not (f.first_id is not null and w.keeps and exists (
             select from walhook.queue b
              where (b.response_id = f.first_id or b.first_id = f.first_id) and b.webhook_id + 0 = any(l.ordered)
                and b.delivery_id + 0 < f.delivery_id and b.kind <> 2))
     order by f.next_attempt_at limit l.room_due
  ) as f
  order by turn, f.next_attempt_at, f.delivery_id limit l.room_due
) as q
where q.kind <> 3 or q.turn <= (l.room_due + 1) / 2
order by l.n, q.next_attempt_at, q.delivery_id;

-- Test deliveries ignore the webhook's switch and the order.
-- name: FetchTests
select q.delivery_id, q.webhook_id, q.lsn, q.ordinal, q.xid, q.committed_at, q.attempts, q.event_type, q.kind, q.response_id,
       (select h.xmin::text::bigint from walhook.webhook h where h.id = q.webhook_id) as version, q.message_id,
       (select case when q.kind < 2 then o.events else o.manual end from walhook.origin o
         where o.from_delivery_id <= q.delivery_id order by o.from_delivery_id desc limit 1) as origin,
       l.n
from unnest(@requests::walhook.look_in[]) with ordinality as l (tests, enabled, keeps, ordered, moving, held, after, room, room_due, n)
cross join lateral (
  select * from walhook.queue f
   where f.kind = 2 and f.webhook_id = any(l.tests) and f.next_attempt_at <= now() and f.delivery_id <> all(l.held)
   order by f.next_attempt_at limit l.room_due
) as q
order by l.n, q.next_attempt_at;

-- The next delivery about a response, after the one before it ended and left the queue. stale is as in WaitingSummary, for this response.
-- name: FetchSuccessor
select q.delivery_id, q.webhook_id, q.lsn, q.ordinal, q.xid, q.committed_at, q.attempts, q.event_type, q.kind, q.response_id,
       (select h.xmin::text::bigint from walhook.webhook h where h.id = q.webhook_id) as version, q.message_id,
       (select case when q.kind < 2 then o.events else o.manual end from walhook.origin o
         where o.from_delivery_id <= q.delivery_id order by o.from_delivery_id desc limit 1) as origin,
       (q.next_attempt_at is null
        or q.next_attempt_at <= now()
           and not (q.first_id is not null and exists (
             select from walhook.queue b
              where (b.response_id = q.first_id or b.first_id = q.first_id) and b.webhook_id + 0 in (select unnest(@ordered_ids::bigint[]))
                and b.delivery_id + 0 < q.delivery_id and b.kind <> 2))) as due,
       exists (select from walhook.webhook w
                where w.endpoint_id = @endpoint_id and w.enabled and w.ordered and w.id not in (select unnest(@ordered_ids::bigint[]))
                  and exists (select from walhook.queue b
                               where b.response_id = @response_id and b.webhook_id = w.id and b.kind <> 2 and b.delivery_id + 0 < q.delivery_id)) as stale
from walhook.queue q
where q.delivery_id = case when cardinality(@ordered_ids::bigint[]) <= 8 then
    (select min(b.id) from unnest(@ordered_ids::bigint[]) as o (id) cross join lateral (
       select b.delivery_id as id from walhook.queue b
        where b.response_id = @response_id and b.webhook_id = o.id and b.kind <> 2
        order by b.delivery_id + 0 limit 1) as b)
  else
    (select min(b.delivery_id + 0) from walhook.queue b
      where b.response_id = @response_id and b.webhook_id + 0 in (select unnest(@ordered_ids::bigint[])) and b.kind <> 2)
  end;

-- Deliveries that wait for a retry at each endpoint: how many (counted up to a bound), and when the first is due. stale reports that a webhook
-- with pending deliveries has got this URL, was enabled or became ordered since the known webhooks were loaded, so deliveries that were loaded
-- before may have to wait behind its own. The query runs last, so that stale covers everything that the others returned.
-- name: WaitingSummary
select l.n,
       (select count(*) from (
          select from unnest(l.enabled) as w (id) cross join lateral (
            select from walhook.queue q where q.webhook_id = w.id and q.next_attempt_at is not null and q.attempts > 0 order by q.kind, q.next_attempt_at limit 1000) as q
           limit 1000) as c)::bigint as waiting,
       (select min(m.due) from unnest(l.tests) as w (id) cross join (values (0::smallint), (1), (2), (3)) as k (kind)
         cross join lateral (select q.next_attempt_at as due from walhook.queue q
                              where q.webhook_id = w.id and q.kind = k.kind and q.next_attempt_at is not null
                                and (q.kind = 2 or w.id = any(l.enabled))
                                and q.delivery_id <> all(l.held)
                              order by q.next_attempt_at limit 1) as m) - now() as due_in,
       exists (select from (select w.id from walhook.webhook w where w.endpoint_id = l.endpoint_id and w.enabled and w.ordered
                            except select unnest(l.ordered)) as w
                where exists (select from walhook.queue q where q.webhook_id = w.id and q.next_attempt_at is null)
                   or (select true from walhook.queue q where q.webhook_id = w.id and q.next_attempt_at is not null
                        order by q.kind, q.next_attempt_at limit 1)) as stale
from unnest(@requests::walhook.look_in[], @endpoint_ids::bigint[]) with ordinality
  as l (tests, enabled, keeps, ordered, moving, held, after, room, room_due, endpoint_id, n);

-- Restarts waits that began in the future, because the clock was set back.
-- name: RestartWaits
update walhook.queue q
   set next_attempt_at = now() + (q.next_attempt_at - coalesce(q.last_attempt_at, q.next_attempt_at)),
       last_attempt_at = case when q.last_attempt_at is not null then now() end
 where q.delivery_id in (
   select w.delivery_id from walhook.queue w
    where w.next_attempt_at is not null and coalesce(w.last_attempt_at, w.next_attempt_at) > now()
    order by coalesce(w.last_attempt_at, w.next_attempt_at) desc limit @max
    for update skip locked);

-- Webhooks with pending deliveries: never tried and after the cursor, or waiting for a retry. Only the index by webhook has this order.
-- Without it, where few webhooks have most of the queue, the planner reads everything that waits, for each webhook that has nothing. So above.
-- name: FindWork
select w.id
from unnest(@webhook_ids::bigint[], @cursors::bigint[]) as w (id, after)
where exists (select from walhook.queue q where q.webhook_id = w.id and q.next_attempt_at is null and q.delivery_id + 0 > w.after)
   or (select true from walhook.queue q where q.webhook_id = w.id and q.next_attempt_at is not null order by q.kind, q.next_attempt_at limit 1);

-- Moves ended deliveries from the queue to the log.
-- name: RecordEnded
with r as (
  select * from unnest(@results::walhook.result_in[])
), gone as (
  delete from walhook.queue q using r where q.delivery_id = r.delivery_id
  returning q.delivery_id, q.webhook_id, q.lsn, q.ordinal, q.committed_at, q.redelivery_of, q.attempts, q.event_type, q.kind, q.response_id, q.message_id,
            r.succeeded, nullif(r.http_status, 0) as http_status, nullif(r.error, '') as error,
            now() - make_interval(secs => r.age / 1000.0) as finished_at, r.duration, r.logged
), attempted as (
  insert into walhook.attempt (delivery_id, attempt, attempted_at, duration_ms, http_status, succeeded, error)
  select g.delivery_id, g.attempts + 1, g.finished_at, g.duration, g.http_status, g.succeeded, g.error
    from gone g where g.logged and (not g.succeeded or g.attempts > 0)
)
insert into walhook.log (delivery_id, webhook_id, lsn, ordinal, committed_at, finished_at, redelivery_of, attempts,
                         http_status, event_type, kind, succeeded, response_id, message_id, error)
select g.delivery_id, g.webhook_id, g.lsn, g.ordinal, g.committed_at, g.finished_at, g.redelivery_of, g.attempts + 1,
       g.http_status, g.event_type, g.kind, g.succeeded, g.response_id, g.message_id, g.error
  from gone g where g.logged;

-- Failed attempts that will be retried. Each result has the number of earlier attempts, so recording it again, after a commit with an unknown
-- outcome, changes nothing.
-- name: RecordRetries
with r as (
  select * from unnest(@results::walhook.result_in[])
), again as (
  update walhook.queue q
     set attempts = q.attempts + 1, http_status = nullif(r.http_status, 0), error = r.error,
         last_attempt_at = now() - make_interval(secs => r.age / 1000.0),
         next_attempt_at = now() + make_interval(secs => r.delay / 1000.0), xid = null
    from r where q.delivery_id = r.delivery_id and q.attempts = r.attempts
  returning q.delivery_id, q.attempts, q.last_attempt_at, r.duration, q.http_status, q.error
)
insert into walhook.attempt (delivery_id, attempt, attempted_at, duration_ms, http_status, succeeded, error)
select a.delivery_id, a.attempts, a.last_attempt_at, a.duration, a.http_status, false, a.error from again a;

-- Deliveries whose webhook has got another activation since the attempt was made.
-- name: Superseded
select u.delivery_id
  from unnest(@delivery_ids::bigint[], @webhook_ids::bigint[], @activations::bigint[]) as u (delivery_id, webhook_id, activation)
  join walhook.webhook w on w.id = u.webhook_id and w.activation <> u.activation;

-- Locks deliveries, and returns those that another session's open transaction has locked.
-- name: LockDeliveries
with free as (
  select q.delivery_id from walhook.queue q where q.delivery_id = any(@delivery_ids::bigint[]) for update skip locked
)
select q.delivery_id from walhook.queue q
 where q.delivery_id = any(@delivery_ids::bigint[]) and q.delivery_id <> all(array(select f.delivery_id from free f));

-- An attempt counts for the activation in which it was made. Administrators' transactions never lock these rows.
-- name: ClearTrouble
delete from walhook.webhook_trouble t
 using unnest(@webhook_ids::bigint[], @activations::bigint[]) as u (id, activation)
 where t.webhook_id = u.id and t.activation <= u.activation;

-- A start in the future was written before the clock was set back, and is replaced.
-- name: MarkTrouble
insert into walhook.webhook_trouble as t (webhook_id, activation, failing_since)
select w.id, w.activation, now()
  from unnest(@webhook_ids::bigint[], @activations::bigint[]) as u (id, activation)
  join walhook.webhook w on w.id = u.id and w.activation = u.activation
 order by w.id
on conflict (webhook_id) do update set activation = excluded.activation, failing_since = excluded.failing_since
 where t.activation < excluded.activation or t.failing_since > excluded.failing_since;

-- Disables webhooks whose every attempt has failed for the given time. A locked webhook is disabled at its next failure.
-- name: DisableTroubled
with disabled as (
  update walhook.webhook w
     set enabled = false, disabled_at = now(),
         disabled_reason = 'every attempt has failed since ' || to_char(f.failing_since at time zone s.time_zone, 'YYYY-MM-DD HH24:MI:SS ') || s.time_zone
    from walhook.settings s, (
      select h.id, t.failing_since from walhook.webhook h join walhook.webhook_trouble t on t.webhook_id = h.id and t.activation = h.activation
       where h.enabled and h.id = any(@webhook_ids::bigint[]) and t.failing_since <= now() - @disable_after::interval
         for no key update of h skip locked) f
   where f.id = w.id
  returning w.id, w.url, w.disabled_reason
)
insert into walhook.incident_log (kind, detail, resolved_at)
select 'webhook_disabled', format('webhook %s to %s was disabled: %s; its pending deliveries wait', d.id, walhook.display_url(d.url), d.disabled_reason), now()
from disabled d
returning detail;

-- Which of these webhooks are still enabled, in the same activation.
-- name: StillEnabled
select w.id
  from unnest(@webhook_ids::bigint[], @activations::bigint[]) as u (id, activation)
  join walhook.webhook w on w.id = u.id and w.activation = u.activation
 where w.enabled;

-- A webhook that an API key created is deleted afterwards (DeleteGone), so that the log contains its last result.
-- name: DisableGone
with disabled as (
  update walhook.webhook w
     set enabled = false, disabled_at = now(), disabled_reason = 'the endpoint answered 410 Gone'
   where w.id in (
     select h.id from walhook.webhook h join unnest(@webhook_ids::bigint[], @activations::bigint[]) as u (id, activation)
         on u.id = h.id and u.activation = h.activation
      where h.enabled
        for no key update of h skip locked)
  returning w.id, w.url, w.disabled_reason, w.api_key_id
)
insert into walhook.incident_log (kind, detail, resolved_at)
select 'webhook_disabled', format('webhook %s to %s was disabled: %s; its pending deliveries wait', d.id, walhook.display_url(d.url), d.disabled_reason), now()
from disabled d where d.api_key_id is null
returning detail;

-- Deletes webhooks that an API key created and that DisableGone has disabled.
-- name: DeleteGone
select walhook.delete_gone();

-- name: RecordEndpoint
update walhook.endpoint e
   set recorded_at = now(), failures = u.failures, not_before = case when u.pause > 0 then now() + make_interval(secs => u.pause / 1000.0) end,
       last_error = nullif(u.error, ''),
       failing_since = case when u.failures > 0 then coalesce(e.failing_since, now()) end
  from unnest(@endpoint_ids::bigint[], @failures::int[], @pauses::bigint[], @errors::text[]) as u (id, failures, pause, error)
 where e.id = u.id and e.id in (select l.id from walhook.endpoint l where l.id = any(@endpoint_ids::bigint[]) for no key update skip locked);

-- Ends deliveries that a transaction of the stream queued while their webhook was being deleted. Each step of the recursion is one index
-- lookup, whatever the backlog.
-- name: BuryOrphans
with recursive fresh as (
  (select q.webhook_id as id from walhook.queue q where q.next_attempt_at is null order by q.webhook_id limit 1)
  union all
  select (select q.webhook_id from walhook.queue q where q.next_attempt_at is null and q.webhook_id > f.id order by q.webhook_id limit 1)
    from fresh f where f.id is not null
), due as (
  (select q.webhook_id as id from walhook.queue q where q.next_attempt_at is not null order by q.webhook_id limit 1)
  union all
  select (select q.webhook_id from walhook.queue q where q.next_attempt_at is not null and q.webhook_id > d.id order by q.webhook_id limit 1)
    from due d where d.id is not null
)
select o.id, walhook.bury(o.id)
from (select f.id from fresh f union select d.id from due d) as o
where o.id is not null and not exists (select from walhook.webhook w where w.id = o.id);

-- name: ForgetTrouble
delete from walhook.webhook_trouble t where not exists (select from walhook.webhook w where w.id = t.webhook_id);

-- name: ForgetEndpoints
select walhook.forget_endpoints(@at_most);

-- name: CountHours
select walhook.count_hours();

-- name: EnsurePartitions
select walhook.ensure_partitions(@unit);

-- name: EnsureTimeIndexes
select walhook.ensure_time_indexes(@at_most);

-- name: DropPartitions
select walhook.drop_partitions(@older_than::interval);

-- name: DrainOverflow
select o.moved, o.remain from walhook.drain_overflow() as o;

-- name: TrimOverflow
select walhook.trim_overflow(@older_than::interval);

-- How far ahead the log has partitions; NULL if it has none for now.
-- name: LogCovered
select walhook.log_covered_until() - now() as ahead;

-- Opens a kind's incident, or updates the reason of the one that this daemon has opened.
-- name: OpenOwnIncident
with own as (
  update walhook.incident_log i set detail = @detail
   where i.kind = @kind and i.resolved_at is null and i.detail <> @detail and starts_with(i.detail, 'daemon ' || @daemon || ': ')
)
insert into walhook.incident_log (kind, detail)
select @kind, @detail
where not exists (select from walhook.incident_log i where i.kind = @kind and i.resolved_at is null);

-- Resolves a kind's incident unless another live daemon has opened it.
-- name: ResolveOwnIncident
update walhook.incident_log i set resolved_at = clock_timestamp()
 where i.kind = @kind and i.resolved_at is null
   and not exists (select from walhook.live_daemon d
                    where d.name <> @daemon and starts_with(i.detail, 'daemon ' || d.name || ': '));
