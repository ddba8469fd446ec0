-- Whether the store's server has crashed since a stream began: what is unlogged is then empty.
-- Locks and cost: one create; nothing of the application is touched.

create unlogged table walhook.crash_mark (
  one boolean primary key default true check (one)
);
