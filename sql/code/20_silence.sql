-- What walhook needs in the application's database besides slot and publication. If that is the store too, it is part of the store's schema.

-- Twice, because decoding gives a message the LSN at which it ends, where the next change begins. If only one of the two is in a savepoint,
-- their order in the stream is not defined. The first message comes before both.
create or replace function walhook.silence() returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select pg_logical_emit_message(true, 'walhook', 'silence');
  select pg_logical_emit_message(true, 'walhook', 'silence')
$$;
comment on function walhook.silence() is
  'Silences the rest of the transaction: its changes are recorded and fire no webhook. For bulk repairs and imports.';

-- ALTER DEFAULT PRIVILEGES may have let others create objects in the schema as it was created.
do $$
declare
  grantee text;
begin
  for grantee in
    select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end
      from pg_namespace n cross join lateral aclexplode(n.nspacl) a
     where n.nspname = 'walhook' and a.grantee <> n.nspowner and pg_has_role(n.nspowner, 'usage')
  loop
    execute format('revoke all on schema walhook from %s cascade', grantee);
  end loop;
end
$$;
grant usage on schema walhook to public;
grant execute on function walhook.silence() to public;
