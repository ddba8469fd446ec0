-- The order about a response holds across changes of its key.
-- Locks and cost: two columns without a default, two of types, and an index over what is pending, which has no rows yet; nothing of the
-- application is touched.

alter table walhook.response_state add column first_id text collate "C"; -- the first key that the response had; NULL: it has not changed
alter table walhook.queue add column first_id text collate "C"; -- the same
create index queue_by_first_id on walhook.queue (first_id) where first_id is not null;
alter type walhook.state_in add attribute first_id text collate "C";
alter type walhook.event_in add attribute first_id text collate "C";
