-- A publication FOR ALL TABLES, whoever created it, makes PostgreSQL refuse updates and deletes of a table without a replica identity. The
-- log, its attempts and their overflow have no key that could be one.
-- Locks and cost: locks the log for a moment, and rewrites nothing; nothing of the application is touched.

do $$
declare
  part regclass;
begin
  for part in
    select c.oid from pg_catalog.pg_class c
     where c.oid in ('walhook.log'::regclass, 'walhook.attempt'::regclass, 'walhook.log_overflow'::regclass, 'walhook.attempt_overflow'::regclass)
        or exists (select from pg_catalog.pg_inherits i
                    where i.inhrelid = c.oid and i.inhparent in ('walhook.log'::regclass, 'walhook.attempt'::regclass) and c.relkind = 'r')
     order by c.oid
  loop
    execute format('alter table %s replica identity full', part);
  end loop;
end
$$;
