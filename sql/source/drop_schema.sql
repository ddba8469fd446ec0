-- Drops what one installation has in schema walhook of this database. The schema may hold the store of another one, or the functions that
-- other installations on this database use: their publications tell of them. :ours is whether this database holds the installation's store.
do $walhook$
declare
  stores constant boolean := exists (select from pg_catalog.pg_attribute a where a.attrelid = pg_catalog.to_regclass('walhook.attachment') and a.attname = 'respondent_oid');
  others constant boolean := exists (
    select from pg_catalog.pg_publication p
     where pg_catalog.starts_with(pg_catalog.obj_description(p.oid, 'pg_publication'), 'walhook, for slot ')
       and pg_catalog.obj_description(p.oid, 'pg_publication') <> 'walhook, for slot ' || :slot);
  statement text;
begin
  if pg_catalog.to_regnamespace('walhook') is null or stores and not :ours then
    return;
  end if;
  if not others and (:ours or not exists (select from pg_catalog.pg_class c where c.relnamespace = pg_catalog.to_regnamespace('walhook'))) then
    drop schema walhook cascade;
    return;
  end if;
  -- Gathered before anything goes, and sequences last, since those of identity columns go with their tables.
  foreach statement in array array(
    select s.text from (
      select case c.relkind when 'S' then 2 else 1 end,
             pg_catalog.format('drop %s if exists walhook.%I cascade',
               case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' when 'c' then 'type' else 'table' end, c.relname)
        from pg_catalog.pg_class c
       where :ours and c.relnamespace = pg_catalog.to_regnamespace('walhook') and c.relkind in ('r', 'p', 'v', 'm', 'S', 'c')
      union all
      select 3, pg_catalog.format('drop function if exists %s cascade', p.oid::pg_catalog.regprocedure)
        from pg_catalog.pg_proc p
       where p.pronamespace = pg_catalog.to_regnamespace('walhook')
         and case when p.proname in ('silence', 'unpublish') then not others else :ours end
    ) s (turn, text) order by s.turn)
  loop
    execute statement;
  end loop;
end
$walhook$;
