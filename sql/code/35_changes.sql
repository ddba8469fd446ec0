-- Who changed what.

create or replace function walhook.actor() returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select coalesce(nullif(left(btrim(current_setting('walhook.actor', true)), 200), ''), session_user::text) $$;
comment on function walhook.actor() is 'Internal: the person whom the page or the API acts for, otherwise the role that logged in.';

-- Leaves out internal columns and those that only contain a time.
create or replace function walhook.edits(before jsonb, after jsonb) returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_object_agg(c.name, case
           when c.name in ('secret', 'previous_secret', 'headers') then jsonb '"(changed)"'
           when c.name = 'url' then jsonb_build_object('old', walhook.display_url(c.old #>> '{}'), 'new', walhook.display_url(c.new #>> '{}'))
           else jsonb_build_object('old', c.old, 'new', c.new)
         end)
    from (select k.name, nullif(before -> k.name, 'null') as old, nullif(after -> k.name, 'null') as new from jsonb_object_keys(before || after) k (name)) c
   where c.old is distinct from c.new
     and c.name not in ('id', 'one', 'updated_at', 'endpoint_id', 'activation', 'hash', 'last_used_at')
$$;
comment on function walhook.edits(jsonb, jsonb) is 'Internal: the columns of a row that changed, without secrets, for walhook.change_log; NULL if none did.';

-- Runs with the owner's rights, because nobody else may write the log.
create or replace function walhook.log_change() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into walhook.change (actor, login, action, object, object_id, changes)
  select walhook.actor(), session_user, lower(tg_op), tg_argv[0], (coalesce(c.after -> 'id', c.before -> 'id') #>> '{}')::bigint, walhook.edits(c.before, c.after)
    from (select case tg_op when 'INSERT' then '{}' else to_jsonb(old) end, case tg_op when 'DELETE' then '{}' else to_jsonb(new) end) c (before, after)
   where walhook.edits(c.before, c.after) is not null;
  return null;
end
$$;

create or replace function walhook.log_truncated_webhooks() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into walhook.change (actor, login, action, object, object_id, changes)
  select walhook.actor(), session_user, 'delete', 'webhook', w.id, walhook.edits(to_jsonb(w), '{}') from walhook.webhook w order by w.id;
  return null;
end
$$;

create or replace trigger webhook_log after insert or update or delete on walhook.webhook
  for each row execute function walhook.log_change('webhook');
create or replace trigger webhook_log_truncated before truncate on walhook.webhook
  for each statement execute function walhook.log_truncated_webhooks();
create or replace trigger settings_log after insert or update or delete on walhook.settings
  for each row execute function walhook.log_change('settings');
create or replace trigger api_credential_log after insert or update or delete on walhook.api_credential
  for each row execute function walhook.log_change('api_key');

create or replace function walhook.keep_changes() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'walhook.change_log cannot be edited'
    using errcode = 'restrict_violation', schema = 'walhook', table = 'change', hint = 'Entries are added by triggers, and stay.';
end
$$;
create or replace trigger change_keep before update or delete or truncate on walhook.change
  for each statement execute function walhook.keep_changes();

create or replace view walhook.change_log as
  select c.at, c.actor, c.action, c.object, c.object_id, c.changes, c.login, c.id as change_id
    from walhook.change c;
comment on view walhook.change_log is 'One row per change of a webhook, the settings or an API key: who changed what. Triggers write it, and nobody can edit it.';
comment on column walhook.change_log.at is 'When it was changed.';
comment on column walhook.change_log.actor is 'Who changed it: the person whom the page or the API acted for, or the role that logged in.';
comment on column walhook.change_log.action is 'insert, update or delete.';
comment on column walhook.change_log.object is 'webhook, settings or api_key.';
comment on column walhook.change_log.object_id is 'Id of the webhook or the API key; NULL for the settings.';
comment on column walhook.change_log.changes is 'The columns that changed, each with its old and its new value: {"enabled": {"old": true, "new": false}}. URLs show scheme and host; secrets and headers are "(changed)".';
comment on column walhook.change_log.login is 'The role that logged in. It differs from actor if the session had set walhook.actor, as the page and the API do.';
comment on column walhook.change_log.change_id is 'Grows with each change. Sort by it.';
