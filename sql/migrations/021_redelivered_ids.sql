-- A redelivery has the webhook-id of the first delivery, which is stored with it.
-- Locks and cost: columns without a default, which change nothing that is stored; locks queue and log for a moment. Nothing of the
-- application is touched.

alter table walhook.queue add column message_id text; -- the webhook-id; NULL: that which walhook.message_id computes
alter table walhook.log add column message_id text; -- the same
alter table walhook.log_overflow add column message_id text; -- the same
