-- What the daemon hands to the store in bulk comes as arrays of these. A column each, as separate arrays, costs the server
-- several times as much to take apart.
-- Locks and cost: three creates; nothing of the application is touched.

create type walhook.event_in as (
  response_id     text collate "C",
  assessment_id   text collate "C",
  organization_id text collate "C",
  event_type      smallint,
  lsn             pg_lsn,
  ordinal         bigint,
  xid             bigint,
  committed_at    timestamptz,
  kind            smallint
);

create type walhook.state_in as (
  response_id     text collate "C",
  assessment_id   text collate "C",
  organization_id text collate "C",
  stamp           text collate "C",
  flags           smallint,
  created_lsn     pg_lsn,
  fired           smallint,
  silenced        smallint,
  fired_at        timestamptz
);

create type walhook.result_in as (
  delivery_id bigint,
  attempts    integer,  -- made before
  succeeded   boolean,
  http_status integer,
  error       text,
  age         integer,  -- ms since the answer
  duration    integer,  -- ms
  delay       bigint,   -- ms until the next attempt
  logged      boolean
);
