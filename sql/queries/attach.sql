-- Queries of attach, also in a copy.

-- name: BeginAttachment
insert into walhook.attachment (phase, system_identifier, database, database_oid, slot, publication, publication_created, publish, mapping,
  respondent_oid, assessment_oid, numeric_id, column_types)
values ('attaching', @system_identifier, @database, @database_oid, @slot, @publication, @publication_created, @publish, @mapping,
  @respondent_oid, @assessment_oid, @numeric_id, @column_types)
on conflict (one) do update
  set phase = excluded.phase, system_identifier = excluded.system_identifier, database = excluded.database, database_oid = excluded.database_oid,
      slot = excluded.slot, publication = excluded.publication, publication_created = excluded.publication_created, publish = excluded.publish,
      mapping = excluded.mapping, respondent_oid = excluded.respondent_oid, assessment_oid = excluded.assessment_oid,
      numeric_id = excluded.numeric_id, column_types = excluded.column_types, stamp_key = excluded.stamp_key, next_slot = null, begun_at = now(), attached_at = null;

-- The slot that an adoption creates, so that one that is interrupted leaves none behind.
-- name: RecordNextSlot
update walhook.attachment set next_slot = @slot;

-- Updates the attachment in the transaction of a comparison at a new slot's snapshot.
-- name: RenewAttachment
update walhook.attachment
   set system_identifier = @system_identifier, database = @database, database_oid = @database_oid, slot = @slot, publication = @publication,
       publication_created = @publication_created, publish = @publish, publication_rows = @publication_rows,
       respondent_oid = @respondent_oid, assessment_oid = @assessment_oid, next_slot = null;

-- A further line: the rows that the publication is about to have.
-- name: RecordPublished
update walhook.attachment set publication_rows = concat_ws(e'\n', publication_rows, @publication_rows::text);

-- While attach writes the state of all rows. IndexResponses builds them.
-- name: DropResponseIndexes
drop index if exists walhook.response_newest, walhook.response_newest_of_assessment, walhook.response_newest_of_organization;

-- name: RecordMapping
update walhook.attachment set mapping = @mapping, publication_rows = @publication_rows, assessment_oid = @assessment_oid;

-- name: ForgetXids
update walhook.queue set xid = null where xid is not null;

-- How many daemons hold the lock that shows that they live. The rows of walhook.daemon in a copy are the original's.
-- name: LivingDaemons
select count(*)::int
  from pg_catalog.pg_locks l
 where l.locktype = 'advisory' and l.objsubid = 2 and l.granted and l.classid = @lock_class::oid
   and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database());

-- name: ForgetDaemons
delete from walhook.daemon;

-- name: ForgetOwners
update walhook.endpoint set owner = null where owner is not null;

-- name: ForgetMoves
delete from walhook.webhook_move;

-- name: StartFresh
with pending as (
  delete from walhook.queue returning 1
), disabled as (
  update walhook.webhook
     set enabled = false, disabled_at = now(), disabled_reason = 'this database is a copy that was attached by walhook attach --fresh; enable it if its receiver may hear of the copy'
   where enabled
  returning 1
), untroubled as (
  delete from walhook.webhook_trouble
), resolved as (
  update walhook.incident_log set resolved_at = now() where resolved_at is null and kind <> 'switched_off'
)
select (select count(*) from pending), (select count(*) from disabled);
