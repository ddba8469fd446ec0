-- The daemon's role in the application's database: it may replicate, and read the mapped columns.
create role walhook login replication password 'change-me';
grant usage on schema public to walhook;
grant select (id, assessment_id, started_at, finished_at) on respondent to walhook;
grant select (id, external_id) on assessment to walhook;
