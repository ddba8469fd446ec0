package stream

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/condition"
)

// Attach and the stream read a row in the same way: otherwise the first update after attach would fire events that
// did not happen.
func TestSnapshotAndStreamReadARowAlike(t *testing.T) {
	t.Parallel()
	types := map[string]uint32{"id": pgtype.Int8OID, "assessment_id": pgtype.TextOID, "organization_id": pgtype.TextOID}
	values := rapid.SampledFrom([]any{nil, "", "0", "f", "t", "done", "0.00", "  ", "a\tb\\", strings.Repeat("long", 20)})
	rapid.Check(t, func(t *rapid.T) {
		testMapping := testMapping
		if rapid.Bool().Draw(t, "expressions") {
			testMapping.Started = cdc.Marker{Expression: "started_at is not null and not status is null"}
			testMapping.Finished = cdc.Marker{Expression: "id > 6 and assessment_id in ('done', 'f') or organization_id <> 't'"}
			testMapping.Where = cdc.Marker{Expression: "started_at is not null or finished_at is not null"}
			testMapping.Stamp = cdc.Columns{"finished_at", "organization_id", "edited_at"}
		}
		info := &catalog.Table{Name: testMapping.Respondent, Columns: types}
		row := []any{"7"}
		var columns []wireColumn
		line := "7"
		known := map[string]uint32{}
		for name, typeOID := range types {
			known[name] = typeOID
		}
		for _, name := range testMapping.RespondentColumns() {
			if _, fixed := known[name]; !fixed {
				known[name] = rapid.SampledFrom([]uint32{pgtype.BoolOID, pgtype.TextOID, pgtype.BPCharOID, pgtype.NumericOID, pgtype.TimestamptzOID}).Draw(t, name+" type")
			}
			columns = append(columns, wireColumn{name, known[name]})
			if name == testMapping.ID {
				continue
			}
			value := values.Draw(t, name)
			row = append(row, value)
			if value == nil {
				line += "\t\\N"
			} else {
				line += "\t" + string(catalog.AppendCopyField(nil, value.(string)))
			}
		}
		info.Columns, info.Types = known, map[string]condition.Type{}
		for name, typeOID := range known {
			info.Types[name] = condition.Type{OID: typeOID}
		}
		copied, err := catalog.NewRowReader(testMapping, info, testKey)(copiedFields(line))
		if err != nil {
			t.Fatal(err)
		}
		d := NewDecoder(testMapping, testKey, respondentOID, assessmentOID)
		if _, err := d.Decode(relationMessage(respondentOID, "public", "respondent", columns...)); err != nil {
			t.Fatal(err)
		}
		m, err := d.Decode(insertMessage(respondentOID, row...))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(copied, m.Changes[0].New); diff != "" {
			t.Fatalf("snapshot and stream differ: %s", diff)
		}
	})
}

// A state that is written by COPY is the same when it is read back from its columns.
func TestStatesSurviveTheStore(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		state := rapid.Make[cdc.State]().Draw(t, "state")
		state.FirstID = nil // COPY writes no row that had another key
		fields := copiedFields(string(catalog.AppendState(nil, "7", state)))
		flags, err := strconv.ParseInt(fields[4].Value, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		got := newState(fields[1].Pointer(), fields[2].Pointer(), fields[3].Pointer(), int16(flags), nil)
		if !got.Equal(state) {
			t.Fatalf("%+v became %+v", state, got)
		}
	})
}
