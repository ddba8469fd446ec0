-- Keys of the HTTP API, and which webhooks they created.
-- Locks and cost: a create, a column without a default, and an index that has no entries yet: locks the webhooks for a moment. Nothing of the
-- application is touched.

create table walhook.api_credential (
  id              bigint generated always as identity primary key,
  name            text not null,
  prefix          text not null unique, -- the start of the key, by which it is found
  hash            bytea not null,       -- SHA-256 of the key
  organization_id text collate "C",
  scope           text not null check (scope in ('read', 'webhooks', 'admin')),
  created_at      timestamptz not null default now(),
  created_by      text not null,
  expires_at      timestamptz,
  last_used_at    timestamptz,
  revoked_at      timestamptz
) with (fillfactor = 70);

alter table walhook.webhook add column api_key_id bigint references walhook.api_credential (id); -- that created it; NULL: a person did
create index webhook_by_api_key on walhook.webhook (api_key_id) where api_key_id is not null;
