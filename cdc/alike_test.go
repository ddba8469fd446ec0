package cdc

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"
)

// TestSnapshotAndStreamReadARowAlike holds attach and the stream to one reading of a row: else the first update after
// attach would fire what did not happen.
func TestSnapshotAndStreamReadARowAlike(t *testing.T) {
	t.Parallel()
	types := map[string]uint32{"id": pgtype.Int8OID, "assessment_id": pgtype.TextOID, "organization_id": pgtype.TextOID}
	values := rapid.SampledFrom([]any{nil, "", "0", "f", "t", "done", "0.00", "  ", "a\tb\\", strings.Repeat("long", 20)})
	rapid.Check(t, func(t *rapid.T) {
		info := &TableInfo{Name: testMapping.Respondent, Columns: types}
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
				line += "\t" + string(appendCopyField(nil, value.(string)))
			}
		}
		info.Columns = known
		var copied Row
		if _, _, err := copyThrough(line+"\n", 1000, len(columns), func(dst []byte, fields []Text) ([]byte, error) {
			var err error
			copied, err = newRowReader(testMapping, info)(fields)
			return dst, err
		}); err != nil {
			t.Fatal(err)
		}
		d := NewDecoder(testMapping, respondentOID, assessmentOID)
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

// TestStatesSurviveTheStore writes a state as COPY does and reads it back from its columns.
func TestStatesSurviveTheStore(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		state := drawState(t)
		var got *State
		_, _, err := copyThrough(string(append(appendState(nil, "7", state), '\n')), 1000, 5, func(dst []byte, fields []Text) ([]byte, error) {
			flags := int16(0)
			for _, digit := range fields[4].Value {
				flags = flags*10 + int16(digit-'0')
			}
			got = newState(fields[1].pointer(), fields[2].pointer(), fields[3].pointer(), flags, nil)
			return dst, nil
		})
		if err != nil || !got.Equal(state) {
			t.Fatalf("%+v became %+v, %v", state, got, err)
		}
	})
}
