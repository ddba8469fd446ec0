-- Where somebody takes a published table's replica identity away, PostgreSQL refuses the application's updates. The daemon then
-- takes the table out of the publication, which only the publication's owner may: by this function, with the rights of the role
-- that attached. It knows one publication, and can add nothing to it.
create or replace function walhook.unpublish(published regclass) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('alter publication %I drop table %s', :publication, published);
end
$$;
comment on function walhook.unpublish(regclass) is
  'Takes a table out of walhook''s own publication, so that the application can go on writing. For the daemon, where it does not own the publication.';
revoke execute on function walhook.unpublish(regclass) from public;
do $$
begin
  if exists (select from pg_roles where rolname = 'walhook_daemon') then
    grant execute on function walhook.unpublish(regclass) to walhook_daemon;
  end if;
end
$$;
