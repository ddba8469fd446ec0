-- All that walhook needs inside the application's database besides slot and publication; part of the store's schema when both are one.

-- Twice, because decoding gives a message the LSN at which it ends, which is where the change after it begins. Where only one of
-- the two lies in a savepoint, which comes first in the stream is then a matter of chance; the first message is before both.
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
