-- Retries of events do not wait behind a bulk redelivery: what is due is found by its kind.
-- Locks and cost: reads what is pending once, and senders wait meanwhile; nothing of the application is touched.

drop index walhook.queue_due, walhook.queue_tests;
create index queue_due on walhook.queue (webhook_id, kind, next_attempt_at) where next_attempt_at is not null;
