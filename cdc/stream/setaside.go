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

// carefulItems is how many items are stored carefully after one that the store refused: more than a failed batch can hold, and enough
// that many such rows in a load do not cost a new connection each.
const carefulItems = 1 << 16

// refusedBatchError tells that a batch holds what the store cannot take: the next session looks for it, and need not wait.
type refusedBatchError struct{ error }

func (e *refusedBatchError) Unwrap() error { return e.error }

// isolate stores items in halves until the one that the store refuses is alone, which is set aside. The rest is stored as ever.
func (w *writer) isolate(ctx context.Context, items []item) error {
	err := w.storeNow(ctx, items, nil)
	if !cdc.Untakable(err) {
		return err
	}
	w.careful = carefulItems
	w.states.purge() // the states of the failed batch are in it
	w.queue.Began()  // what was queued before the failure may not be in memory
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
	if cdc.NotText(err) {
		// A key that the store cannot hold has no state.
		switch {
		case it.change.Kind == cdc.Delete: // nothing of it is left to take
			it.kind = itemSetAside
			return w.storeNow(ctx, []item{it}, nil)
		case it.change.Moved:
			it.change.Moved = false
			if err = w.storeNow(ctx, []item{it}, nil); !cdc.Untakable(err) {
				return err
			}
		}
	}
	refused := RefusedRow{Table: w.mapping.TableOf(it.change.Table), Key: it.change.New.ID, LSN: it.tx.CommitLSN, Cause: err}
	if copied := it.change.New.CopiedFrom; it.change.Table == cdc.Assessment && !copied.Null && !copied.Unchanged {
		refused.only = onlyCopies
		it.change.New.CopiedFrom = cdc.Text{Null: true}
		if err := w.storeNow(ctx, []item{it}, &refused); !cdc.Untakable(err) {
			return err
		}
		refused.only = ""
	}
	it.kind = itemSetAside
	return w.storeNow(ctx, []item{it}, &refused)
}

// storeNow stores items, and what was refused of them, in one transaction that it waits for.
func (w *writer) storeNow(ctx context.Context, items []item, refused *RefusedRow) error {
	b := newBatch(w)
	if err := b.add(ctx, items); err != nil {
		return err
	}
	if refused != nil {
		refused.note(b.work)
		b.changed = true
		w.log.Warn("set a row aside that the store cannot take", "detail", refused.String())
	}
	if !b.changed {
		w.progress(b.to, b.idle)
		return nil
	}
	b.seal()
	defer b.release()
	if err := w.conclude(ctx, b); err != nil {
		return err
	}
	w.taken(b)
	if refused != nil {
		w.aside = append(w.aside, refused.String())
	}
	w.consumed, w.idle, w.hurry = b.to, true, false
	return nil
}

// readAside returns the incidents of rows that are set aside.
func readAside(ctx context.Context, store *pgx.Conn) ([]string, error) {
	rows, err := store.Query(ctx, sql.RowsSetAside.SQL)
	if err != nil {
		return nil, fmt.Errorf("look for rows that are set aside: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// noteTaken notes the incidents that end with a change, since the store takes the row, or it is gone.
func (b *batch) noteTaken(c *cdc.Change) {
	if len(b.w.aside) == 0 || c.Kind == cdc.Truncate {
		return
	}
	keys := []string{c.New.ID}
	if c.Moved || c.OldID != "" {
		keys = append(keys, c.OldID)
	}
	for _, key := range keys {
		row := RefusedRow{Table: b.w.mapping.TableOf(c.Table), Key: key}
		begins := row.row() + asideWhole
		for _, detail := range b.w.aside {
			if strings.HasPrefix(detail, begins) {
				b.taken = append(b.taken, detail)
			}
		}
	}
}

// taken forgets the incidents that a batch, which is committed, has resolved.
func (w *writer) taken(b *batch) {
	if len(b.taken) > 0 {
		w.aside = slices.DeleteFunc(w.aside, func(detail string) bool { return slices.Contains(b.taken, detail) })
	}
}

// onlyCopies is what an assessment is taken without where a copy of a webhook is refused.
const onlyCopies = "the copies of its original's webhooks"

// RefusedRow is a row, or a part of it, that the store cannot take.
type RefusedRow struct {
	Table cdc.Name
	Key   string
	LSN   pglogrepl.LSN // of the commit, or of the snapshot that shows the row
	only  string        // what of it was refused; empty: all
	Cause error
}

// args are those of the query that records it as an incident.
func (r *RefusedRow) args() []any {
	return sql.NoteSetAside.Bind(sql.Args{"row": r.row(), "detail": r.String()})
}

func (r *RefusedRow) note(work *pgx.Batch) { work.Queue(sql.NoteSetAside.SQL, r.args()...) }

// Record is note for whoever has the store's session to itself.
func (r *RefusedRow) Record(ctx context.Context, store *pgx.Conn) error {
	if _, err := store.Exec(ctx, sql.NoteSetAside.SQL, r.args()...); err != nil {
		return fmt.Errorf("record a row that the store cannot take: %w", err)
	}
	return nil
}

// KeyOf returns the first column of a row in COPY's text format.
func KeyOf(row []byte) string {
	key, _, _ := bytes.Cut(row, []byte{'\t'})
	return catalog.CopyField(key).Value
}

// String names the row by key and position, says why, and what to do. It holds nothing else of the row.
func (r *RefusedRow) String() string {
	what := asideWhole
	if r.only != "" {
		what = "was taken without " + r.only
	}
	reason, remedy := r.reason()
	return fmt.Sprintf("%s%s, as of %s: the store refuses it (%s); everything else goes on; %s; "+
		"the row's next change then makes up for it, or `walhook reconcile` does", r.row(), what, r.LSN, reason, remedy)
}

// asideWhole is what became of a row of which nothing was taken.
const asideWhole = "was set aside"

// row begins all that is said of the row, and nothing that is said of another.
func (r *RefusedRow) row() string {
	return fmt.Sprintf("the row of %s with key %s ", r.Table.Display(), showKey(r.Key))
}

func (r *RefusedRow) reason() (reason, remedy string) {
	var refused *pgconn.PgError
	if !errors.As(r.Cause, &refused) {
		return r.Cause.Error(), "mend what the reason names"
	}
	switch reason = "SQLSTATE " + refused.Code; {
	case refused.Code == pgerrcode.CharacterNotInRepertoire:
		return refused.Message + ", " + reason, "write its key, assessment and organization in characters that the application's database can convert to UTF8"
	case refused.Code == pgerrcode.UntranslatableCharacter:
		return refused.Message + ", " + reason, "write its key, assessment and organization so that the store's encoding can hold them, or move the store to a database in UTF8"
	case strings.HasPrefix(refused.Code, "54"):
		return refused.Message + ", " + reason, "shorten its key"
	case strings.HasPrefix(refused.Code, "23"):
		return refused.Message + ", " + reason, "drop the constraint, or change the row to satisfy it"
	}
	return reason, "change the row" // the message may repeat a value
}

// shownKey is how many bytes of a key people are shown.
const shownKey = 64

// showKey spells a key in ASCII, which every store can hold, and cuts a long one.
func showKey(key string) string {
	if len(key) <= shownKey {
		return strconv.QuoteToASCII(key)
	}
	return fmt.Sprintf("%s... (%d bytes, hash %s)", strconv.QuoteToASCII(key[:shownKey]), len(key), cdc.HashValue(key))
}
