-- Group roles and their rights. If the attaching role may not create roles, only the owner has rights.
do $$
declare
  role_name text;
begin
  foreach role_name in array array['walhook_admin', 'walhook_viewer', 'walhook_daemon'] loop
    if not exists (select from pg_roles r where r.rolname = role_name) then
      begin
        execute format('create role %I nologin', role_name);
        execute format('comment on role %I is %L', role_name, 'walhook: created by attach'); -- detach drops no other
      exception
        when duplicate_object or unique_violation then null;
        when insufficient_privilege then
          raise notice 'role % was not created: % may not create roles', role_name, current_user;
      end;
    end if;
  end loop;
end
$$;

-- Other roles read a schema only if they trust its owner (sql/owner.go): one that does not replicate is a member of walhook_daemon.
do $$
begin
  if exists (select from pg_roles where rolname = 'walhook_daemon')
     and exists (select from pg_roles r where r.rolname = current_user and not r.rolsuper and not r.rolreplication and not pg_has_role(r.oid, 'walhook_daemon', 'member')) then
    execute format('grant walhook_daemon to %I', current_user);
  end if;
exception
  when insufficient_privilege then null; -- doctor and status say so to whoever does not trust the owner
end
$$;

-- Revokes every right of others than the owner: ALTER DEFAULT PRIVILEGES may have granted some when an object was created. The group roles
-- get theirs below. walhook.unpublish may be granted to a daemon's role itself.
do $$
declare
  granted record;
begin
  for granted in
    with object as (
      select format('%s %s', case c.relkind when 'S' then 'sequence' else 'table' end, c.oid::regclass) as name, c.relowner as owner, c.relacl as acl
        from pg_class c where c.relnamespace = 'walhook'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
      union all
      select format('table %s', c.oid::regclass), c.relowner, t.attacl
        from pg_class c join pg_attribute t on t.attrelid = c.oid and t.attacl is not null where c.relnamespace = 'walhook'::regnamespace
      union all
      select format('routine %s', p.oid::regprocedure), p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
        from pg_proc p where p.pronamespace = 'walhook'::regnamespace and p.proname <> 'unpublish'
      union all
      select format('type %s', t.oid::regtype), t.typowner, coalesce(t.typacl, acldefault('T', t.typowner))
        from pg_type t left join pg_class c on c.oid = t.typrelid
       where t.typnamespace = 'walhook'::regnamespace and (t.typtype in ('d', 'e') or c.relkind = 'c')
    )
    select distinct o.name, case a.grantee when 0 then 'public' else a.grantee::regrole::text end as grantee
      from object o cross join lateral aclexplode(o.acl) a
     where a.grantee <> o.owner and pg_has_role(o.owner, 'usage')
  loop
    execute format('revoke all on %s from %s cascade', granted.name, granted.grantee);
  end loop;
end
$$;
grant execute on function walhook.silence() to public;

do $$
begin
  if exists (select from pg_roles where rolname = 'walhook_admin') then
    -- A trigger refuses INSERT and DELETE with a sentence that says what to do instead.
    grant select, insert, update, delete on walhook.settings to walhook_admin;
    grant select, insert, update, delete on walhook.webhook to walhook_admin;
    grant select on walhook.delivery_log, walhook.delivery_attempt, walhook.incident, walhook.webhook_overview, walhook.pending,
      walhook.endpoint_health, walhook.change_log, walhook.api_key, walhook.visible_delivery,
      walhook.api_webhook to walhook_admin;
    grant select, insert, update, delete on walhook.visible_webhook to walhook_admin;
    grant execute on function walhook.redeliver_matching(bigint, text, integer, text, timestamptz, timestamptz),
      walhook.count_failed(bigint, text, integer, text, timestamptz, timestamptz) to walhook_admin;
    grant execute on function walhook.test_webhook(bigint, text), walhook.test_webhook(bigint, anyelement), walhook.redeliver(bigint),
      walhook.retry_now(bigint), walhook.redeliver_failed(bigint, timestamptz), walhook.copy_webhooks(text, text),
      walhook.copy_webhooks(anycompatible, anycompatible), walhook.create_api_key(text, text, text, timestamptz), walhook.revoke_api_key(bigint),
      walhook.use_api_key(text, bytea), walhook.create_webhook(text, text, text, text, text, jsonb, boolean), walhook.delete_webhook(bigint),
      walhook.known_event(text), walhook.samples(text, text, integer), walhook.new_secret(), walhook.rotate_secret(bigint, interval),
      walhook.explain(text), walhook.explain(anyelement), walhook.event_names(), walhook.event_name(smallint), walhook.display_url(text),
      walhook.local_time(timestamptz), walhook.message_id(smallint, bigint, pg_lsn, bigint, smallint, bigint) to walhook_admin;
    grant execute on function walhook.begin_session(bytea, text, text[], bytea, interval), walhook.use_session(bytea, boolean, interval, interval),
      walhook.renew_session(bytea, text[], bytea, boolean), walhook.end_session(bytea), walhook.reap_sessions(interval) to walhook_admin;
  end if;
  if exists (select from pg_roles where rolname = 'walhook_viewer') then
    grant select on walhook.settings, walhook.delivery_log, walhook.delivery_attempt, walhook.incident, walhook.webhook_overview,
      walhook.pending, walhook.endpoint_health, walhook.change_log, walhook.api_key to walhook_viewer;
    grant select (id, assessment_id, event_type, organization_id, enabled, ordered, log_successes, description, created_at, updated_at,
                  disabled_at, disabled_reason, api_key_id) on walhook.webhook to walhook_viewer;
    grant execute on function walhook.explain(text), walhook.explain(anyelement), walhook.event_names(), walhook.event_name(smallint), walhook.display_url(text),
      walhook.local_time(timestamptz), walhook.message_id(smallint, bigint, pg_lsn, bigint, smallint, bigint) to walhook_viewer;
  end if;
  if exists (select from pg_roles where rolname = 'walhook_daemon') then
    grant select on walhook.schema_version, walhook.settings, walhook.webhook, walhook.attachment, walhook.delivery_log, walhook.incident,
      walhook.live_daemon to walhook_daemon;
    grant update (enabled, disabled_at, disabled_reason) on walhook.webhook to walhook_daemon;
    grant update on walhook.attachment to walhook_daemon;
    grant select, update on walhook.installation to walhook_daemon;
    grant select, insert, update, delete on walhook.queue, walhook.daemon, walhook.webhook_trouble, walhook.assessment, walhook.position
      to walhook_daemon;
    grant select, insert, update, delete, truncate on walhook.response_state to walhook_daemon;
    grant truncate on walhook.assessment to walhook_daemon;
    grant select, update on walhook.endpoint to walhook_daemon;
    grant select, update, delete on walhook.webhook_move to walhook_daemon;
    grant select, insert on walhook.log, walhook.attempt, walhook.log_overflow, walhook.attempt_overflow to walhook_daemon;
    grant select, insert, update on walhook.incident_log to walhook_daemon;
    grant usage, update on sequence walhook.delivery_id to walhook_daemon;
    grant select, insert on walhook.crash_mark, walhook.origin to walhook_daemon;
    grant execute on function walhook.advance(bigint, pg_lsn, pg_lsn, bigint), walhook.clear_table(regclass), walhook.inherit_webhooks(text, text),
      walhook.column_id(text, text), walhook.organization_id(text), walhook.respell_webhooks(), walhook.delete_gone(), walhook.fate(smallint, smallint, smallint), walhook.fired(smallint),
      walhook.merge_fate(smallint, smallint),
      walhook.bury(bigint), walhook.forget_endpoints(integer), walhook.ensure_partitions(text), walhook.drop_partitions(interval), walhook.drain_overflow(integer), walhook.trim_overflow(interval, integer),
      walhook.count_hours(), walhook.partition_refusal(), walhook.log_covered_until(), walhook.ensure_time_indexes(integer),
      walhook.event_names(), walhook.event_name(smallint), walhook.display_url(text), walhook.local_time(timestamptz), walhook.message_id(smallint, bigint, pg_lsn, bigint, smallint, bigint) to walhook_daemon;
    if exists (select from pg_proc p where p.oid = to_regprocedure('walhook.unpublish(name, regclass)') and pg_has_role(p.proowner, 'usage')) then
      grant execute on function walhook.unpublish(name, regclass) to walhook_daemon; -- attach creates it in the application's database
    end if;
  end if;
end
$$;

-- What pages read.
do $$
declare
  reader text;
begin
  for reader in select r.rolname from pg_roles r where r.rolname in ('walhook_admin', 'walhook_viewer') loop
    execute format('grant select on walhook.known_assessment, walhook.webhook_health, walhook.delivery_request, walhook.overview,
      walhook.troubled_endpoint to %I', reader);
    execute format('grant execute on function walhook.webhook_activity(bigint[], integer), walhook.hourly_deliveries(integer), walhook.pending_of(bigint),
      walhook.delivery_page(bigint, text, text, integer, text, timestamptz, timestamptz, timestamp, bigint, integer, integer),
      walhook.delivery_filter(bigint, text, text, integer, text, timestamptz, timestamptz),
      walhook.request_body(text, timestamptz, text) to %I', reader);
  end loop;
end
$$;

-- A console whose people sign in elsewhere acts for viewers as well.
do $$
begin
  if exists (select from pg_roles where rolname = 'walhook_admin') and exists (select from pg_roles where rolname = 'walhook_viewer')
     and not pg_has_role('walhook_admin', 'walhook_viewer', 'member') then
    grant walhook_viewer to walhook_admin;
  end if;
exception
  when insufficient_privilege then null; -- walhook console says so
end
$$;
