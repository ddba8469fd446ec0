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

// retypeRetryInterval is how soon a failed reconciliation of a retyped column is retried. It does not stop the
// stream.
const retypeRetryInterval = 30 * time.Second

// checkColumnTypes returns a *GapError if the mapped columns' types differ from the recorded ones, or did for a while
// without a reconciliation; nil otherwise.
func (s *Stream) checkColumnTypes(a *catalog.Attachment, tables []*catalog.Table) *cdc.GapError {
	if s.cfg.Reconcile == nil || time.Since(s.retypeFailedAt) < retypeRetryInterval {
		return nil // a reconciliation's own stream resolves the incident itself
	}
	var assessment *catalog.Table
	if len(tables) > 1 {
		assessment = tables[1]
	}
	now := catalog.ColumnTypesOf(s.cfg.Mapping, tables[0], assessment)
	if maps.Equal(now, a.Types) {
		return s.openRetypeGap // the types are the recorded ones again, but a reconciliation is still due
	}
	if a.Types == nil {
		return &cdc.GapError{Kind: cdc.ColumnRetyped, Detail: "the types of the mapped columns are not recorded yet"}
	}
	var changes []string
	for _, c := range catalog.MappedColumns(s.cfg.Mapping, tables[0], assessment) {
		if before, now := a.Types[c.Role], now[c.Role]; before != now {
			changes = append(changes,
				fmt.Sprintf("column %s of %s has another type (%s, was %s)", c.Column, c.Table.Name.Display(), now.Name(),
					before.Name()))
		}
	}
	return &cdc.GapError{Kind: cdc.ColumnRetyped, Detail: strings.Join(slices.Compact(changes), "; ")}
}

// rekeyExpression returns SQL that converts a recorded key of the former type to the current one, as ALTER TYPE
// without USING did; "" if both are spelled alike. known is false if the conversion cannot be derived.
func rekeyExpression(before, now cdc.ColumnType) (expression string, known bool) {
	if before == now {
		return "", true
	}
	stored := "response_id"
	if before.OID == pgtype.BPCharOID {
		stored = "rtrim(response_id, ' ')"
	}
	switch from, to := before.Family(), now.Family(); {
	case now.OID == pgtype.BPCharOID && now.Modifier > 4:
		known = from == cdc.FamilyText || from == cdc.FamilyNumber || from == cdc.FamilyUUID
		return fmt.Sprintf("rpad(%s, %d)", stored, now.Modifier-4), known
	case to == cdc.FamilyText:
		if stored == "response_id" {
			stored = ""
		}
		return stored, true
	case to == cdc.FamilyNumber && (from == cdc.FamilyNumber || from == cdc.FamilyText):
		return "(" + stored + "::" + now.CastName() + ")::text", true
	case to == cdc.FamilyUUID && (from == cdc.FamilyUUID || from == cdc.FamilyText):
		return "(" + stored + "::uuid)::text", true
	}
	return "", before.OID == now.OID
}

// rekeyStates converts the recorded keys to the column's current type. It reports whether that is possible.
func rekeyStates(ctx context.Context, store *pgx.Conn, before, now cdc.ColumnType) (known bool, err error) {
	expression, known := rekeyExpression(before, now)
	if !known || expression == "" {
		return known, nil
	}
	err = catalog.InSavepoint(ctx, store, func() error {
		_, err := store.Exec(ctx, rekeySQL(expression))
		return err
	})
	if cdc.IsRejected(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("give the recorded states the keys of the retyped column: %w", err)
	}
	return true, nil
}

// keyTypeChanged reports whether an item's key has another type than the recorded states.
func (w *writer) keyTypeChanged(it item) bool {
	return it.kind == itemChange && it.change.Table == cdc.Respondent && it.change.Kind != cdc.Truncate &&
		w.key.OID != 0 &&
		it.keyType != w.key
}

// rekey stores the changes under the former type of the key, then converts the recorded keys to the new one, in the
// order of the stream, so that each response keeps its history.
func (w *writer) rekey(ctx context.Context, to cdc.ColumnType) error {
	if err := w.awaitCommit(); err != nil {
		return err
	}
	if w.next.items > 0 {
		w.startCommit(ctx, w.next)
		if err := w.awaitCommit(); err != nil {
			return err
		}
	}
	gap := &cdc.GapError{
		Kind: cdc.KeyRetyped,
		Detail: fmt.Sprintf(
			"the key %s of %s has another type (%s, was %s), and which recorded response is which row cannot be told from it",
			w.mapping.ID, w.mapping.Respondent.Display(), to.Name(), w.key.Name(),
		),
	}
	expression, known := rekeyExpression(w.key, to)
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
		if cdc.IsRejected(err) {
			return gap
		}
		return err
	}
	w.key = to
	w.states.purge()
	w.next = newBatch(w)
	w.queue.ReportKeyType(to)
	return nil
}

func rekeySQL(expression string) string {
	return "update walhook.response_state set first_id = coalesce(first_id, response_id), response_id = " + expression +
		" where response_id <> " + expression
}
