-- Whoever reads the log asks for the newest entries, of a webhook, or with a status, by the site's local time. The indexes for that depend on
-- the time zone, so walhook.ensure_time_indexes creates them.
-- Locks and cost: reads the log once. Installing the functions afterwards builds indexes over it: half a minute for each million entries
-- at most. Nothing of the application is touched.

drop index walhook.log_by_webhook;

-- Lets the planner leave the log out where only pending deliveries are asked for.
alter table walhook.log add constraint log_has_ended check (case when succeeded then 'success' else 'failed' end <> 'pending');
