-- The rows that every store has. They are missing in a schema that was restored without its data.
insert into walhook.settings select where not exists (select from walhook.settings);
insert into walhook.installation (system_identifier, database, database_oid)
select s.system_identifier, d.datname, d.oid
  from pg_catalog.pg_control_system() s, pg_catalog.pg_database d
 where d.datname = current_database() and not exists (select from walhook.installation);
