-- What an administrator does once, and then one respondent's life.
insert into walhook.webhook (url, event_type)
select 'http://receiver:8080/hook', e from unnest(array['response.created', 'response.started', 'response.completed', 'response.changed']) as e
where not exists (select from walhook.webhook);
insert into respondent (assessment_id, name) values (17, 'Ada');
update respondent set started_at = now(), page = 1 where name = 'Ada' and started_at is null;
update respondent set finished_at = now() where name = 'Ada' and finished_at is null;
update respondent set finished_at = clock_timestamp() where name = 'Ada';
