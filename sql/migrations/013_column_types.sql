-- Stamps are stored as hashes, with the type of their column, and the attachment tells the types of all mapped columns.
-- Locks and cost: a column without a default, and the state of all responses is written anew, which nothing reads meanwhile; some
-- seconds for each million. Nothing of the application is touched.

-- Types by the columns' roles, each as the OID and the modifier that the source's catalog has. NULL: not known yet.
alter table walhook.attachment add column column_types jsonb;

-- Of these stamps the type is not known. Those that were hashed already keep as much of the hash as the others have.
alter table walhook.response_state alter column stamp type text collate "C" using
  '?:' || case
    when stamp = '#' then encode(substr(sha256(''), 1, 12), 'base64')
    when stamp like '#%' then encode(decode(substr(stamp, 2, 24), 'hex'), 'base64')
    else encode(substr(sha256(convert_to(stamp, 'UTF8')), 1, 12), 'base64')
  end;
