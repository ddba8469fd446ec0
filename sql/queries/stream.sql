-- Queries of the one writer that turns the stream into state, deliveries and a position.

-- As an object, since an older version of the store has fewer columns.
-- name: ReadAttachment
select pg_catalog.to_jsonb(a) from walhook.attachment a;

-- name: ReadInstallation
select system_identifier, database, database_oid from walhook.installation;

-- name: RecordSourcePlace
update walhook.attachment set system_identifier = @system_identifier, database = @database, database_oid = @database_oid
 where (system_identifier, database, database_oid) is distinct from (@system_identifier, @database, @database_oid::bigint);

-- name: RecordStorePlace
update walhook.installation set system_identifier = @system_identifier, database = @database, database_oid = @database_oid
 where (system_identifier, database, database_oid) is distinct from (@system_identifier, @database, @database_oid::bigint);

-- name: RecordKeyType
update walhook.attachment set numeric_id = @numeric_id, column_types = jsonb_set(column_types, '{key}', @key::jsonb);

-- name: ReadPosition
select turn, lsn, partial_lsn, partial_changes from walhook.position;

-- name: AdvancePosition
select walhook.advance(@from_turn::bigint, @to_lsn::pg_lsn, @to_partial_lsn::pg_lsn, @to_partial_changes::bigint);

-- Sets the position whatever it was. The daemon that stored the former one then fails in AdvancePosition.
-- name: SetPosition
with gone as (delete from walhook.position returning turn)
insert into walhook.position (turn, lsn) select coalesce(max(g.turn), 0) + 1, @lsn::pg_lsn from gone g;

-- name: ReadStates
select response_id, assessment_id, organization_id, stamp, flags, first_id
from walhook.response_state
where response_id = any(@response_ids::text[]);

-- A response that is inserted has no earlier fate.
-- name: WriteStates
insert into walhook.response_state as s (response_id, assessment_id, organization_id, stamp, flags, created_lsn, first_id, fate, fired_at)
select u.response_id, u.assessment_id, u.organization_id, u.stamp, u.flags, u.created_lsn, u.first_id,
       walhook.fate(u.fired, u.silenced, case when (select c.enabled from walhook.settings c) then 0::smallint else u.fired & (~u.silenced) end),
       u.fired_at
from unnest(@states::walhook.state_in[]) as u
on conflict (response_id) do update
   set assessment_id = excluded.assessment_id, organization_id = excluded.organization_id, stamp = excluded.stamp,
       flags = excluded.flags, first_id = excluded.first_id, created_lsn = coalesce(excluded.created_lsn, s.created_lsn), fired_at = coalesce(excluded.fired_at, s.fired_at),
       fate = case when excluded.created_lsn is null then walhook.merge_fate(s.fate, excluded.fate) else excluded.fate end;

-- WriteStates keeps some columns of a row, so they must be under the response's present key. Keys may have been swapped: each row is read as
-- it was before.
-- name: MoveStates
insert into walhook.response_state (response_id, assessment_id, organization_id, stamp, flags, first_id, created_lsn, fate, fired_at)
select u.to_id, s.assessment_id, s.organization_id, s.stamp, s.flags, s.first_id, s.created_lsn, s.fate, s.fired_at
from unnest(@from_ids::text[], @to_ids::text[]) as u (from_id, to_id) join walhook.response_state s on s.response_id = u.from_id
on conflict (response_id) do update set created_lsn = excluded.created_lsn, fate = excluded.fate, fired_at = excluded.fired_at;

-- name: DeleteStates
delete from walhook.response_state where response_id = any(@response_ids::text[]);

-- name: TruncateStates
select walhook.clear_table('walhook.response_state');

-- name: WriteAssessments
insert into walhook.assessment as a (assessment_id, external_id, organization_id, name)
select u.assessment_id, case when u.external_id_unchanged then s.external_id else u.external_id end,
       case when u.organization_unchanged then s.organization_id else u.organization_id end, case when u.name_unchanged then s.name else u.name end
from unnest(@assessments::walhook.assessment_in[]) as u left join walhook.assessment s on s.assessment_id = u.assessment_id
on conflict (assessment_id) do update set external_id = excluded.external_id, organization_id = excluded.organization_id, name = excluded.name
   where (a.external_id, a.organization_id, a.name) is distinct from (excluded.external_id, excluded.organization_id, excluded.name);

-- name: DeleteAssessments
delete from walhook.assessment where assessment_id = any(@assessment_ids::text[]);

-- name: RenameAssessment
update walhook.assessment set assessment_id = @to_id where assessment_id = @from_id;

-- name: TruncateAssessments
select walhook.clear_table('walhook.assessment');

-- name: CopyWebhooks
select walhook.inherit_webhooks(u.original, u.copy)
from unnest(@originals::text[], @copies::text[]) with ordinality as u (original, copy, n)
order by u.n;

-- The one matching statement: the batch's events against the current webhooks, settings and assessments. Webhooks are looked up once for each
-- group of events with the same type, assessment and organization: groups has an event of each, and group_of the number of each event's group.
--
-- It returns the queued deliveries in the order of the events, then the endpoints of their URLs, each with the version of its webhooks. Every
-- change of a webhook changes that version; the factor keeps it from cancelling out if several webhooks change their xmin in opposite directions.
--
-- If deliveries about the response are pending under another of its keys, the delivery is queued as a retry that is due now, since FetchDue
-- keeps the order across keys. Otherwise no earlier delivery can appear later, since ids only grow.
-- name: Enqueue
with matching as materialized (
  select g.ordinality as n, w.id as webhook_id
  from unnest(@groups::walhook.event_in[]) with ordinality as g
  cross join lateral (
    select h.id
      from walhook.webhook h
     where h.enabled and h.event_type = walhook.event_name(g.event_type) and h.assessment_id = g.assessment_id
       and (h.organization_id is null or h.organization_id = coalesce(g.organization_id,
             (select a.organization_id from walhook.assessment a where a.assessment_id = g.assessment_id)))
    union all
    select h.id
      from walhook.webhook h
     where h.enabled and h.event_type = walhook.event_name(g.event_type) and h.assessment_id is null
       and (h.organization_id is null or h.organization_id = coalesce(g.organization_id,
             (select a.organization_id from walhook.assessment a where a.assessment_id = g.assessment_id)))
       and (not @has_assessments::boolean
            or exists (select from walhook.assessment a where a.assessment_id = g.assessment_id and a.external_id is not null))
  ) as w
  where (select s.enabled from walhook.settings s)
), queued as (
  insert into walhook.queue (webhook_id, response_id, first_id, event_type, lsn, ordinal, xid, committed_at, kind, next_attempt_at)
  select m.webhook_id, e.response_id, e.first_id, e.event_type, e.lsn, e.ordinal, e.xid, e.committed_at, e.kind,
         case when e.first_id is not null
               and (e.response_id <> e.first_id and exists (select from walhook.queue b where b.response_id = e.first_id)
                    or exists (select from walhook.queue b where b.first_id = e.first_id and b.response_id <> e.response_id)) then now() end
  from unnest(@events::walhook.event_in[]) with ordinality as e
  join matching m on m.n = (@group_of::integer[])[e.ordinality]
  order by e.ordinality, m.webhook_id
  returning delivery_id, webhook_id, lsn, ordinal, event_type, next_attempt_at
)
select q.delivery_id, q.webhook_id, q.lsn, q.ordinal, q.event_type, q.next_attempt_at is not null as due, null::bigint as endpoint_id, null::bigint as version
  from queued q
union all
select null, null, null, null, null, null, h.endpoint_id, sum(h.xmin::text::bigint * (h.id % 1021 + 1))::bigint
  from walhook.webhook h
 where h.endpoint_id in (select w.endpoint_id from walhook.webhook w where w.id in (select q.webhook_id from queued q))
 group by h.endpoint_id;

-- The input of the webhook-ids of events that are queued from now on.
-- name: ReadOrigin
select o.events from walhook.origin o order by o.from_delivery_id desc limit 1;

-- Gives later deliveries another origin. The caller reads the slot, so nobody else queues events meanwhile.
-- name: RecordOrigin
insert into walhook.origin (from_delivery_id, events, manual)
select case when exists (select from walhook.origin) then nextval('walhook.delivery_id') else 0 end, u.id, u.id from gen_random_uuid() as u (id);

-- name: OpenIncident
insert into walhook.incident_log (kind, detail)
select @kind, @detail
where not exists (select from walhook.incident_log i where i.kind = @kind and i.resolved_at is null)
returning id;

-- Opens a kind's incident, or updates the detail of the open one.
-- name: KeepIncident
with kept as (
  update walhook.incident_log i set detail = @detail where i.kind = @kind and i.resolved_at is null and i.detail <> @detail
)
insert into walhook.incident_log (kind, detail)
select @kind, @detail
where not exists (select from walhook.incident_log i where i.kind = @kind and i.resolved_at is null);

-- One incident for each row that the store refused, with the latest error, up to a hundred. Beyond that, the last incident stands for all
-- further rows.
-- name: NoteSetAside
with before as (
  select coalesce(max(i.id) filter (where starts_with(i.detail, @row)), case when count(*) >= 100 then max(i.id) end) as id
    from walhook.incident_log i where i.kind = 'set_aside' and i.resolved_at is null
), replaced as (
  update walhook.incident_log i set at = now(), detail = @detail::text ||
      case when starts_with(i.detail, @row) and i.detail not like '%not all listed' then '' else '; rows set aside before it are not all listed' end
  from before b where i.id = b.id
)
insert into walhook.incident_log (kind, detail) select 'set_aside', @detail::text from before b where b.id is null;

-- name: RowsSetAside
select i.detail from walhook.incident_log i where i.kind = 'set_aside' and i.resolved_at is null and i.detail not like '%not all listed';

-- name: ResolveSetAside
update walhook.incident_log i set resolved_at = clock_timestamp() where i.kind = 'set_aside' and i.resolved_at is null and i.detail = any(@details::text[]);

-- A comparison reads every row again, but copies no webhooks for assessments that are already recorded.
-- name: ResolveRowsSetAside
update walhook.incident_log i set resolved_at = clock_timestamp()
 where i.kind = 'set_aside' and i.resolved_at is null and i.detail not like '%SELECT walhook.copy_webhooks(%';

-- name: HinderIncident
update walhook.incident_log set hindrance = @hindrance where kind = @kind and resolved_at is null and hindrance is distinct from @hindrance;

-- name: OpenGap
select kind, detail from walhook.incident_log where kind = any(@kinds::text[]) and resolved_at is null order by at, id limit 1;

-- Whether a gap of these kinds was closed within the interval.
-- name: GapClosed
select exists (select from walhook.incident_log where kind = any(@kinds::text[]) and resolved_at >= clock_timestamp() - @within::interval);

-- name: NoteIncident
insert into walhook.incident_log (kind, detail, resolved_at) values (@kind, @detail, now());

-- The transaction of a comparison may have begun long before.
-- name: ResolveIncidents
update walhook.incident_log set resolved_at = clock_timestamp() where kind = any(@kinds::text[]) and resolved_at is null;

-- The end of the store's WAL, and the end of what is on disk.
-- name: StoreWAL
select pg_catalog.pg_current_wal_insert_lsn() as inserted, pg_catalog.pg_current_wal_flush_lsn() as flushed;

-- Sets what the commit of this transaction waits for: the synchronous standbys, since after a failover the store would otherwise be behind the
-- acknowledged position; without standbys, the disk if it must be durable, or nothing. If the server counts the daemon itself as a synchronous
-- standby, the commit must not wait for it, since the daemon waits for the commit.
-- name: RelaxCommit
select pg_catalog.set_config('synchronous_commit', case
         when n.names <> '' and not s.awaited then 'on' when @durable::boolean then 'local' else 'off' end, true) as setting, s.awaited
  from (select current_setting('synchronous_standby_names'), current_setting('application_name')) n (names, ours)
 cross join lateral (select n.names ~* ('(^|[(,])\s*"?(\*|' || regexp_replace(n.ours, '(\W)', '\\\1', 'g') || ')"?\s*($|[),])')
                        and exists (select from walhook.attachment a join pg_catalog.pg_replication_slots r on r.slot_name = a.slot)) s (awaited);

-- After a crash of the store's server, skips ids that it may have assigned just before: senders may still hold them. The mark is unlogged, so
-- it is empty after a crash.
-- name: SkipLostIds
with marked as (insert into walhook.crash_mark default values on conflict do nothing returning one)
select setval('walhook.delivery_id', nextval('walhook.delivery_id') + 1000000) from marked;

-- The sessions that hold the advisory lock of a key of eight bytes, or wait for it: their server processes.
-- name: LockSessions
select coalesce(array_agg(l.pid), '{}') as pids
  from pg_catalog.pg_locks l
 where l.locktype = 'advisory' and l.objsubid = 1 and l.granted = @granted
   and l.classid = (@key::bigint >> 32)::int::oid and l.objid = ((@key::bigint << 32) >> 32)::int::oid
   and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database());
