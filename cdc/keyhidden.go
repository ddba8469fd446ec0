package cdc

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/sql"
)

// hiddenKey says that deletes and changed keys of the table do not tell which row they are about, since somebody gave it a replica
// identity that lacks the mapped key; "" where they do. The application can write, so the table stays published.
func (t *TableInfo) hiddenKey(key string) string {
	for _, identity := range t.Identities {
		if len(identity.Columns) > 0 && identity.Setting != "n" && !slices.Contains(identity.Columns, key) {
			remedy, ok := identity.covering(key)
			if !ok {
				remedy = fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY USING INDEX with a unique index that has %s and no column that may be NULL", identity.Table, key)
			}
			return fmt.Sprintf("table %s has a replica identity (%s) that lacks %s: rows that are deleted stay recorded, and a changed key looks like a new row, "+
				"until somebody runs %s; then the table is compared", identity.Table, strings.Join(identity.Columns, ", "), key, remedy)
		}
	}
	return ""
}

// unidentifiedDelete is the incident of a delete that came without its key. It is written with the batch that has it.
func (b *batch) unidentifiedDelete() {
	if b.unidentified {
		return
	}
	b.unidentified, b.changed = true, true
	detail := fmt.Sprintf("a deleted row of %s came without its key, so it stays recorded until the table is compared", b.w.mapping.Respondent.Display())
	b.work.Queue(sql.OpenIncident.SQL, sql.OpenIncident.Bind(sql.Args{"kind": KeyHidden, "detail": detail})...)
	b.w.status.keyHidden.Store(true)
}

// watchKeys tells of a table that hides its key, as an incident that stays open, and returns the gap that is left of it once the
// table does not any more. The store is asked when asked is false, and otherwise only where this process saw something.
func (s *Stream) watchKeys(ctx context.Context, tables []*TableInfo, asked bool) (*GapError, error) {
	keys := []string{s.cfg.Mapping.ID, s.cfg.Mapping.AssessmentID}
	for i, table := range tables {
		detail := table.hiddenKey(keys[i])
		if detail == "" {
			continue
		}
		if s.keyHidden == detail {
			return nil, nil
		}
		err := s.atStore(ctx, func(store *pgx.Conn) error {
			_, err := store.Exec(ctx, sql.OpenIncident.SQL, sql.OpenIncident.Bind(sql.Args{"kind": KeyHidden, "detail": detail})...)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("record the incident: %w", err)
		}
		s.keyHidden = detail
		s.cfg.Status.keyHidden.Store(true)
		s.cfg.Log.Error("a table hides its key", "table", table.Name.Display(), "detail", detail)
		return nil, nil
	}
	if asked && !s.cfg.Status.keyHidden.Load() {
		return nil, nil
	}
	var open *GapError
	err := s.atStore(ctx, func(store *pgx.Conn) (err error) {
		open, err = openGap(ctx, store, []string{KeyHidden})
		return err
	})
	if err != nil {
		return nil, err
	}
	s.keyHidden = ""
	if open == nil {
		return nil, nil // the batch that tells of it is on its way, or there is nothing
	}
	s.cfg.Status.keyHidden.Store(false)
	return &GapError{KeyHidden, "deletes or changed keys came without the key of their rows, since a replica identity lacked it; now it has it again"}, nil
}

// atStore does something on a connection of its own: that of the stream belongs to the writer.
func (s *Stream) atStore(ctx context.Context, do func(*pgx.Conn) error) error {
	store, err := ConnectStore(ctx, s.cfg.StoreURL)
	if err != nil {
		return err
	}
	defer closeQuietly(store)
	return do(store)
}
