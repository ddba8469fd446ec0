-- Where somebody takes a published table's replica identity away, PostgreSQL refuses the application's updates. The daemon then
-- takes the table out of the publication, which only the publication's owner may: by this function, with the rights of the role
-- that attached. It knows one publication, and can add nothing to it. One that has the table among others publishes no updates
-- and deletes then, which is what harms the application.
create or replace function walhook.unpublish(published regclass) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  named  boolean := exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid where p.pubname = :publication and r.prrelid = published);
  listed boolean := exists (select from pg_publication_tables t join pg_class c on c.relname = t.tablename and c.relnamespace = to_regnamespace(quote_ident(t.schemaname))
                             where t.pubname = :publication and c.oid = published);
begin
  if listed and not named then -- one of a schema, or of all tables
    execute format('alter publication %I set (publish = %L)', :publication, 'insert, truncate');
  else
    execute format('alter publication %I drop table %s', :publication, published);
  end if;
end
$$;
comment on function walhook.unpublish(regclass) is
  'Takes a table out of walhook''s own publication, so that the application can go on writing. For the daemon, where it does not own the publication.';
revoke execute on function walhook.unpublish(regclass) from public;
do $$
declare
  grantee text;
begin
  for grantee in -- by ALTER DEFAULT PRIVILEGES
    select distinct a.grantee::regrole::text from pg_proc p join pg_default_acl d on d.defaclrole = p.proowner and d.defaclobjtype = 'f'
     cross join lateral aclexplode(d.defaclacl) a
     where p.oid = 'walhook.unpublish(regclass)'::regprocedure and a.grantee not in (0, p.proowner)
  loop
    execute format('revoke all on function walhook.unpublish(regclass) from %s', grantee);
  end loop;
  if exists (select from pg_roles where rolname = 'walhook_daemon') then
    grant execute on function walhook.unpublish(regclass) to walhook_daemon;
  end if;
end
$$;
