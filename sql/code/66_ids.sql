-- Overloads that take ids of the application in the type of the key: explain(1), explain(r.id). A literal in quotes is text. They run with the
-- caller's rights, since a cast that a user created must not run with the owner's.

create or replace function walhook.test_webhook(webhook_id bigint, response_id anyelement) returns bigint
language sql volatile
set search_path = pg_catalog, pg_temp
as $$ select walhook.test_webhook(webhook_id, response_id::text) $$;
comment on function walhook.test_webhook(bigint, anyelement) is 'The same for a response id that is a number or a uuid.';

create or replace function walhook.explain(response_id anyelement)
returns table (event_type text, happened text, webhook_id bigint, host text, matched boolean, reason text,
               delivery_id bigint, status text, attempts integer, error text, next_attempt_at timestamp,
               next_attempt_at_tz timestamptz)
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select * from walhook.explain(response_id::text) $$;
comment on function walhook.explain(anyelement) is 'The same for a response id that is a number or a uuid.';

create or replace function walhook.copy_webhooks(from_assessment anycompatible, to_assessment anycompatible) returns integer
language sql volatile
set search_path = pg_catalog, pg_temp
as $$ select walhook.copy_webhooks(from_assessment::text, to_assessment::text) $$;
comment on function walhook.copy_webhooks(anycompatible, anycompatible) is 'The same for assessment ids that are numbers or uuids.';
