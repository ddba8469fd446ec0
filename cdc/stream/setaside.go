package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/sql"
)

// isolateItems is how many items are stored synchronously after a rejected one: more than a failed batch contains,
// and enough that many rejected rows in a bulk load do not need a new connection each.
const isolateItems = 1 << 16

// rejectedBatchError reports that the store rejected a batch. The next session isolates the row, without backoff.
type rejectedBatchError struct{ error }

func (e *rejectedBatchError) Unwrap() error { return e.error }

// isolate stores items in halves until the rejected one stands alone, and sets that aside. All others are stored as
// usual.
func (w *writer) isolate(ctx context.Context, items []item) error {
	err := w.storeSync(ctx, items, nil)
	if !cdc.IsRejected(err) {
		return err
	}
	w.isolateLeft = isolateItems
	w.states.purge() // it contains the states of the failed batch
	w.queue.Began()  // deliveries queued before the failure may not be in memory
	if len(items) > 1 {
		half := len(items) / 2
		if err := w.isolate(ctx, items[:half]); err != nil {
			return err
		}
		return w.isolate(ctx, items[half:])
	}
	it := items[0]
	if it.kind != itemChange || it.change.Kind == cdc.Truncate {
		return err
	}
	if cdc.IsEncodingError(err) {
		// A key that the store cannot represent has no state.
		switch {
		case it.change.Kind == cdc.Delete: // there is nothing to set aside
			it.kind = itemSetAside
			return w.storeSync(ctx, []item{it}, nil)
		case it.change.KeyChanged:
			it.change.KeyChanged = false
			if err = w.storeSync(ctx, []item{it}, nil); !cdc.IsRejected(err) {
				return err
			}
		}
	}
	refused := RejectedRow{
		Table: w.mapping.TableOf(it.change.Table), Key: it.change.New.ID, LSN: it.tx.CommitLSN, Cause: err,
	}
	if original := it.change.New.CopiedFrom; it.change.Table == cdc.Assessment && it.change.Kind == cdc.Insert && original.Value != "" {
		withoutCopies := refused
		note := &withoutCopies
		if note.original = original.Value; cdc.IsEncodingError(err) {
			note = nil // no webhook of the store is for such an original
		}
		it.change.New.CopiedFrom = cdc.Text{Null: true}
		if err := w.storeSync(ctx, []item{it}, note); !cdc.IsRejected(err) {
			return err
		}
	}
	it.kind = itemSetAside
	return w.storeSync(ctx, []item{it}, &refused)
}

// storeSync stores items, and the incident of a rejected row if there is one, in one transaction, and waits for it.
func (w *writer) storeSync(ctx context.Context, items []item, refused *RejectedRow) error {
	b := newBatch(w)
	if err := b.add(ctx, items); err != nil {
		return err
	}
	if refused != nil {
		refused.queue(b.work)
		b.changed = true
		w.log.Warn("row set aside; the store cannot accept it", "detail", refused.String())
	}
	if !b.changed {
		w.advance(b.position, b.idle)
		return nil
	}
	b.seal()
	defer b.release()
	if err := w.commitBatch(ctx, b); err != nil {
		return err
	}
	w.forgetResolved(b)
	if refused != nil {
		w.setAside = append(w.setAside, refused.String())
	}
	w.consumed, w.idle, w.replyRequested = b.position, true, false
	return nil
}

// readSetAside returns the open incidents of rows that are set aside.
func readSetAside(ctx context.Context, store *pgx.Conn) ([]string, error) {
	rows, err := store.Query(ctx, sql.RowsSetAside.SQL)
	if err != nil {
		return nil, fmt.Errorf("read the rows that are set aside: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// resolveSetAside marks the incidents that a change resolves, because the store accepts the row or the row is gone.
func (b *batch) resolveSetAside(c *cdc.Change) {
	if len(b.writer.setAside) == 0 || c.Kind == cdc.Truncate {
		return
	}
	keys := []string{c.New.ID}
	if c.KeyChanged || c.OldID != "" {
		keys = append(keys, c.OldID)
	}
	for _, key := range keys {
		row := RejectedRow{Table: b.writer.mapping.TableOf(c.Table), Key: key}
		begins := row.subject() + setAsideWhole
		for _, detail := range b.writer.setAside {
			if strings.HasPrefix(detail, begins) {
				b.resolved = append(b.resolved, detail)
			}
		}
	}
}

// forgetResolved forgets the incidents that a committed batch has resolved.
func (w *writer) forgetResolved(b *batch) {
	if len(b.resolved) > 0 {
		w.setAside = slices.DeleteFunc(w.setAside, func(detail string) bool { return slices.Contains(b.resolved, detail) })
	}
}

// RejectedRow is a row that the store rejected or, with an original, an assessment that was stored although the
// original's webhooks could not be copied to it.
type RejectedRow struct {
	Table    cdc.Name
	Key      string
	LSN      pglogrepl.LSN // of the commit, or of the snapshot that contains the row
	original string
	Cause    error
}

// args returns the arguments of the query that records the row as an incident.
func (r *RejectedRow) args() []any {
	return sql.NoteSetAside.Bind(sql.Args{"row": r.subject(), "detail": r.String()})
}

func (r *RejectedRow) queue(work *pgx.Batch) { work.Queue(sql.NoteSetAside.SQL, r.args()...) }

// Record records the row in the store's current transaction.
func (r *RejectedRow) Record(ctx context.Context, store *pgx.Conn) error {
	if _, err := store.Exec(ctx, sql.NoteSetAside.SQL, r.args()...); err != nil {
		return fmt.Errorf("record a row that the store rejected: %w", err)
	}
	return nil
}

// KeyOf returns the first column of a row in COPY's text format.
func KeyOf(row []byte) string {
	key, _, _ := bytes.Cut(row, []byte{'\t'})
	return catalog.CopyField(key).Value
}

// String identifies the row by key and position, and says why it was rejected and what to do. It reveals no other
// value of the row than the assessment that it was copied from.
func (r *RejectedRow) String() string {
	reason, remedy := r.reason()
	if r.original != "" {
		// walhook.copy_webhooks resolves the incident of the assessments that it is called with. Nothing else does:
		// webhooks are copied when an assessment is new, and never again.
		return fmt.Sprintf("%swas stored, but the webhooks of its original could not be copied to it, as of %s: the store refuses "+
			"them (%s); everything else continues; remove the cause, then SELECT walhook.copy_webhooks(%s, %s); "+
			"this also resolves the incident",
			r.subject(), r.LSN, reason, quoteLiteral(r.original), quoteLiteral(r.Key))
	}
	return fmt.Sprintf("%s%s, as of %s: the store refuses it (%s); everything else continues; %s; "+
		"then the row's next change or `walhook reconcile` stores it", r.subject(), setAsideWhole, r.LSN, reason, remedy)
}

// quoteLiteral quotes as PostgreSQL's quote_literal does.
func quoteLiteral(s string) string {
	s = strings.ReplaceAll(s, "'", "''")
	if strings.Contains(s, `\`) {
		return "E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}

// setAsideWhole says that nothing of a row was stored.
const setAsideWhole = "was set aside"

// subject begins the incident's detail. No other row's detail begins with it.
func (r *RejectedRow) subject() string {
	return fmt.Sprintf("the row of %s with key %s ", r.Table.Display(), displayKey(r.Key))
}

func (r *RejectedRow) reason() (reason, remedy string) {
	var refused *pgconn.PgError
	if !errors.As(r.Cause, &refused) {
		return r.Cause.Error(), "fix what the reason names"
	}
	switch reason = "SQLSTATE " + refused.Code; {
	case refused.Code == pgerrcode.CharacterNotInRepertoire:
		return refused.Message + ", " + reason,
			"write its key, assessment and organization in characters that the application's database can convert to UTF8"
	case refused.Code == pgerrcode.UntranslatableCharacter:
		return refused.Message + ", " + reason,
			"write its key, assessment and organization so that the store's encoding can hold them, " +
				"or move the store to a database in UTF8"
	case strings.HasPrefix(refused.Code, "54"):
		return refused.Message + ", " + reason, "shorten its key"
	case strings.HasPrefix(refused.Code, "23"):
		return refused.Message + ", " + reason, "drop the constraint, or change the row to satisfy it"
	}
	return reason, "change the row" // the message may repeat a value
}

// maxDisplayedKey is how many bytes of a key are shown.
const maxDisplayedKey = 64

// displayKey formats a key in ASCII, which every store can represent, and truncates a long one.
func displayKey(key string) string {
	if len(key) <= maxDisplayedKey {
		return strconv.QuoteToASCII(key)
	}
	return fmt.Sprintf("%s... (%d bytes, hash %s)", strconv.QuoteToASCII(key[:maxDisplayedKey]), len(key), cdc.HashValue(key))
}
