-- What the console and the API read at each request: counts by the hour, and the newest responses and pending deliveries in order.
-- Locks and cost: a create, and indexes over the state of all responses, which the stream waits for: some seconds for each million.
-- Installing the functions afterwards builds an index over what is pending, and senders wait meanwhile. Nothing of the application is
-- touched.

-- Deliveries that ended in each hour of the last day, after it has passed; webhook_id 0: of all webhooks. walhook.count_hours writes it.
create table walhook.hourly (
  webhook_id bigint not null,
  hour       timestamptz not null,
  deliveries bigint not null,
  failures   bigint not null,
  primary key (webhook_id, hour)
);

-- Responses that existed at attach have no created_lsn. Updates leave these columns alone, so that they stay HOT.
create index response_newest on walhook.response_state (created_lsn nulls first);
create index response_newest_of_assessment on walhook.response_state (assessment_id, created_lsn nulls first);
create index response_newest_of_organization on walhook.response_state (organization_id, created_lsn nulls first) where organization_id is not null;

-- Code creates it again, with the order of deliveries that were never tried, and the functions with other results.
do $$
declare
  stale regclass;
begin
  for stale in
    select x.indexrelid from pg_catalog.pg_index x join pg_catalog.pg_class c on c.oid = x.indexrelid
     where x.indrelid = 'walhook.queue'::regclass and starts_with(c.relname, 'queue_webhook_')
  loop
    execute format('drop index %s', stale);
  end loop;
end
$$;
drop function if exists walhook.webhook_activity(bigint[], integer),
  walhook.delivery_filter(bigint, text, text, integer, text, timestamptz, timestamptz);
