-- Hashes of stamps are keyed with random bytes, so that nobody can find a value by hashing guesses.
-- Locks and cost: the attachment's row, and the state of all responses is rewritten, which nothing reads meanwhile; some seconds
-- for each million. Nothing of the application is touched.

alter table walhook.attachment add column stamp_key bytea not null
  default sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) check (length(stamp_key) = 32);

-- A stamp's hash is that of the value's hash with the key, so what is stored can be converted.
create function walhook.keyed_stamp(stamp text) returns text
language sql stable
return (select split_part(stamp, ':', 1) || ':' || encode(substr(sha256(a.stamp_key || decode(split_part(stamp, ':', 2), 'base64')), 1, 12), 'base64')
          from walhook.attachment a);
alter table walhook.response_state alter column stamp type text collate "C" using walhook.keyed_stamp(stamp);
drop function walhook.keyed_stamp;
