-- Which URLs a webhook has left while attempts there may still be in flight.
-- Locks and cost: one create; nothing of the application is touched.

create table walhook.webhook_move (
  webhook_id  bigint not null,
  endpoint_id bigint not null,
  primary key (webhook_id, endpoint_id)
);
