-- How far the daemon that reads the slot is behind, as it reports with its heartbeat.
-- Locks and cost: columns without a default: locks walhook.daemon for a moment. Nothing of the application is touched.

alter table walhook.daemon
  add column lag_bytes bigint,    -- WAL between the server's end, as reported, and the stored position; NULL if it does not read
  add column lag_seconds float8;  -- age of the oldest commit that was read and is not stored
