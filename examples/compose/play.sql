-- Adds webhooks at the first run, and then three respondents at each run.
insert into walhook.webhook (url, event_type, description)
select 'http://receiver:8080/hook', event, 'prints what it gets'
from unnest(walhook.event_names()) as event
where not exists (select from walhook.webhook);

-- Ada: created, started, completed, changed.
insert into respondent (assessment_id, name) values (17, 'Ada') returning id as ada \gset
update respondent set started_at = now(), page = 1 where id = :ada;
update respondent set page = 2 where id = :ada; -- another page: nothing
update respondent set finished_at = now() where id = :ada;
update respondent set finished_at = now() where id = :ada;

-- Grace starts and finishes at once: created, started, completed.
insert into respondent (assessment_id, name, started_at, finished_at) values (17, 'Grace', now(), now());

-- Linus answers a draft. The webhooks are for all assessments, which means those with an external id, so this fires nothing.
insert into respondent (assessment_id, name, started_at) values (18, 'Linus', now());

-- Show the log once it is complete. Wait at most half a minute.
do $$
begin
  for attempt in 1 .. 300 loop
    perform pg_sleep(0.1);
    commit; -- so that the next query sees what has been committed meanwhile
    exit when (select count(*) filter (where status = 'success') >= 7 and count(*) filter (where status = 'pending') = 0
                 from walhook.delivery_log);
  end loop;
end $$;
select response_id, event_type, status, attempts, http_status from walhook.delivery_log order by delivery_id;
