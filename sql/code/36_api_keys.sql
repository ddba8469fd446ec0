-- Keys of the HTTP API. After walhook.use_api_key, the key is in force until the transaction ends. The triggers and functions here restrict
-- whatever the transaction does to the key's scope and organization.

create or replace function walhook.api_key_in_force() returns walhook.api_credential
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  setting constant text := current_setting('walhook.api_key', true);
  key     walhook.api_credential;
begin
  if setting <> '' then
    select * into key from walhook.api_credential k where k.id::text = setting;
    if not found then
      raise exception 'there is no API key %', setting
        using errcode = 'insufficient_privilege', hint = 'RESET walhook.api_key;';
    end if;
  end if;
  return key;
end
$$;
comment on function walhook.api_key_in_force() is 'Internal: the API key under which the transaction runs; NULL where it runs under none.';

-- The error names a scope that the key lacks. An object of another organization is reported as missing.
create or replace function walhook.check_api_key(scopes text[], organization_id text, missing text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  key walhook.api_credential := walhook.api_key_in_force();
begin
  if key.id is null then
    return;
  elsif key.scope <> all (scopes) then
    raise exception 'an API key with scope % may not do this', key.scope
      using errcode = 'insufficient_privilege', hint = case scopes when '{}' then 'Sign in as an administrator.' else format('It needs scope %s.', scopes[1]) end;
  elsif key.organization_id is distinct from check_api_key.organization_id and key.organization_id is not null then
    raise exception '%', missing
      using errcode = 'no_data_found', hint = format('The API key is for organization %s.', key.organization_id);
  end if;
end
$$;
comment on function walhook.check_api_key(text[], text, text) is 'Internal: refuses what the API key in force may not do; without one, nothing.';

create or replace function walhook.check_webhook_key() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  key walhook.api_credential := walhook.api_key_in_force();
begin
  if tg_op = 'INSERT' then
    new.api_key_id := key.id;
    new.organization_id := coalesce(key.organization_id, new.organization_id);
    perform walhook.check_api_key('{webhooks, admin}', new.organization_id, null);
    return new;
  end if;
  perform walhook.check_api_key('{webhooks, admin}', old.organization_id, format('there is no webhook %s', old.id));
  if tg_op = 'DELETE' then
    return old;
  end if;
  new.organization_id := coalesce(key.organization_id, new.organization_id);
  return new;
end
$$;
-- Its name makes it fire before webhook_prepare.
create or replace trigger webhook_api_key before insert or update or delete on walhook.webhook
  for each row when (current_setting('walhook.api_key', true) <> '') execute function walhook.check_webhook_key();

create or replace function walhook.check_settings_key() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform walhook.check_api_key('{admin}', null, null);
  return new;
end
$$;
create or replace trigger settings_api_key before update on walhook.settings
  for each row when (current_setting('walhook.api_key', true) <> '') execute function walhook.check_settings_key();

create or replace function walhook.create_api_key(name text, organization_id text default null, scope text default 'webhooks', expires_at timestamptz default null)
returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  called       constant text := btrim(create_api_key.name);
  scoped       constant text := lower(btrim(create_api_key.scope));
  organization constant text := walhook.organization_id(create_api_key.organization_id);
  key          text;
begin
  perform walhook.check_api_key('{}', null, null);
  if called is null or called = '' or length(called) > 200 then
    raise exception 'an API key needs a name of at most 200 characters'
      using errcode = 'check_violation', column = 'name', hint = 'SELECT walhook.create_api_key(''Zapier of the HR department'');';
  elsif scoped is null or scoped not in ('read', 'webhooks', 'admin') then
    raise exception 'scope "%" of an API key is not known', create_api_key.scope
      using errcode = 'check_violation', column = 'scope', hint = 'Use read, webhooks or admin.';
  elsif create_api_key.organization_id = '' or create_api_key.organization_id is not null and organization is null then
    raise exception 'organization "%" of an API key cannot be one of the application', create_api_key.organization_id
      using errcode = 'check_violation', column = 'organization_id', hint = 'Write the id as in the table, or NULL for every one.';
  elsif scoped = 'admin' and organization is not null then
    raise exception 'an API key with scope admin is for every organization'
      using errcode = 'check_violation', column = 'organization_id', hint = 'Leave organization_id out, or use scope webhooks.';
  elsif create_api_key.expires_at <= now() then
    raise notice 'the API key has expired already: expires_at is not in the future';
  end if;
  loop
    key := 'whk_' || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'hex');
    insert into walhook.api_credential (name, prefix, hash, organization_id, scope, created_by, expires_at)
    values (called, left(key, 12), sha256(convert_to(key, 'UTF8')), organization, scoped, walhook.actor(), nullif(create_api_key.expires_at, 'infinity'))
    on conflict (prefix) do nothing;
    exit when found;
  end loop;
  return key;
end
$$;
comment on function walhook.create_api_key(text, text, text, timestamptz) is
  'Creates a key of the HTTP API and returns it, this once: only a hash is kept. With an organization it sees and creates webhooks and '
  'deliveries of that organization alone. Scopes: read; webhooks, which also writes them; admin, which also writes the settings.';

create or replace function walhook.revoke_api_key(id bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  created bigint;
begin
  perform walhook.check_api_key('{}', null, null);
  update walhook.api_credential k set revoked_at = coalesce(k.revoked_at, now()) where k.id = revoke_api_key.id;
  if not found then
    raise exception 'there is no API key %', revoke_api_key.id
      using errcode = 'no_data_found', hint = 'See SELECT * FROM walhook.api_key;';
  end if;
  select count(*) into created from walhook.webhook w where w.api_key_id = revoke_api_key.id;
  if created > 0 then
    raise notice 'webhooks that the API key created, and that stay: %', created
      using hint = format('DELETE FROM walhook.webhook WHERE api_key_id = %s;', revoke_api_key.id);
  end if;
end
$$;
comment on function walhook.revoke_api_key(bigint) is 'Ends the validity of an API key. The webhooks that it created stay.';

-- Takes the same time whatever the hashes are.
create or replace function walhook.equal_hashes(one bytea, other bytea) returns boolean
language sql immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case when length(one) = 32 and length(other) = 32
    then (select bit_or(get_byte(one, i) # get_byte(other, i)) = 0 from generate_series(0, 31) i) else false end
$$;
comment on function walhook.equal_hashes(bytea, bytea) is 'Internal: compares two SHA-256 hashes in constant time.';

-- Takes the key's first 12 characters and its hash, not the key itself, which the server might log with the statement.
create or replace function walhook.use_api_key(prefix text, hash bytea)
returns table (id bigint, name text, organization_id text, scope text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  key walhook.api_credential;
begin
  select * into key from walhook.api_credential k where k.prefix = use_api_key.prefix;
  -- An unknown key takes as long as a known one.
  if not coalesce(walhook.equal_hashes(coalesce(key.hash, sha256('')), use_api_key.hash), false) or key.id is null
     or key.revoked_at is not null or key.expires_at <= now() then
    return;
  end if;
  perform set_config('walhook.api_key', key.id::text, true),
          set_config('walhook.actor', format('API key %s (%s)', key.name, key.prefix), true);
  if current_setting('transaction_read_only') = 'off' then
    update walhook.api_credential k set last_used_at = now()
     where k.id = (select l.id from walhook.api_credential l
                    where l.id = key.id and (l.last_used_at is null or l.last_used_at < now() - interval '1 minute')
                      for no key update skip locked);
  end if;
  return query select key.id, key.name, key.organization_id, key.scope;
end
$$;
comment on function walhook.use_api_key(text, bytea) is
  'Puts an API key in force until the transaction ends, and returns it; no row if it is unknown, revoked or expired. Takes the first 12 characters of the key and '
  'its SHA-256.';

create or replace view walhook.api_key as
  select k.id, k.name, k.prefix, k.organization_id, k.scope, k.created_at, k.created_by, k.expires_at, k.last_used_at, k.revoked_at
    from walhook.api_credential k;
comment on view walhook.api_key is 'The keys of the HTTP API, without the keys themselves. walhook.create_api_key and walhook.revoke_api_key write it.';
comment on column walhook.api_key.id is 'Id of the key.';
comment on column walhook.api_key.name is 'What its creator called it.';
comment on column walhook.api_key.prefix is 'The first 12 characters of the key.';
comment on column walhook.api_key.organization_id is 'Sees and creates only what belongs to this organization; NULL: to any.';
comment on column walhook.api_key.scope is 'read, webhooks (which also writes webhooks) or admin (which also writes the settings).';
comment on column walhook.api_key.created_at is 'When it was created.';
comment on column walhook.api_key.created_by is 'Who created it.';
comment on column walhook.api_key.expires_at is 'When it expires; NULL: never.';
comment on column walhook.api_key.last_used_at is 'When it was last used, to the minute; NULL: never.';
comment on column walhook.api_key.revoked_at is 'When it was revoked; NULL: it was not.';

-- If a key created a webhook, it is deleted as soon as an answer of 410 is recorded. If somebody locks its pending deliveries, upkeep
-- deletes it later.
create or replace function walhook.delete_gone() returns setof text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  hook   walhook.webhook;
  detail text;
begin
  for hook in
    select w.* from walhook.webhook w
     where w.api_key_id is not null and not w.enabled and w.disabled_reason = 'the endpoint answered 410 Gone'
     order by w.id for update skip locked
  loop
    begin
      delete from walhook.webhook w where w.id = hook.id;
      detail := format('webhook %s to %s was deleted: the endpoint answered 410 Gone, and the API key %s had created it', hook.id,
                       walhook.display_url(hook.url), (select k.name from walhook.api_credential k where k.id = hook.api_key_id));
      insert into walhook.incident_log (kind, detail, resolved_at) select 'webhook_deleted', detail, now();
      return next detail;
    exception
      when lock_not_available then null;
    end;
  end loop;
end
$$;
comment on function walhook.delete_gone() is 'Internal: deletes webhooks that an API key created and whose receiver answered 410.';
