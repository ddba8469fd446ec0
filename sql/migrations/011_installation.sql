-- Where this store was installed, and what its attach created: a copy of a database is told from the original by that.
-- Locks and cost: one create, and columns of a table of one row; nothing of the application is touched.

-- Outlives the attachment. The code fills it where it is empty.
create table walhook.installation (
  one               boolean primary key default true check (one),
  system_identifier text not null,
  database          text not null,
  database_oid      bigint not null
);

alter table walhook.attachment
  add column database_oid bigint not null default 0, -- 0: unknown, from a version that did not record it
  add column publication_created boolean not null default true,
  add column next_slot text; -- created by an `attach --adopt` that has not ended
