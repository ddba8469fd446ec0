package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/sql"
)

// retypedAgain is how soon a comparison that failed is tried again for a column's new type, which does not stop the stream.
const retypedAgain = 30 * time.Second

// retyped returns a *GapError where mapped columns have other types than what is stored is of, or had for a while and were not compared;
// nil where neither is so.
func (s *Stream) retyped(a *catalog.Attachment, tables []*catalog.TableInfo) *cdc.GapError {
	if s.cfg.Mend == nil || time.Since(s.retypeFailed) < retypedAgain {
		return nil // without Mend, this is the stream of a comparison, which closes the incident itself
	}
	var assessment *catalog.TableInfo
	if len(tables) > 1 {
		assessment = tables[1]
	}
	now := catalog.ColumnTypesOf(s.cfg.Mapping, tables[0], assessment)
	if maps.Equal(now, a.Types) {
		return s.retypeOpen // the types are the former ones again, and the comparison is still due
	}
	if a.Types == nil {
		return &cdc.GapError{Kind: cdc.ColumnRetyped, Detail: "the types of the mapped columns are not recorded yet"}
	}
	var changes []string
	for _, c := range catalog.MappedColumns(s.cfg.Mapping, tables[0], assessment) {
		if before, now := a.Types[c.Role], now[c.Role]; before != now {
			changes = append(changes, fmt.Sprintf("column %s of %s has another type (%s, was %s)", c.Column, c.Table.Name.Display(), now.Name(), before.Name()))
		}
	}
	return &cdc.GapError{Kind: cdc.ColumnRetyped, Detail: strings.Join(slices.Compact(changes), "; ")}
}

// rekeying returns SQL that makes a stored key of the type before one of the type now, "" where both are spelled alike, as the
// application's ALTER TYPE did without USING. It is not known where that cannot be told.
func rekeying(before, now cdc.ColumnType) (expression string, known bool) {
	if before == now {
		return "", true
	}
	stored := "response_id"
	if before.OID == pgtype.BPCharOID {
		stored = "rtrim(response_id, ' ')"
	}
	switch from, to := before.Family(), now.Family(); {
	case now.OID == pgtype.BPCharOID && now.Modifier > 4:
		return fmt.Sprintf("rpad(%s, %d)", stored, now.Modifier-4), from == cdc.Letters || from == cdc.Number || from == cdc.UUID
	case to == cdc.Letters:
		if stored == "response_id" {
			stored = ""
		}
		return stored, true
	case to == cdc.Number && (from == cdc.Number || from == cdc.Letters):
		return "(" + stored + "::" + now.CastName() + ")::text", true
	case to == cdc.UUID && (from == cdc.UUID || from == cdc.Letters):
		return "(" + stored + "::uuid)::text", true
	}
	return "", before.OID == now.OID
}

// rekey lets the recorded states have the keys of the column as it is now. It reports whether they can have.
func rekey(ctx context.Context, store *pgx.Conn, before, now cdc.ColumnType) (known bool, err error) {
	expression, known := rekeying(before, now)
	if !known || expression == "" {
		return known, nil
	}
	err = catalog.InSavepoint(ctx, store, func() error {
		_, err := store.Exec(ctx, rekeySQL(expression))
		return err
	})
	if cdc.Untakable(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("give the recorded states the keys of the retyped column: %w", err)
	}
	return true, nil
}

// isRekeyed reports whether the key of an item is of another type than the states have.
func (w *writer) isRekeyed(it item) bool {
	return it.kind == itemChange && it.change.Table == cdc.Respondent && it.change.Kind != cdc.Truncate && w.key.OID != 0 && it.key != w.key
}

// rekey stores what was gathered under the former type of the key, and lets the states have the keys of the new one, in the order of the
// stream: the history follows the rows.
func (w *writer) rekey(ctx context.Context, to cdc.ColumnType) error {
	if err := w.await(); err != nil {
		return err
	}
	if w.next.items > 0 {
		w.begin(ctx, w.next)
		if err := w.await(); err != nil {
			return err
		}
	}
	gap := &cdc.GapError{Kind: cdc.KeyRetyped, Detail: fmt.Sprintf("the key %s of %s has another type (%s, was %s), and which recorded response is which row cannot be told from it",
		w.mapping.ID, w.mapping.Respondent.Display(), to.Name(), w.key.Name())}
	expression, known := rekeying(w.key, to)
	if !known {
		return gap
	}
	work := &pgx.Batch{}
	if expression != "" {
		work.Queue(rekeySQL(expression))
	}
	key, err := json.Marshal(to)
	if err != nil {
		return fmt.Errorf("record the type of the key: %w", err)
	}
	work.Queue(sql.RecordKeyType.SQL, sql.RecordKeyType.Bind(sql.Args{"numeric_id": to.IsInteger(), "key": key})...)
	work.Queue("select pg_catalog.pg_notify('walhook', '')")
	if err := w.commit(ctx, work, w.consumed); err != nil {
		if cdc.Untakable(err) {
			return gap
		}
		return err
	}
	w.key = to
	w.states.purge()
	w.next = newBatch(w)
	w.queue.ReportKey(to)
	return nil
}

func rekeySQL(expression string) string {
	return "update walhook.response_state set first_id = coalesce(first_id, response_id), response_id = " + expression + " where response_id <> " + expression
}
