-- Who changed what: webhooks, settings and API keys.
-- Locks and cost: creates only; nothing of the application is touched.

-- Triggers write it, and nothing edits it (walhook.keep_changes).
create table walhook.change (
  id        bigint generated always as identity primary key,
  at        timestamptz not null default clock_timestamp(),
  actor     text not null, -- the person that the session acts for, otherwise the same as login
  login     text not null, -- the role that logged in
  action    text not null check (action in ('insert', 'update', 'delete')),
  object    text not null,
  object_id bigint,        -- NULL: the settings, which are one row
  changes   jsonb not null
);
create index change_by_object on walhook.change (object, object_id, id);
