-- The indexes over the newest responses, which the console and the API read. Attach drops them while it writes the state of all rows, and runs
-- this file afterwards: sorting once costs a fraction. Updates leave these columns alone, so that they stay HOT. Responses that existed at attach
-- have no created_lsn.
create index if not exists response_newest on walhook.response_state (created_lsn nulls first);
create index if not exists response_newest_of_assessment on walhook.response_state (assessment_id, created_lsn nulls first);
create index if not exists response_newest_of_organization on walhook.response_state (organization_id, created_lsn nulls first) where organization_id is not null;
