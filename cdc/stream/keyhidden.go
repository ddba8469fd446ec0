package stream

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/sql"
)

// keyHiddenDetail describes a table whose deletes and changed keys do not identify their row, because its replica
// identity lacks the mapped key; "" if there is none. The application can still write, so the table stays published.
func keyHiddenDetail(t *catalog.Table, key string) string {
	for _, identity := range t.Identities {
		if len(identity.Columns) > 0 && identity.Setting != "n" && !slices.Contains(identity.Columns, key) {
			remedy, ok := identity.Covering(key)
			if !ok {
				remedy = fmt.Sprintf(
					"ALTER TABLE %s REPLICA IDENTITY USING INDEX with a unique index that has %s and no column that may be NULL",
					identity.Table, key,
				)
			}
			return fmt.Sprintf(
				"table %s has a replica identity (%s) that lacks %s: rows that are deleted stay recorded, "+
					"and a changed key looks like a new row, until somebody runs %s; then the table is compared",
				identity.Table, strings.Join(identity.Columns, ", "), key, remedy,
			)
		}
	}
	return ""
}

// unidentifiedDelete records the incident of a delete without its key, in the batch that contains the delete.
func (b *batch) unidentifiedDelete() {
	if b.unidentified {
		return
	}
	b.unidentified, b.changed = true, true
	detail := fmt.Sprintf("a deleted row of %s came without its key, so it stays recorded until the table is compared",
		b.writer.mapping.Respondent.Display())
	b.work.Queue(sql.OpenIncident.SQL, sql.OpenIncident.Bind(sql.Args{"kind": cdc.KeyHidden, "detail": detail})...)
	b.writer.status.keyHidden.Store(true)
}

// watchKeyHidden keeps an incident open while a replica identity lacks the key. Once none does, it returns the gap that
// remains.
func (s *Stream) watchKeyHidden(ctx context.Context, tables []*catalog.Table) (*cdc.GapError, error) {
	keys := []string{s.cfg.Mapping.ID, s.cfg.Mapping.AssessmentID}
	var table, detail string
	for i, t := range tables {
		if detail = keyHiddenDetail(t, keys[i]); detail != "" {
			table = t.Name.Display()
			break
		}
	}
	// If a delete without its key has set the flag and the store has no gap, the batch that records it is in flight.
	hidden := &s.cfg.Status.keyHidden
	changed, gap, err := s.trackTemporaryGap(ctx, &s.hiddenKey, cdc.KeyHidden, detail, hidden.Load(),
		"deletes or changed keys came without the key of their rows, since a replica identity lacked it; now it has it again")
	if changed {
		hidden.Store(true)
		s.cfg.Log.Error("the replica identity lacks the key", "table", table, "detail", detail)
	}
	if gap != nil {
		hidden.Store(false)
	}
	return gap, err
}
