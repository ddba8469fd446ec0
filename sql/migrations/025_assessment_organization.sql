-- The organizations and names of assessments, and how the daemon hands assessments over.
-- Locks and cost: columns without a default, which change nothing that is stored, and a create; nothing of the application is touched.

alter table walhook.assessment add column organization_id text collate "C", add column name text;

-- What is unchanged stays as it is stored.
create type walhook.assessment_in as (
  assessment_id          text collate "C",
  external_id            text,
  organization_id        text collate "C",
  name                   text,
  external_id_unchanged  boolean,
  organization_unchanged boolean,
  name_unchanged         boolean
);
