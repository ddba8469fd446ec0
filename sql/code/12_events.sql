-- The events. All that SQL knows of each one is here; cdc/event.go has the same names and numbers.

-- In the order of the stored numbers, which begin with 1.
create or replace function walhook.event_names() returns text[]
language sql immutable parallel safe
return array['response.created', 'response.started', 'response.completed', 'response.changed'];
comment on function walhook.event_names() is 'The names of all event types.';

-- Not strict, so that the planner can inline it.
create or replace function walhook.event_name(event_type smallint) returns text
language sql immutable parallel safe
return (walhook.event_names())[event_type];
comment on function walhook.event_name(smallint) is 'Name of an event type from its stored number.';

create or replace function walhook.event_number(event_type text) returns smallint
language sql immutable strict parallel safe
return array_position(walhook.event_names(), event_type)::smallint;
comment on function walhook.event_number(text) is 'The stored number of an event type''s public name.';

-- response_state.fate is three sets of events, each with a bit for every event: those that fired since attach, those that were silenced the
-- last time that they fired, and those that last fired while webhooks were switched off. A new event makes each set a bit wider, and a migration
-- must convert what is stored. A smallint has room for five events.
create or replace function walhook.fate(fired smallint, silenced smallint, switched_off smallint) returns smallint
language sql immutable parallel safe
return fired | (silenced << cardinality(walhook.event_names())) | (switched_off << 2 * cardinality(walhook.event_names()));
comment on function walhook.fate(smallint, smallint, smallint) is 'Internal: packs three sets of events.';

create or replace function walhook.fate_has(fate smallint, which text, event_type integer) returns boolean
language sql immutable parallel safe
return fate & (1 << event_type - 1 + cardinality(walhook.event_names()) * case which when 'fired' then 0 when 'silenced' then 1 when 'switched off' then 2 end) <> 0;
comment on function walhook.fate_has(smallint, text, integer) is 'Internal: whether one of these sets has an event.';

create or replace function walhook.fired(fate smallint) returns smallint
language sql immutable parallel safe
return fate & ~(-1::smallint << cardinality(walhook.event_names()));
comment on function walhook.fired(smallint) is 'Internal: the first of these sets.';

-- An event that fired again replaces what the three sets had for it.
create or replace function walhook.merge_fate(before smallint, now smallint) returns smallint
language sql immutable parallel safe
return before & ~walhook.fate(walhook.fired(now), walhook.fired(now), walhook.fired(now)) | now;
comment on function walhook.merge_fate(smallint, smallint) is 'Internal: adds the fate of a response''s latest events to that of the earlier ones.';

create or replace function walhook.has_flag(flags smallint, flag text) returns boolean
language sql immutable parallel safe
return flags & case flag when 'started' then 1 when 'completed' then 2 when 'excluded' then 32 end <> 0; -- as in cdc/state.go
comment on function walhook.has_flag(smallint, text) is 'Internal: whether a bit of walhook.response_state.flags is set.';

-- Enqueue in sql/queries/stream.sql matches by the same rule.
create or replace function walhook.organization_of(state walhook.response_state) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(state.organization_id, (select a.organization_id from walhook.assessment a where a.assessment_id = state.assessment_id))
$$;
comment on function walhook.organization_of(walhook.response_state) is
  'Internal: the organization of a response: its own or, if that is NULL, that of its assessment.';

create or replace function walhook.events_of(state walhook.response_state) returns table (event_type smallint, happened boolean, missing text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  values
    (1::smallint, true, null),
    (2, walhook.has_flag(state.flags, 'started'), 'not started yet'),
    (3, walhook.has_flag(state.flags, 'completed'), 'not finished yet'),
    (4, walhook.fate_has(state.fate, 'fired', 4),
        case when walhook.has_flag(state.flags, 'completed') then 'not finished again since walhook attached' else 'not finished yet' end)
$$;
comment on function walhook.events_of(walhook.response_state) is 'Internal: which events of a response have happened, and if not, what is missing.';
