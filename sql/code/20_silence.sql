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
  'What follows in this transaction is recorded and fires no webhook. For bulk repairs and imports; ends with the transaction.';

grant usage on schema walhook to public;
grant execute on function walhook.silence() to public;
