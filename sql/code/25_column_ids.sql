-- Ids that people write: a column may treat different spellings as equal.

-- role is the column's in walhook.attachment.column_types. Ids of assessments and organizations are stored without what their types ignore,
-- such as scale (ColumnType.CanonicalID in Go does the same with those of the application). The id of a response is stored as in its column.
create or replace function walhook.column_id(role text, id text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  type     jsonb := (select a.column_types -> role from walhook.attachment a);
  oid      bigint := (type ->> 'oid')::bigint;
  modifier integer := (type ->> 'modifier')::integer - 4;
  bare     text := btrim(id, E' \t\r\n');
  scale    integer;
  value    numeric;
begin
  case
    when oid in (20, 21, 23, 26, 700, 701, 1700) then -- bigint, smallint, integer, oid, real, double precision, numeric
      if bare !~* '^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]{1,3})?$' then
        return null;
      end if;
      value := bare::numeric;
      case oid
        when 20 then return case when value = trunc(value) then value::bigint::text end;
        when 21 then return case when value = trunc(value) then value::smallint::text end;
        when 23 then return case when value = trunc(value) then value::integer::text end;
        when 26 then return case when value = trunc(value) and value between 0 and 4294967295 then trunc(value)::text end;
        when 1700 then
          if modifier >= 0 then
            scale := ((modifier & 2047) # 1024) - 1024;
            if round(value, scale) <> value or abs(value) >= 10::numeric ^ ((modifier >> 16) - scale) then
              return null;
            end if;
            if role = 'key' then
              return round(value, greatest(scale, 0))::text;
            end if;
          end if;
        else null;
      end case;
      return case role when 'key' then bare else trim_scale(value)::text end;
    when oid = 2950 then -- uuid
      return bare::uuid::text;
    when oid in (1042, 1043) then -- char(n), varchar(n)
      if oid = 1042 then
        id := rtrim(id, ' ');
      end if;
      if modifier >= 0 and length(id) > modifier then
        return null;
      end if;
      return case when oid = 1042 and role = 'key' and modifier >= 0 then rpad(id, modifier) else id end;
    else
      return id; -- text, and types that this server may not know
  end case;
exception
  when data_exception then
    return null;
end
$$;
comment on function walhook.column_id(text, text) is
  'Internal: how walhook stores an id that is equal to this one in a mapped column; NULL where the column''s type has no such value.';

-- Organizations may come from a column of either table. The types of the two columns may differ.
create or replace function walhook.organization_id(id text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with mapped as (
    select bool_or(a.column_types ? 'organization') as of_response, bool_or(a.column_types ? 'assessment_organization') as of_assessment
      from walhook.attachment a
  )
  select coalesce(case when m.of_response or m.of_assessment is not true then walhook.column_id('organization', id) end,
                  case when m.of_assessment then walhook.column_id('assessment_organization', id) end)
    from mapped m
$$;
comment on function walhook.organization_id(text) is
  'Internal: how walhook stores an organization that is equal to this one; NULL where no mapped column''s type has such a value.';

-- Webhooks and API keys may be older than what is attached, or than the type of a column. This waits for no row that somebody has locked.
create or replace function walhook.respell_webhooks() returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  update walhook.api_credential k
     set organization_id = walhook.organization_id(k.organization_id)
   where k.id in (
     select c.id from walhook.api_credential c where c.organization_id <> walhook.organization_id(c.organization_id) for update skip locked);
  update walhook.webhook w
     set assessment_id = coalesce(walhook.column_id('assessment', w.assessment_id), w.assessment_id),
         organization_id = coalesce(walhook.organization_id(w.organization_id), w.organization_id)
   where w.id in (
     select h.id from walhook.webhook h
      where h.assessment_id <> walhook.column_id('assessment', h.assessment_id) or h.organization_id <> walhook.organization_id(h.organization_id)
        for update skip locked)
$$;
comment on function walhook.respell_webhooks() is 'Internal: rewrites the ids that webhooks and API keys name as their columns store them now.';
