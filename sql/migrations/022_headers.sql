-- A webhook has headers of its own.
-- Locks and cost: a column without a default, which changes nothing that is stored; nothing of the application is touched.

alter table walhook.webhook add column headers jsonb; -- names and values; NULL: none
