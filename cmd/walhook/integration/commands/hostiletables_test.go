package commands

import (
	"testing"

	"walhook/cmd/walhook/internal/harness"
)

// Tables that look usable but cannot be followed, or not without harm.
func TestAttachRefusesHostileTables(t *testing.T) {
	t.Parallel()
	const columns = "id bigint primary key, assessment_id bigint, started_at timestamptz, finished_at timestamptz"
	for _, c := range []struct {
		name, schema string
		variables    []string
		says         []string
	}{
		{
			"a generated stamp", "create table respondent (" + columns + ", stamp text generated always as (assessment_id::text) stored)",
			[]string{"FINISH_STAMP", "stamp"},
			[]string{`"stamp"`, "generated", "WALHOOK_FINISH_STAMP"},
		},
		{
			"a generated marker", "create table respondent (" + columns + ", done boolean generated always as (finished_at is not null) stored)",
			[]string{"FINISHED", "done"},
			[]string{`"done"`, "generated", "WALHOOK_FINISHED"},
		},
		{
			"a deferrable key", "create table respondent (id bigint primary key deferrable, assessment_id bigint, started_at timestamptz, finished_at timestamptz)",
			nil,
			[]string{"public.respondent has a deferrable primary key", "ALTER TABLE public.respondent DROP CONSTRAINT respondent_pkey, ADD PRIMARY KEY (id)"},
		},
		{
			"a deferrable key with the whole row as identity",
			"create table respondent (id bigint primary key deferrable initially deferred, assessment_id bigint, started_at timestamptz, finished_at timestamptz);" +
				"alter table respondent replica identity full",
			nil,
			[]string{"the primary key of public.respondent is deferrable", "ALTER TABLE public.respondent DROP CONSTRAINT respondent_pkey, ADD PRIMARY KEY (id)"},
		},
		{
			"a parent of tables that inherit", "create table respondent (" + columns + "); create table child () inherits (respondent)",
			nil,
			[]string{"public.respondent", "inherit"},
		},
		{
			"walhook's own table", "create schema walhook; create table walhook.respondent (" + columns + ")",
			[]string{"RESPONDENT_TABLE", "walhook.respondent"},
			[]string{"walhook.respondent"},
		},
		{
			"a table of the system", "",
			[]string{"RESPONDENT_TABLE", "pg_catalog.pg_class", "RESPONDENT_ID", "oid", "RESPONDENT_ASSESSMENT", "relnamespace", "STARTED", "relhasindex", "FINISHED", "relhasrules"},
			[]string{"pg_catalog.pg_class"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, c.schema).With(c.variables...)
			harness.MustFail(s, "plan", c.says...)
			harness.MustFail(s, "attach", c.says...)
			harness.MustFail(s, "doctor", c.says...)
		})
	}
}
