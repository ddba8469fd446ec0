-- What the console of a busy site shows: webhooks in every state, deliveries of every status, incidents, changes, keys.
begin;
select set_config('walhook.actor', 'ada@example.com', true);
update walhook.settings set time_zone = 'Europe/Berlin';
insert into walhook.assessment (assessment_id, external_id, name) values
  ('17', 'LMS-17', 'Fire safety 2026'), ('18', 'LMS-18', 'Onboarding: the first week'),
  ('21', 'LMS-21', 'Health and safety at work, annual refresher for contractors'), ('23', null, 'Draft: data protection');
insert into walhook.response_state (response_id, assessment_id, flags, fate, fired_at)
select (1112000 + g)::text, '17', 3, 7, now() - interval '1 hour' from generate_series(1, 60) g;

insert into walhook.webhook (assessment_id, url, event_type, organization_id, description, headers, secret) values
  ('17', 'https://hooks.zapier.com/hooks/catch/1234567/b8x2k1/', 'response.completed', null, 'Certificates into the LMS', null, walhook.new_secret()),
  (null, 'https://hr.example.com/api/v2/assessments/webhook?token=8c1f02', 'response.completed', null, 'HR system: every completed assessment',
   '{"X-Api-Key": "d2f1e0", "X-Tenant": "acme"}', walhook.new_secret()),
  ('18', 'https://hook.eu1.make.com/6y1k2m3n4', 'response.started', null, 'Welcome mail to whoever starts', null, walhook.new_secret()),
  (null, 'https://analytics.example.org/ingest', 'response.created', null, null, null, null),
  ('21', 'https://webhooks.partner-with-a-rather-long-name.example.net:8443/v1/accounts/4711/assessments', 'response.changed', 'northwind',
   'Corrected results for Northwind Traders. Agreed with their integration team in March; ask before changing anything here.', null, walhook.new_secret()),
  ('17', 'https://old-intranet.example.com/hook', 'response.completed', null, 'The old intranet', null, null),
  ('21', 'https://n8n.example.io/webhook/5e0c', 'response.completed', null, 'Reminder to the supervisor', null, walhook.new_secret()),
  (null, 'https://api.statuspage.example/v1/events', 'response.started', 'contoso', 'Dashboard of Contoso', null, walhook.new_secret()),
  ('18', 'https://crm.example.com/in/assessments', 'response.completed', null, 'CRM', null, walhook.new_secret());
update walhook.webhook set description = 'The old intranet, until it is switched off' where id = 6;
update walhook.webhook set enabled = false where id = 6;
update walhook.webhook set enabled = false, disabled_reason = 'the receiver answered 410 Gone' where id = 5;

-- The last day: more by day than by night.
insert into walhook.log_overflow (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, http_status, event_type, kind, succeeded, response_id, error)
select row_number() over (order by d.at) + 20000, d.webhook, d.n, d.at - interval '1 second', d.at, case when d.failed then 16 else 1 end,
       case when not d.failed then 200 when d.webhook = 3 then 500 end, d.event, 0, not d.failed, (1111000 + d.n)::text,
       case when d.failed and d.webhook = 3 then 'HTTP 500 Internal Server Error: {"message":"Scenario is not active"}'
            when d.failed then 'dial tcp: connection refused' end
  from (select w.webhook, w.event, n, now() - interval '40 seconds' - n * w.pace * (1 + 0.8 * sin(n * w.pace_s / 9000.0)) as at,
               n % 41 = 7 or w.webhook = 3 and n < 9 as failed
          from (values (1, 3, interval '7 minutes', 420), (2, 3, interval '3 minutes', 180), (3, 2, interval '11 minutes', 660), (4, 1, interval '2 minutes', 120),
                       (7, 3, interval '50 minutes', 3000), (8, 2, interval '25 minutes', 1500)) as w (webhook, event, pace, pace_s)
         cross join lateral generate_series(0, (80000 / w.pace_s)) n) d
 where d.at > now() - interval '23 hours';
-- A delivery that failed, with its attempts, and a test.
insert into walhook.log_overflow (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, http_status, event_type, kind, succeeded, response_id, error) values
  (30001, 3, 1, now() - interval '35 minutes', now() - interval '31 seconds', 5, 500, 2, 0, false, '1112057', 'HTTP 500 Internal Server Error: {"message":"Scenario is not active"}'),
  (30002, 2, 2, now() - interval '24 seconds', now() - interval '23 seconds', 1, 204, 3, 2, true, '1112057', null),
  (30003, 9, 3, now() - interval '20 seconds', now() - interval '19 seconds', 1, 404, 3, 2, false, '1112058',
   'HTTP 404 Not Found: <!doctype html><html><head><title>404 Not Found</title></head><body><h1>Not Found</h1><p>The requested URL was not found on this server.</p></body></html>');
insert into walhook.attempt_overflow (delivery_id, attempt, attempted_at, duration_ms, http_status, succeeded, error)
select 30001, a, now() - interval '35 minutes' + a * a * interval '80 seconds', case when a = 2 then 15004 else 120 + 37 * a end, case when a <> 2 then 500 end, false,
       case when a = 2 then 'no answer within 15s' else 'HTTP 500 Internal Server Error: {"message":"Scenario is not active"}' end
  from generate_series(1, 5) a;

-- Pending: backing off, throttled, waiting for a disabled webhook, due.
update walhook.endpoint set failures = 7, failing_since = now() - interval '95 minutes', last_error = 'HTTP 500 Internal Server Error: {"message":"Scenario is not active"}'
 where url like '%make.com%';
update walhook.endpoint set failures = 1, failing_since = now() - interval '2 minutes', not_before = now() + interval '40 minutes', last_error = 'HTTP 429 Too Many Requests'
 where url like '%statuspage%';
insert into walhook.webhook_trouble (webhook_id, failing_since, activation)
select id, now() - interval '95 minutes', activation from walhook.webhook where id = 3
union all select id, now() - interval '2 minutes', activation from walhook.webhook where id = 8;
insert into walhook.queue (delivery_id, webhook_id, committed_at, next_attempt_at, last_attempt_at, attempts, http_status, error, event_type, response_id) values
  (30010, 3, now() - interval '10 minutes', now() + interval '50 minutes', now() - interval '6 minutes', 4, 500, 'HTTP 500 Internal Server Error: {"message":"Scenario is not active"}', 2, '1112040'),
  (30011, 8, now() - interval '3 minutes', now() + interval '40 minutes', now() - interval '2 minutes', 1, 429, 'HTTP 429 Too Many Requests', 2, '1112041'),
  (30012, 6, now() - interval '2 minutes', null, null, 0, null, null, 3, '1112042'),
  (30013, 6, now() - interval '2 minutes', null, null, 0, null, null, 3, '1112043'),
  (30014, 6, now() - interval '1 minute', null, null, 0, null, null, 3, '1112044'),
  (30015, 3, now() - interval '1 minute', null, null, 0, null, null, 2, '1112045');
insert into walhook.attempt_overflow (delivery_id, attempt, attempted_at, duration_ms, http_status, succeeded, error)
select 30010, a, now() - (30 - 6 * a) * interval '1 minute', 140 + 9 * a, 500, false, 'HTTP 500 Internal Server Error: {"message":"Scenario is not active"}'
  from generate_series(1, 4) a;
select setval('walhook.delivery_id', 31000);

insert into walhook.incident_log (at, kind, detail, resolved_at) values
  (now() - interval '9 days', 'takeover', 'daemon walhook-1 did not sign off; daemon walhook-2 reads the slot since then', now() - interval '9 days'),
  (now() - interval '6 days', 'slot_lost', 'the slot walhook was gone; a new one was created, and the table was compared with the recorded state', now() - interval '6 days' + interval '40 seconds'),
  (now() - interval '6 days', 'reconcile', 'compared 48,211 rows with the recorded state: 12 events fired, 0 rows forgotten', now() - interval '6 days'),
  (now() - interval '2 days', 'webhook_disabled', 'webhook 5 to https://webhooks.partner-with-a-rather-long-name.example.net:8443 was disabled: the receiver answered 410 Gone', now() - interval '2 days'),
  (now() - interval '25 minutes', 'log_upkeep', 'the role walhook_daemon may not create partitions in schema walhook: GRANT CREATE ON SCHEMA walhook TO walhook_daemon', null);
select walhook.create_api_key('Zapier of the HR department', null, 'webhooks', now() + interval '1 year');
select walhook.create_api_key('Northwind Traders', 'northwind', 'webhooks');
select walhook.create_api_key('Reporting, nightly', null, 'read');
select walhook.revoke_api_key(3);
-- A daemon that reads the slot, as if it reported just now. Its lock is held by the test.
insert into walhook.daemon (name, version, heartbeat_at, expires_at, reads, lag_bytes, lag_seconds)
values ('walhook-1', 'test', now() + interval '1 day', now() + interval '1 day', true, 18432, 0);
commit;
