-- A sample assessment application. walhook adds nothing to these tables.
create table assessment (
  id          bigint primary key,
  title       text not null,
  external_id text
);
create table respondent (
  id            bigint generated always as identity primary key,
  assessment_id bigint not null references assessment (id),
  name          text not null,
  page          integer not null default 0,
  started_at    timestamptz,
  finished_at   timestamptz
);
insert into assessment values (17, 'Safety at work', 'LMS-17'), (18, 'Draft, which has no external id', null);
