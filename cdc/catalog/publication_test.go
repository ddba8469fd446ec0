package catalog

import (
	"slices"
	"strings"
	"testing"

	"walhook/cdc"
)

func testPublication(publish string) PublicationSpec {
	respondent := &Table{
		OID: respondentOID, Name: cdc.Name{Schema: "public", Table: "Respondent"}, Kind: "p",
		Identities: []Identity{
			{Table: "public.r1", Setting: "i", Columns: []string{"id", "tenant"}},
			{Table: "public.r2", Setting: "d", Columns: []string{"id"}},
		},
	}
	assessment := &Table{
		OID: assessmentOID, Name: cdc.Name{Schema: "public", Table: "assessment"}, Kind: "r",
		Identities: []Identity{{Table: "public.assessment", Columns: []string{"id"}}},
	}
	return NewPublicationSpec("wal's hook", "the_slot", publish, testMapping, respondent, assessment)
}

const publishedHow = "\n  with (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)"

func TestPublicationIsMadeOfWholeTables(t *testing.T) {
	t.Parallel()
	want := `create publication "wal's hook" for table "public"."Respondent", "public"."assessment"` + publishedHow
	if got := testPublication(PublishAll).createSQL(); got != want {
		t.Errorf("%s\nand not\n%s", got, want)
	}
}

func TestPublicationOfMappedColumnsCarriesEveryReplicaIdentity(t *testing.T) {
	t.Parallel()
	want := `create publication "wal's hook" for table ` +
		`"public"."Respondent" ("id", "assessment_id", "organization_id", "started_at", "status", "finished_at", "tenant"), ` +
		`"public"."assessment" ("id", "external_id", "copied_from")` + publishedHow
	if got := testPublication(PublishMapped).createSQL(); got != want {
		t.Errorf("%s\nand not\n%s", got, want)
	}
}

func TestPublicationWithoutAssessmentTable(t *testing.T) {
	t.Parallel()
	spec := NewPublicationSpec("walhook", "the_slot", PublishAll, testMapping, &Table{Name: testMapping.Respondent}, nil)
	if got, want := spec.createSQL(), `create publication "walhook" for table "public"."respondent"`+publishedHow; got != want {
		t.Errorf("%s\nand not\n%s", got, want)
	}
}

func TestDriftTellsHowAPublicationDiffers(t *testing.T) {
	t.Parallel()
	every := [4]bool{true, true, true, true}
	needed := []string{"id", "assessment_id", "organization_id", "started_at", "status", "finished_at", "tenant"}
	for name, tt := range map[string]struct {
		have *Publication
		want []string
	}{
		"as it should be":    {&Publication{viaRoot: true, actions: every, tables: map[uint32][]string{respondentOID: nil, assessmentOID: nil}}, nil},
		"more tables":        {&Publication{viaRoot: true, actions: every, tables: map[uint32][]string{respondentOID: nil, assessmentOID: nil, otherOID: nil}}, nil},
		"all tables":         {&Publication{viaRoot: true, actions: every, allTables: true}, nil},
		"a list that covers": {&Publication{viaRoot: true, actions: every, tables: map[uint32][]string{respondentOID: append(needed, "more"), assessmentOID: nil}}, nil},
		"a row filter": {
			&Publication{viaRoot: true, actions: every, tables: map[uint32][]string{respondentOID: nil, assessmentOID: nil}, filtered: map[uint32]bool{assessmentOID: true}},
			[]string{"row filter in publication \"wal's hook\" hides rows of public.assessment"},
		},
		"none":           {nil, []string{"does not exist"}},
		"emptied":        {&Publication{viaRoot: true, actions: every}, []string{"lacks table public.Respondent", "lacks table public.assessment"}},
		"one table less": {&Publication{viaRoot: true, actions: every, tables: map[uint32][]string{assessmentOID: nil}}, []string{"lacks table public.Respondent"}},
		"actions less": {
			&Publication{viaRoot: true, actions: [4]bool{true, false, true, false}, allTables: true},
			[]string{"does not publish update", "does not publish truncate"},
		},
		"a schema": {&Publication{viaRoot: true, actions: every, schemas: map[string]string{"public": ""}}, nil},
		"another schema": {
			&Publication{viaRoot: true, actions: every, schemas: map[string]string{"other": ""}, tables: map[uint32][]string{assessmentOID: nil}},
			[]string{"lacks table public.Respondent"},
		},
		"by partition": {&Publication{actions: every, allTables: true}, []string{"partition root"}},
		"a list without the replica identity": {
			&Publication{viaRoot: true, actions: every, tables: map[uint32][]string{respondentOID: needed[:6], assessmentOID: nil}},
			[]string{"column list of public.Respondent"},
		},
	} {
		got := testPublication(PublishAll).Drift(tt.have)
		if len(got) != len(tt.want) {
			t.Errorf("%s: %q", name, got)
			continue
		}
		for i, part := range tt.want {
			if !strings.Contains(got[i], part) || !strings.Contains(got[i], `"wal's hook"`) {
				t.Errorf("%s: %q does not say %q", name, got[i], part)
			}
		}
	}
}

func TestMendingMakesWhatIsMissing(t *testing.T) {
	t.Parallel()
	spec := testPublication(PublishAll)
	const how = `alter publication "wal's hook" set (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`
	for name, tt := range map[string]struct {
		have *Publication
		want []string
	}{
		"none":       {nil, []string{spec.createSQL(), `comment on publication "wal's hook" is 'walhook, for slot the_slot'`}},
		"all tables": {&Publication{allTables: true}, []string{how}},
		"a schema":   {&Publication{schemas: map[string]string{"public": ""}}, []string{how}},
		"another schema": {
			&Publication{schemas: map[string]string{"other": ""}, tables: map[uint32][]string{assessmentOID: {"id"}}},
			[]string{
				how, `alter publication "wal's hook" add table "public"."Respondent"`,
				`alter publication "wal's hook" drop table "public"."assessment"`, `alter publication "wal's hook" add table "public"."assessment"`,
			},
		},
		"emptied": {&Publication{}, []string{how, `alter publication "wal's hook" set table "public"."Respondent", "public"."assessment"`}},
	} {
		if got := spec.RepairSQL(tt.have); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := QuotePublication(`wal's "hook"`); got != `"wal''s ""hook"""` {
		t.Errorf("%s", got)
	}
}
