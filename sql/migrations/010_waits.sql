-- Waits end after their own length, also when the clock is set back meanwhile.
-- Locks and cost: a column without a default; reads what is pending once, and senders wait meanwhile; nothing of the application is touched.

alter table walhook.endpoint add column recorded_at timestamptz; -- when failures and not_before were

-- Finds waits that began in the future.
create index queue_waits on walhook.queue ((coalesce(last_attempt_at, next_attempt_at))) where next_attempt_at is not null;
