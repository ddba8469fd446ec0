-- Where somebody takes a published table's replica identity away, PostgreSQL refuses the application's updates. The daemon then
-- takes the table out of the publication, which only the publication's owner may: by this function, with the rights of the role
-- that attached. It works on publications that walhook created, by their comment, and can add nothing to them. One that has the table
-- among others publishes no updates and deletes then, which is what harms the application.
create or replace function walhook.unpublish(publication name, published regclass) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  made   oid := (select p.oid from pg_publication p where p.pubname = publication and obj_description(p.oid, 'pg_publication') like 'walhook, for slot %');
  named  boolean := exists (select from pg_publication_rel r where r.prpubid = made and r.prrelid = published);
  listed boolean := exists (select from pg_publication_tables t join pg_class c on c.relname = t.tablename and c.relnamespace = to_regnamespace(quote_ident(t.schemaname))
                             where t.pubname = publication and c.oid = published);
begin
  if made is null then
    raise exception 'publication % is not one that walhook created', quote_ident(publication)
      using errcode = 'insufficient_privilege', hint = 'Its owner takes the table out of it: ALTER PUBLICATION ... DROP TABLE ...';
  end if;
  if listed and not named then -- one of a schema, or of all tables
    execute format('alter publication %I set (publish = %L)', publication, 'insert, truncate');
  else
    execute format('alter publication %I drop table %s', publication, published);
  end if;
end
$$;
comment on function walhook.unpublish(name, regclass) is
  'Takes a table out of a publication that walhook created, so that the application can go on writing. For the daemon, where it does not own the publication.';
revoke execute on function walhook.unpublish(name, regclass) from public;
do $$
declare
  grantee text;
begin
  for grantee in -- by ALTER DEFAULT PRIVILEGES
    select distinct a.grantee::regrole::text from pg_proc p join pg_default_acl d on d.defaclrole = p.proowner and d.defaclobjtype = 'f'
     cross join lateral aclexplode(d.defaclacl) a
     where p.oid = 'walhook.unpublish(name, regclass)'::regprocedure and a.grantee not in (0, p.proowner)
  loop
    execute format('revoke all on function walhook.unpublish(name, regclass) from %s', grantee);
  end loop;
  if exists (select from pg_roles where rolname = 'walhook_daemon') then
    grant execute on function walhook.unpublish(name, regclass) to walhook_daemon;
  end if;
  -- The function of an earlier version knew one publication by its name; another installation may still need its own.
  if exists (select from pg_catalog.pg_proc p where p.oid = pg_catalog.to_regprocedure('walhook.unpublish(regclass)')
                and pg_catalog.pg_has_role(p.proowner, 'usage') and pg_catalog.strpos(p.prosrc, 'pubname = ' || :publication_literal) > 0) then
    drop function walhook.unpublish(regclass);
  end if;
end
$$;
