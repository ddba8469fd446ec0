-- What keeps an incident open is told beside what it is: often a statement that somebody has to run.
-- Locks and cost: a column without a default, which changes nothing that is stored; nothing of the application is touched.

alter table walhook.incident_log add column hindrance text;
