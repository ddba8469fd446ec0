package setup

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/condition"
)

// What the next finish fires is shown for a row with a stamp, even if the first finished row has none.
func TestPreviewOfNextFinishIgnoresRowsWithoutStamp(t *testing.T) {
	t.Parallel()
	mapping := cdc.Mapping{
		ID: "id", Assessment: "assessment_id", Started: cdc.Marker{Column: "status"}, Finished: cdc.Marker{Column: "status", Values: []string{"done"}},
		Stamp: cdc.Columns{"finished_at"},
	}
	table := &catalog.Table{
		Columns: map[string]uint32{"id": pgtype.Int8OID, "assessment_id": pgtype.Int8OID, "status": pgtype.TextOID, "finished_at": pgtype.TimestamptzOID},
		Types:   map[string]condition.Type{"status": {OID: pgtype.TextOID}},
	}
	for name, c := range map[string]struct {
		stamps []string
		want   []string
	}{
		"some without a stamp": {[]string{"", "2026-01-31 12:00:00+00", ""}, []string{"response.changed"}},
		"all without a stamp":  {[]string{"", ""}, []string{}},
	} {
		tally := newTally(mapping, table)
		for _, stamp := range c.stamps {
			row := []cdc.Text{{Value: "1"}, {Value: "17"}, {Value: "done"}, {Value: stamp, Null: stamp == ""}}
			if err := tally.add(row); err != nil {
				t.Fatal(err)
			}
		}
		next := tally.next()
		i := slices.IndexFunc(next, func(n PreviewNext) bool { return n.Write == "the finish stamp changes" })
		if i < 0 || !slices.Equal(next[i].Fires, c.want) {
			t.Errorf("%s: the next writes are %v", name, next)
		}
	}
}
