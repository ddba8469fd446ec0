-- What is pending about a response is found webhook by webhook: where one event goes to thousands, each of them looks for its own.
-- Locks and cost: reads what is pending once, and senders wait meanwhile; nothing of the application is touched.

drop index walhook.queue_by_response;
create index queue_by_response on walhook.queue (response_id, webhook_id, (delivery_id + 0));
