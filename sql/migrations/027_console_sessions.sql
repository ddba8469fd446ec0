-- Sessions of people who sign in to the console with OpenID Connect.
-- Locks and cost: creates only; nothing of the application is touched.

create table walhook.console_session (
  token_hash bytea primary key check (length(token_hash) = 32), -- SHA-256 of the token in the browser's cookie
  person     text not null,
  groups     text[] not null,     -- as the provider named them last
  sealed     bytea not null,      -- what it takes to ask the provider again, encrypted with a key that only the token gives
  created_at timestamptz not null default now(),
  seen_at    timestamptz not null default now(), -- last request that the person made, to the minute
  asked_at   timestamptz not null default now(), -- when a console last began to ask the provider for the groups
  named_at   timestamptz not null default now(), -- when the provider last named them
  expires_at timestamptz not null
);
create index console_session_by_person on walhook.console_session (person, created_at);
