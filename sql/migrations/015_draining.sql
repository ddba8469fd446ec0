-- Which daemons are being stopped, so that others take over what those let go.
-- Locks and cost: a column of a table of a few rows; nothing of the application is touched.

alter table walhook.daemon add column draining boolean not null default false;
