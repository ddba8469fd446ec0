package catalog_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/condition"
	"walhook/testenv"
)

// Markers that a constraint, a default or a comma makes mean something else than was meant.
func TestMarkersThatMeanSomethingElse(t *testing.T) {
	t.Parallel()
	cases := []struct{ definition, marker, check, says string }{
		{"text check (level in ('a', 'b'))", "level=a|c", "marker_values", `"c", which the constraint`},
		{"varchar(9) check (level in ('a', 'b'))", "level=a|c", "marker_values", `"c", which the constraint`},
		{"char(3) check (level in ('a', 'b'))", "level=a|c", "marker_values", `"c", which the constraint`},
		{"text check (level = 'a' or level = 'b')", "level=a|c", "marker_values", `"c", which the constraint`},
		{"text check (level <> all (array['c', 'd']))", "level=c", "marker_values", `"c", which the constraint`},
		{"text check (level <> 'it''s::text')", "level=it's::text", "marker_values", "which the constraint"},
		{"int check (level between 0 and 3)", "level=3|4", "marker_values", `"4", which the constraint`},
		{"step", "level=a|c", "marker_values", `"c", which the constraint "step_check"`},
		{"text check (level in ('a', 'b'))", "level=a|b", "marker_values", ""},
		{"text check (lower(level) <> 'a')", "level=a", "marker_values", ""},
		{"text check (level <> 'a' or id > 1)", "level=a", "marker_values", ""},
		{"text default 'new'", "level", "marker_default", "(level is 'new'::text)"},
		{"varchar(9) default 'new'", "level=new|old", "marker_default", "(level is 'new'::character varying)"},
		{"int not null default 1", "level>0", "marker_default", "(level is 1)"},
		{"int default -1", "level", "marker_default", "level is"},
		{"boolean default true", "level", "marker_default", "(level is true)"},
		{"timestamptz default now()", "level", "marker_default", "(level is now())"},
		{"boolean default false", "not level", "marker_default", "(level is false)"},
		{"text default ''", "level", "marker_default", ""},
		{"jsonb default '{}'", "level", "marker_default", ""},
		{"int default 0", "level", "marker_default", ""},
		{"text default md5('a')", "level", "marker_default", ""},
		{"timestamptz default now()", "level > '2000-01-01 00:00:00+00'", "marker_default", ""},
		{"text", "level is null", "marker_default", ""},
		{"text", "level=a,b", "marker_list", "a comma does not separate values"},
		{"text", "level=a,id", "marker_list", `although "id" is a column`},
		{"bigint", "level = stamp", "marker_list", `one value, "stamp", which is a column`},
		{"text", "level = stamp", "marker_list", ""},
		{"text", "level=a|b", "marker_list", ""},
	}
	var columns []string
	for i, c := range cases {
		definition := strings.ReplaceAll(c.definition, "level", fmt.Sprintf("level%d", i))
		columns = append(columns, fmt.Sprintf("level%d %s", i, definition))
	}
	conn := testenv.Connect(t, testenv.Database(t, testenv.Postgres(t), `create domain step text check (value in ('a', 'b'));
		create table respondent (id bigint primary key, assessment_id bigint, stamp bigint, `+strings.Join(columns, ", ")+")"))
	for i, c := range cases {
		marker, err := condition.Parse(strings.ReplaceAll(c.marker, "level", fmt.Sprintf("level%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		always, _ := condition.Parse("id")
		for variable, m := range map[string]cdc.Mapping{
			"WALHOOK_STARTED":  {Started: marker, Finished: always},
			"WALHOOK_FINISHED": {Started: always, Finished: marker},
		} {
			m.Respondent, m.ID, m.Assessment, m.Stamp = cdc.Name{Schema: "public", Table: "respondent"}, "id", "assessment_id", cdc.Columns{"stamp"}
			p, err := catalog.InspectTables(t.Context(), conn, catalog.Target{Publish: catalog.PublishAll, Mapping: m})
			if err != nil {
				t.Fatal(err)
			}
			says := strings.ReplaceAll(c.says, "level", fmt.Sprintf("level%d", i))
			found := slices.ContainsFunc(p.Findings, func(f catalog.Finding) bool {
				return f.Check == c.check && f.Level == catalog.Warn && f.Remedy != "" && strings.HasPrefix(f.Found, variable) && strings.Contains(f.Found, says)
			})
			if found != (c.says != "") {
				t.Errorf("%s=%s on level %s: %s with %q: %v\n%+v", variable, c.marker, c.definition, c.check, c.says, found, p.Findings)
			}
		}
	}
}
