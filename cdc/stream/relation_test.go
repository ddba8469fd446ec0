package stream

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"

	"walhook/cdc"
)

func TestDecodeWithoutOptionalColumns(t *testing.T) {
	t.Parallel()
	m := cdc.Mapping{
		Respondent: cdc.Name{Schema: "public", Table: "respondent"}, ID: "id", Assessment: "assessment_id",
		Started: cdc.Marker{Column: "status", Values: []string{"open", "done"}}, Finished: cdc.Marker{Column: "status", Values: []string{"done"}},
		AssessmentTable: cdc.Name{Schema: "public", Table: "assessment"}, AssessmentID: "id", ExternalID: "external_id",
	}
	d := NewDecoder(m, testKey, respondentOID, assessmentOID)
	for _, described := range []wire{
		// A column without a name is none that is mapped.
		relationMessage(respondentOID, "public", "respondent", wireColumn{"id", pgtype.Int8OID}, wireColumn{"", pgtype.TextOID},
			wireColumn{"assessment_id", pgtype.Int4OID}, wireColumn{"status", pgtype.TextOID}),
		relationMessage(assessmentOID, "public", "assessment", wireColumn{"id", pgtype.Int4OID}, wireColumn{"external_id", pgtype.TextOID}, wireColumn{"", pgtype.TextOID}),
	} {
		if _, err := d.Decode(described); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		data wire
		want Message
	}{
		{
			updateMessage(respondentOID, "7", "unmapped", "3", "done"),
			oneChange(cdc.Update, "", cdc.Row{ID: "7", Assessment: text("3"), Organization: null, Started: cdc.MarkSet, Finished: cdc.MarkSet}),
		},
		{
			updateMessage(respondentOID, "7", "unmapped", "3", notSent),
			oneChange(cdc.Update, "", cdc.Row{ID: "7", Assessment: text("3"), Organization: null, Started: cdc.MarkUnchanged, Finished: cdc.MarkUnchanged}),
		},
		{
			insertMessage(assessmentOID, "3", "ext", "unmapped"),
			Message{Kind: MessageChange, Changes: []cdc.Change{{Kind: cdc.Insert, Table: cdc.Assessment, New: cdc.Row{ID: "3", ExternalID: text("ext"), CopiedFrom: null, Organization: null, Name: null}}}},
		},
	} {
		got, err := d.Decode(tt.data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestDecodeTakesNothingFromTheRowBefore(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(t, respondentRelation)
	full := []any{"7", "Ann", "3", "5", "2026-03-18 18:00:00+00", "done", "x"}
	for _, data := range []wire{
		updateFromMessage(respondentOID, 'O', full, full...),
		updateMessage(respondentOID, "8", notSent, notSent, notSent, notSent, notSent, notSent),
	} {
		m, err := d.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if m.Changes[0].New.ID == "7" {
			continue
		}
		want := oneChange(cdc.Update, "", cdc.Row{ID: "8", Assessment: unchanged, Organization: unchanged, Started: cdc.MarkUnchanged, Finished: cdc.MarkUnchanged, Stamps: []cdc.Stamp{{Stored: unchanged}}})
		if diff := cmp.Diff(want, m); diff != "" {
			t.Error(diff)
		}
	}
}

func TestDecodeTruncateOfATableThatIsNamedAgain(t *testing.T) {
	t.Parallel()
	both := Message{Kind: MessageChange, Changes: []cdc.Change{{Kind: cdc.Truncate, Table: cdc.Respondent}, {Kind: cdc.Truncate, Table: cdc.Assessment}}}
	for _, tt := range []struct {
		data wire
		want Message
	}{
		{truncateMessage(respondentOID, respondentOID), oneChange(cdc.Truncate, "", cdc.Row{})},
		{truncateMessage(respondentOID, assessmentOID, respondentOID, assessmentOID), both},
		{truncateMessage(), Message{}},
	} {
		got, err := newTestDecoder(t).Decode(tt.data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestDecodeWithoutAnAssessmentTable(t *testing.T) {
	t.Parallel()
	d := NewDecoder(testMapping, testKey, respondentOID, 0)
	for _, data := range []wire{
		assessmentRelation, insertMessage(assessmentOID, "3", "ext", "Title", nil), truncateMessage(assessmentOID),
		relationMessage(0, "public", "none"), insertMessage(0, "3"), deleteMessage(0, 'K', "3"), truncateMessage(0),
	} {
		if m, err := d.Decode(data); err != nil || m.Kind != MessageIgnored {
			t.Errorf("%q is %+v, %v", data, m, err)
		}
	}
}

// The OID of a dropped type may be reused for another type, even one with the name of a built-in type.
func TestDecodeForgetsTheTypeThatAnOIDHad(t *testing.T) {
	t.Parallel()
	described := relationMessage(respondentOID, "public", "respondent",
		wireColumn{"id", pgtype.Int8OID}, wireColumn{"assessment_id", pgtype.Int4OID}, wireColumn{"organization_id", pgtype.Int4OID},
		wireColumn{"started_at", 20001}, wireColumn{"status", pgtype.TextOID}, wireColumn{"finished_at", pgtype.TextOID})
	d := newTestDecoder(t, typeMessage(20001, "", "bool"), described, typeMessage(20001, "public", "bool"), described)
	m, err := d.Decode(insertMessage(respondentOID, "7", "3", nil, "f", "open", nil))
	if err != nil {
		t.Fatal(err)
	}
	if m.Changes[0].New.Started != cdc.MarkSet {
		t.Error("a type of the application is read as a boolean")
	}
}

// A column that got a type on which a condition cannot be evaluated stops the stream, and no row is read with the
// description before.
func TestDecodeStopsAtATypeThatAConditionCannotCompare(t *testing.T) {
	t.Parallel()
	mapping := testMapping
	mapping.Finished = cdc.Marker{Expression: "status = 'done' and finished_at > started_at"}
	d := NewDecoder(mapping, testKey, respondentOID, assessmentOID)
	if _, err := d.Decode(respondentRelation); err != nil {
		t.Fatal(err)
	}
	m, err := d.Decode(insertMessage(respondentOID, "7", "Ann", "3", nil, "2026-03-18 12:00:00+00", "done", "2026-03-18 13:00:00+00"))
	if err != nil || m.Changes[0].New.Finished != cdc.MarkSet {
		t.Fatalf("%+v, %v", m, err)
	}
	_, err = d.Decode(relationMessage(respondentOID, "public", "respondent",
		wireColumn{"id", pgtype.Int8OID}, wireColumn{"assessment_id", pgtype.Int4OID}, wireColumn{"organization_id", pgtype.Int4OID},
		wireColumn{"started_at", pgtype.TextOID}, wireColumn{"status", pgtype.TextOID}, wireColumn{"finished_at", pgtype.TimestamptzOID}))
	var refused *ConditionError
	if !errors.As(err, &refused) || refused.Variable != "WALHOOK_FINISHED" || !strings.Contains(err.Error(), `column "finished_at" of type timestamptz`) {
		t.Errorf("got %v", err)
	}
	if _, err := d.Decode(insertMessage(respondentOID, "7", "3", nil, "x", "done", "x")); err == nil {
		t.Error("a row is read by the description before")
	}
}
