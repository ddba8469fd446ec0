-- Where results go while the log takes none, and what each daemon reports of itself.
-- Locks and cost: two creates, and two columns of a table of a few rows; nothing of the application is touched.

-- Results that walhook.log and walhook.attempt refuse (no partition, a lock, a missing right) until upkeep moves them there. They are no
-- DEFAULT partitions: attaching a partition beside one locks out all readers of the log, and a locked log would lock them as well.
create table walhook.log_overflow (like walhook.log including defaults including constraints);
create index overflow_by_delivery on walhook.log_overflow (delivery_id);
create index overflow_by_response on walhook.log_overflow (response_id);
create index overflow_failed on walhook.log_overflow (webhook_id, finished_at) where not succeeded;
create index overflow_redelivered on walhook.log_overflow (redelivery_of) where redelivery_of is not null;
create index overflow_by_time on walhook.log_overflow (finished_at);
create table walhook.attempt_overflow (like walhook.attempt including defaults including constraints);
create index attempt_overflow_by_delivery on walhook.attempt_overflow (delivery_id, attempt);
create index attempt_overflow_by_time on walhook.attempt_overflow (attempted_at);

alter table walhook.daemon
  add column reads boolean not null default false, -- it reads the slot
  add column unready text;                         -- what its /readyz says with 503; NULL while that says 200
