package cdc

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseName(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]Name{
		"public.respondent":             {"public", "respondent"},
		"respondent":                    {"app", "respondent"},
		"  survey . Respondent ":        {"survey", "Respondent"},
		`"Survey Data"."Respondent.v2"`: {"Survey Data", "Respondent.v2"},
		`survey."a ""quoted"" name"`:    {"survey", `a "quoted" name`},
		`"a=b"`:                         {"app", "a=b"},
		`" blank "`:                     {"app", " blank "},
		"überblick.antwort":             {"überblick", "antwort"},
		`"s" . "t"`:                     {"s", "t"},
	} {
		got, err := ParseName(input, "app")
		if err != nil || got != want {
			t.Errorf("%q is %+v, %v", input, got, err)
		}
	}
	for input, reason := range map[string]string{
		"":                "a name is empty",
		"  ":              "a name is empty",
		`""`:              "a name is empty",
		".t":              "a name is empty",
		"s.":              "a name is empty",
		"a.b.c":           "more than two parts",
		`"open`:           "a quote is not closed",
		`s."open""`:       "a quote is not closed",
		`"s"t`:            "after the closing quote",
		`s"t`:             "a quote inside a name that is not quoted",
		`s.t"`:            "a quote inside a name that is not quoted",
		"s.t\x00":         "NUL",
		"\"s\x00\".\"t\"": "NUL",
	} {
		if got, err := ParseName(input, "app"); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q is %+v, %v", input, got, err)
		}
	}
}

func TestNamesAreQuotedForSQL(t *testing.T) {
	t.Parallel()
	n := Name{"Survey Data", `a "b"`}
	if n.String() != `"Survey Data"."a ""b"""` || n.Display() != `Survey Data.a "b"` {
		t.Errorf("%s, %s", n, n.Display())
	}
}

func TestParseColumns(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]Columns{
		"a": {"a"}, " a , B ": {"a", "B"}, `"a,b",c`: {"a,b", "c"}, `"a ""b""", "c"`: {`a "b"`, "c"}, "a,b,a": {"a", "b"},
	} {
		if got, err := ParseColumns(input); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q is %q, %v", input, got, err)
		}
	}
	for _, input := range []string{"", ",", "a,", ",a", "a,,b", `"a`, `"a"b,c`, `a"b`} {
		if got, err := ParseColumns(input); err == nil {
			t.Errorf("%q is %q", input, got)
		}
	}
}

// Mappings that were stored when there was one stamp column are read.
func TestStoredMappingWithOneStampColumn(t *testing.T) {
	t.Parallel()
	for stored, want := range map[string]Columns{
		`{"Stamp": ""}`: nil, `{"Stamp": "a,b"}`: {"a,b"}, `{"Stamp": ["a", "b"]}`: {"a", "b"}, `{"Stamp": null}`: nil,
	} {
		m := Mapping{Stamp: Columns{"x"}}
		if err := json.Unmarshal([]byte(stored), &m); err != nil || !slices.Equal(m.Stamp, want) || !m.Where.IsZero() {
			t.Errorf("%s is %+v, %v", stored, m, err)
		}
	}
}

func TestParseColumn(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]string{
		"id": "id", " Id ": "Id", "a.b": "a.b", "a=b": "a=b", `"a ""b"""`: `a "b"`, `"a.b=c"`: "a.b=c",
	} {
		if got, err := ParseColumn(input); err != nil || got != want {
			t.Errorf("%q is %q, %v", input, got, err)
		}
	}
	for _, input := range []string{"", " ", `""`, `"a`, `"a"b`, `"a".b`, `a"b`, "a\x00"} {
		if got, err := ParseColumn(input); err == nil {
			t.Errorf("%q is %q", input, got)
		}
	}
}

func TestStampColumns(t *testing.T) {
	t.Parallel()
	byColumn, byValue := Marker{Column: "finished_at"}, Marker{Column: "status", Values: []string{"done"}}
	for _, tt := range []struct {
		finished    Marker
		stamp, want Columns
	}{
		{byColumn, nil, Columns{"finished_at"}},
		{byColumn, Columns{"version"}, Columns{"version"}},
		{byValue, nil, nil},
		{byValue, Columns{"version"}, Columns{"version"}},
		{byValue, Columns{"status", "version"}, Columns{"status", "version"}},
	} {
		if got := (Mapping{Finished: tt.finished, Stamp: tt.stamp}).StampColumns(); !slices.Equal(got, tt.want) {
			t.Errorf("%s with stamp %q: %q", tt.finished, tt.stamp, got)
		}
	}
}

func TestMappedColumnsAreDistinct(t *testing.T) {
	t.Parallel()
	m := Mapping{
		ID: "id", Assessment: "assessment_id", Started: Marker{Column: "status", Values: []string{"open", "done"}},
		Finished: Marker{Column: "status", Values: []string{"done"}}, AssessmentID: "id", ExternalID: "id",
	}
	if got := m.RespondentColumns(); !slices.Equal(got, []string{"id", "assessment_id", "status"}) {
		t.Errorf("respondent: %q", got)
	}
	if got := m.AssessmentColumns(); !slices.Equal(got, []string{"id"}) {
		t.Errorf("assessment: %q", got)
	}
	m.Organization, m.Stamp, m.CopiedFrom = "org_id", Columns{"finished_at", "status", "edited_at"}, "copied_from"
	if got := m.RespondentColumns(); !slices.Equal(
		got, []string{"id", "assessment_id", "org_id", "status", "finished_at", "edited_at"},
	) {
		t.Errorf("respondent: %q", got)
	}
	m.AssessmentOrganization, m.AssessmentName = "org_id", "id"
	if got := m.AssessmentColumns(); !slices.Equal(got, []string{"id", "copied_from", "org_id"}) {
		t.Errorf("assessment: %q", got)
	}
	if m.HasAssessmentTable() || !(Mapping{AssessmentTable: Name{"s", "t"}}).HasAssessmentTable() {
		t.Error("the assessment table is misread")
	}
}

func TestDiffNamesTheVariables(t *testing.T) {
	t.Parallel()
	before := Mapping{
		Respondent: Name{"public", "respondent"}, ID: "id", Assessment: "assessment_id",
		Started: Marker{Column: "started_at"}, Finished: Marker{Column: "finished_at"},
	}
	after := before
	after.Stamp = Columns{"finished_at"} // what it was by default
	if got := Diff(before, after); got != nil {
		t.Errorf("the same: %q", got)
	}
	after = Mapping{
		Respondent: Name{"survey", "respondent"}, ID: "uuid", Assessment: "survey_id", Organization: "org",
		Where: Marker{Expression: "not draft"}, Started: Marker{
			Column: "state", Values: []string{"open"},
		}, Finished: Marker{Column: "state", Values: []string{"done"}}, Stamp: Columns{"version", "a,b"},
		AssessmentTable: Name{"survey", "survey"}, AssessmentID: "id", ExternalID: "code", CopiedFrom: "origin",
		AssessmentOrganization: "owner", AssessmentName: "title",
	}
	got := Diff(before, after)
	for i, variable := range []string{
		"RESPONDENT_TABLE", "RESPONDENT_ID", "RESPONDENT_ASSESSMENT", "RESPONDENT_ORGANIZATION", "RESPONDENT_WHERE", "STARTED", "FINISHED", "FINISH_STAMP",
		"ASSESSMENT_TABLE", "ASSESSMENT_ID", "ASSESSMENT_EXTERNAL_ID", "ASSESSMENT_COPIED_FROM",
		"ASSESSMENT_ORGANIZATION", "ASSESSMENT_NAME",
	} {
		if i >= len(got) || got[i].Variable != "WALHOOK_"+variable {
			t.Fatalf("WALHOOK_%s is not told of: %q", variable, got)
		}
	}
	if want := (Difference{"WALHOOK_FINISH_STAMP", "finished_at", `version,"a,b"`}); got[7] != want {
		t.Errorf("%q and not %q", got[7], want)
	}
	if want := (Difference{"WALHOOK_STARTED", "started_at", "state=open"}); got[5] != want {
		t.Errorf("%q and not %q", got[5], want)
	}
}

func TestDiffTellsTablesApartByWhatTheyAre(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		before, after Name
		was, is       string
	}{
		{Name{"a.b", "c"}, Name{"a", "b.c"}, `"a.b".c`, `a."b.c"`},
		{Name{}, Name{"a", "b"}, "", "a.b"},
		{Name{"a", "b"}, Name{"a", "B"}, "a.b", "a.B"},
	} {
		got := Diff(Mapping{AssessmentTable: tt.before}, Mapping{AssessmentTable: tt.after})
		if !slices.Equal(got, []Difference{{"WALHOOK_ASSESSMENT_TABLE", tt.was, tt.is}}) {
			t.Errorf("%+v and %+v: %q", tt.before, tt.after, got)
		}
	}
}

func drawMapping(t *rapid.T) Mapping {
	name := rapid.StringOf(rapid.SampledFrom([]rune{'a', 'B', '.', '"', '=', '|', ' '}))
	marker := func(label string) Marker {
		var values []string
		for range rapid.IntRange(0, 2).Draw(t, label+" values") {
			values = append(values, rapid.SampledFrom([]string{"a", "b", "a=b", `"`}).Draw(t, label+" value"))
		}
		if rapid.Bool().Draw(t, label+" is an expression") {
			return Marker{Expression: rapid.SampledFrom([]string{"(a = b)", "a > 0", "not B"}).Draw(t, label)}
		}
		return Marker{Column: name.Filter(func(s string) bool { return s != "" }).Draw(t, label), Values: values}
	}
	var where Marker
	if rapid.Bool().Draw(t, "has where") {
		where = marker("where")
	}
	return Mapping{
		Respondent: Name{
			name.Draw(t, "schema"), name.Draw(t, "table"),
		}, ID: name.Draw(t, "id"), Assessment: name.Draw(t, "assessment"),
		Organization: name.Draw(
			t, "organization",
		), Where: where, Started: marker("started"), Finished: marker("finished"), Stamp: rapid.SliceOfN(name, 1, 3).Draw(t, "stamp"),
		AssessmentTable: Name{name.Draw(t, "assessment schema"), name.Draw(t, "assessment table")},
		AssessmentID: name.Draw(
			t, "assessment id",
		), ExternalID: name.Draw(t, "external id"), CopiedFrom: name.Draw(t, "copied from"),
		AssessmentOrganization: name.Draw(t, "assessment organization"), AssessmentName: name.Draw(t, "assessment name"),
	}
}

// The store keeps the mapping as JSON, and Diff decides whether a daemon may continue with it.
func TestMappingsAreStoredWithoutLoss(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m, other := drawMapping(t), drawMapping(t)
		stored, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var again Mapping
		if err := json.Unmarshal(stored, &again); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatal(diff)
		}
		if differs := Diff(m, again); differs != nil {
			t.Fatalf("the same differs: %q", differs)
		}
		// One field at a time, so that no difference hides behind another.
		from, to := reflect.ValueOf(other), reflect.ValueOf(&again).Elem()
		field := rapid.IntRange(0, to.NumField()-1).Draw(t, "field")
		to.Field(field).Set(from.Field(field))
		m.Stamp, again.Stamp = m.StampColumns(), again.StampColumns() // the default and its name are the same
		if differs := Diff(m, again); (differs == nil) != cmp.Equal(m, again) {
			t.Fatalf("%+v and %+v: %q", m, again, differs)
		}
	})
}

func FuzzParseName(f *testing.F) {
	for _, seed := range []string{"public.respondent", `"Survey Data"."Respondent.v2"`, `"a""b"`, "a.b.c", `s"t`, " a . b ", `""`, "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input string) {
		name, err := ParseName(input, "public")
		if err != nil {
			return
		}
		if name.Schema == "" || name.Table == "" {
			t.Fatalf("%q has an empty part: %+v", input, name)
		}
		again, err := ParseName(name.String(), "other")
		if err != nil || again != name {
			t.Fatalf("%q is %+v, and read again %+v, %v", input, name, again, err)
		}
		if again, err = ParseName(name.setting(), "other"); err != nil || again != name {
			t.Fatalf("%q is %+v, and as a setting %+v, %v", input, name, again, err)
		}
	})
}
