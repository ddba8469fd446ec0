-- What webhook-ids are made from outlives the attachment: a delivery keeps its id when the source becomes another server, and
-- when it is detached and attached again.
-- Locks and cost: one create, and a column of a table of one row; nothing of the application is touched.

-- The origin of a delivery is the row with the greatest from_delivery_id that is not above its own id. Each attach, and each new
-- slot, adds one: a server that was restored repeats log sequence numbers, and a restored store delivery ids. Rows never change.
create table walhook.origin (
  from_delivery_id bigint primary key,
  events           text not null, -- for deliveries that the stream or a comparison queued
  manual           text not null  -- for tests and manual redeliveries
);

insert into walhook.origin (from_delivery_id, events, manual) select 0, a.system_identifier, a.installation from walhook.attachment a;

alter table walhook.attachment drop column installation;
