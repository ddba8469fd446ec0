package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/trace"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/sql"
)

const (
	// lazyBytes and lazyTime decide when progress that changed nothing in the store is written there: often enough that
	// the slot holds little WAL, seldom enough that an idle server is not kept busy. Writing a position makes WAL itself where
	// the store is on the same server, so that there it never ends, as heartbeats do not.
	lazyBytes = 16 << 20
	lazyTime  = 5 * time.Second

	// unmovedTime is the same for changes of ours that moved nothing.
	unmovedTime = time.Second

	// storeLook is how often the store is asked how far its commits are on disk, and whether somebody waits for the slot. A dead
	// connection is thereby found before it is needed.
	storeLook = time.Second
)

var (
	errReached = errors.New("everything before the given point has been consumed")
	errYielded = errors.New("somebody else waits for the slot")
)

// batchItems is how many items are gathered for one store transaction at most, but for the rest of an inbox.
const batchItems = 4096

// writer consumes the stream: it classifies row changes and writes state, deliveries and position in one transaction. While
// one batch is being committed the next is classified.
//
// One goroutine runs it, and it alone uses the store connection, but while committing is not nil: then the commit has it.
type writer struct {
	store   *pgx.Conn
	inbox   *inbox
	reader  *reader
	queue   cdc.Queue
	mapping cdc.Mapping
	status  *Status
	tracer  trace.Tracer // nil: no traces

	storeCtx context.Context // of the transactions: a clean stop waits for them, up to a bound

	next       *batch       // that is being made
	committing chan error   // the commit under way; nil: none is
	sealed     *batch       // that is being committed
	oldest     time.Time    // commit of the first transaction in it
	lag        time.Time    // as the status was last told
	stored     cdc.Position // as the store has it
	turn       int64        // of the stored position: another after each write
	consumed   cdc.Position // as far as this process has come; ahead of stored by the commit under way and by what changed nothing
	idle       bool         // what lies between the two is no transaction of ours
	hurry      bool
	reached    bool // the point where the stream is to end
	wrote      time.Time
	looked     time.Time // into the store
	ledger     ledger

	states *stateCache
	known  known       // of the batch that is being made
	spare  []cdc.Event // memory for events

	key     cdc.ColumnType // of the respondent's key, as the states have it; zero: not known
	aside   []string       // open incidents of rows that the store did not take
	careful int            // items that are stored one slice at a time, so that one which the store refuses can be found
	log     *slog.Logger
}

// newWriter returns the writer of a stream that continues where its reader does, in a turn that was taken.
func newWriter(cfg Config, store *pgx.Conn, r *reader, turn int64) *writer {
	now := time.Now()
	w := &writer{
		store: store, inbox: r.inbox, reader: r, queue: cfg.Queue, mapping: cfg.Mapping, status: cfg.Status, tracer: cfg.Tracer,
		stored: r.from, turn: turn, consumed: r.from, idle: true, wrote: now, looked: now, states: newStateCache(), log: cfg.Log,
		storeCtx: context.Background(),
	}
	w.next = newBatch(w)
	return w
}

func (w *writer) run(ctx context.Context) error {
	look := time.NewTicker(storeLook)
	defer look.Stop()
	var items []item
	var woken series
	for {
		filled := w.inbox.filled
		if w.next.items >= batchItems {
			filled = nil // the inbox fills up, and the reader waits
		}
		select {
		case <-ctx.Done():
			// A stop waits for the commit under way: its outcome is worth knowing.
			if err := w.await(); err != nil {
				return err
			}
			return ctx.Err()
		case err := <-w.committing:
			if err := w.ended(err); err != nil {
				return err
			}
		case <-filled:
			woken.rest()
			items = w.inbox.take(items)
			woken.wake(len(items) < batchItems/16)
			if err := w.gather(w.storeCtx, items); err != nil {
				_ = w.await() // nobody may use the connection before
				return err
			}
			clear(items) // release the strings
		case <-look.C:
		}
		if err := w.proceed(w.storeCtx); err != nil { // a stop cuts nothing off that was asked of the store
			return err
		}
	}
}

// gather takes items into the batch that is being made, or stores them with care at once.
func (w *writer) gather(ctx context.Context, items []item) error {
	for {
		alike := slices.IndexFunc(items, w.isRekeyed)
		if alike < 0 {
			return w.gatherAlike(ctx, items)
		}
		if alike > 0 {
			if err := w.gatherAlike(ctx, items[:alike]); err != nil {
				return err
			}
		}
		if err := w.rekey(ctx, items[alike].key); err != nil {
			return err
		}
		items = items[alike:]
	}
}

// gatherAlike takes items whose keys are of the type that the states have.
func (w *writer) gatherAlike(ctx context.Context, items []item) error {
	if w.careful == 0 {
		return w.next.add(ctx, items)
	}
	w.careful = max(w.careful-len(items), 0)
	err := w.isolate(ctx, items)
	w.next = newBatch(w)
	return err
}

// proceed begins to commit what was gathered, unless a commit is under way. Where nothing is left to commit it stores progress that is
// worth it, and returns errReached once everything before the end point has been stored.
func (w *writer) proceed(ctx context.Context) error {
	if w.committing == nil && time.Since(w.looked) > storeLook {
		w.looked = time.Now()
		if err := w.look(ctx); err != nil {
			return err
		}
	}
	if w.committing == nil {
		w.begin(w.storeCtx, w.next)
		w.next = newBatch(w)
	}
	w.tellLag(w.next)
	switch {
	case w.committing != nil:
		return nil
	case w.reached:
		return cmp.Or(w.settle(ctx), errReached)
	}
	return w.persistLazily(ctx)
}

// begin commits a batch in the background, or notes how far it came where nothing came of it.
func (w *writer) begin(ctx context.Context, b *batch) {
	if !b.changed {
		w.progress(b.to, b.idle)
		return
	}
	b.seal()
	w.consumed, w.idle, w.hurry, w.oldest = b.to, true, false, b.since
	done := make(chan error, 1)
	w.committing, w.sealed = done, b
	go func() { done <- w.traced(ctx, b) }()
}

// conclude commits a batch and tells what became of it.
func (w *writer) conclude(ctx context.Context, b *batch) error {
	if err := w.commit(ctx, b.work, b.to); err != nil {
		w.queue.Discarded()
		return err
	}
	w.status.queued(b.events)
	w.queue.Committed(ctx)
	return nil
}

// await waits for the commit under way.
func (w *writer) await() error {
	if w.committing == nil {
		return nil
	}
	return w.ended(<-w.committing)
}

// ended takes the outcome of the commit that was under way. Where it failed, what it was to store has not been consumed.
func (w *writer) ended(err error) error {
	w.committing = nil
	w.sealed.release()
	if err != nil {
		w.consumed = w.stored
	} else {
		w.taken(w.sealed)
	}
	w.sealed = nil
	return err
}

// tellLag lets the status know since when something waits for the store.
func (w *writer) tellLag(next *batch) {
	since := next.since
	if w.committing != nil && !w.oldest.IsZero() {
		since = w.oldest
	}
	if since != w.lag {
		w.lag = since
		w.status.lags(since)
	}
}

// persistLazily writes a position that is ahead of the stored one only because nothing in between mattered.
func (w *writer) persistLazily(ctx context.Context) error {
	if w.consumed == w.stored {
		w.hurry = false
		return nil
	}
	if !w.worthWriting() {
		return nil
	}
	return w.settle(ctx) // it is for the acknowledgement, which is not to wait
}

// worthWriting reports whether progress that changed nothing in the store is to be written there now.
func (w *writer) worthWriting() bool {
	ahead, since := uint64(w.consumed.LSN-w.stored.LSN), time.Since(w.wrote)
	return w.hurry && since > time.Second ||
		ahead >= lazyBytes ||
		since >= lazyTime ||
		!w.idle && since >= unmovedTime
}

// settle writes the position and waits until everything is on the store's disk, so that all of it is acknowledged.
func (w *writer) settle(ctx context.Context) error {
	if w.consumed == w.stored && w.ledger.settled() {
		return nil
	}
	work := &pgx.Batch{}
	work.Queue("select pg_catalog.set_config('synchronous_commit', 'on', true)")
	if err := w.commit(ctx, work, w.consumed); err != nil {
		return err
	}
	w.ledger.synced()
	w.durable(w.stored.LSN)
	w.idle, w.hurry = true, false
	return nil
}

// commit sends the batch and the position as one implicit transaction, in one round trip. It does not wait for the store's disk.
func (w *writer) commit(ctx context.Context, work *pgx.Batch, to cdc.Position) error {
	batch := &pgx.Batch{}
	var inserted, flushed uint64 // of what was committed before
	batch.Queue(sql.StoreWAL.SQL).QueryRow(func(row pgx.Row) error { return row.Scan(&inserted, &flushed) })
	batch.Queue(sql.AdvancePosition.SQL, advanceArgs(w.turn, to)...)
	batch.QueuedQueries = append(batch.QueuedQueries, work.QueuedQueries...)
	answered := w.status.writes()
	err := w.store.SendBatch(ctx, batch).Close()
	answered()
	if err != nil {
		return fmt.Errorf("write state, deliveries and position %s to the store: %w", to, err)
	}
	w.durable(w.ledger.committed(to.LSN, inserted, flushed))
	w.stored = to
	w.turn++
	w.wrote = time.Now()
	w.status.stored(to)
	return nil
}

// durable lets the reader acknowledge everything up to a position.
func (w *writer) durable(to pglogrepl.LSN) {
	if to != 0 {
		w.reader.durable.Store(uint64(to))
	}
}

// relaxCommits lets commits return before they are on the store's disk, unless they wait for a standby: after a failover to it
// the store would be behind what was acknowledged.
func relaxCommits(ctx context.Context, store *pgx.Conn) error {
	_, err := store.Exec(ctx, `select pg_catalog.set_config('synchronous_commit', 'off', false)
		where pg_catalog.current_setting('synchronous_standby_names') = ''`)
	if err != nil {
		return fmt.Errorf("set up the store's session: %w", err)
	}
	return nil
}

// look asks the store how far its commits are on disk, and returns errYielded when somebody waits for the lock of the one who
// reads the slot. What has been consumed is then stored.
func (w *writer) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, catalog.DialTimeout)
	defer cancel()
	var inserted, flushed uint64
	if err := w.store.QueryRow(ctx, sql.StoreWAL.SQL).Scan(&inserted, &flushed); err != nil {
		return fmt.Errorf("look how far the store's commits are on disk: %w", err)
	}
	w.durable(w.ledger.told(inserted, flushed))
	if w.reader.until != 0 {
		return nil // a comparison has the slot, and comes to its end
	}
	waiting, err := lockSessions(ctx, w.store, catalog.ReaderLock, false)
	if err != nil || len(waiting) == 0 {
		return err
	}
	return cmp.Or(w.settle(ctx), errYielded)
}

// lockSessions tells which server processes hold an advisory lock of the store, or, with granted false, wait for it.
func lockSessions(ctx context.Context, store *pgx.Conn, key int64, granted bool) (pids []uint32, err error) {
	err = store.QueryRow(ctx, sql.LockSessions.SQL, sql.LockSessions.Bind(sql.Args{"key": key, "granted": granted})...).Scan(&pids)
	if err != nil {
		return nil, fmt.Errorf("look whose the locks of the store are: %w", err)
	}
	return pids, nil
}

// progress notes that the stream has been consumed up to a position and that nothing in between had to be stored.
func (w *writer) progress(to cdc.Position, idle bool) {
	w.idle = w.idle && idle
	w.consumed = to
}

// takeTurn returns the position, after writing it as it is under a turn of its own. A writer before this one that still lives
// thereby fails, and all that was committed before is on the store's disk, so that it may be acknowledged.
func takeTurn(ctx context.Context, store *pgx.Conn) (cdc.Position, int64, error) {
	position, turn, err := catalog.ReadPosition(ctx, store)
	if err != nil {
		return position, 0, err
	}
	batch := &pgx.Batch{}
	batch.Queue("select pg_catalog.set_config('synchronous_commit', 'on', true)")
	batch.Queue(sql.AdvancePosition.SQL, advanceArgs(turn, position)...)
	batch.Queue(sql.SkipLostIds.SQL)
	if err := store.SendBatch(ctx, batch).Close(); err != nil {
		return position, 0, fmt.Errorf("take the turn to write the position: %w", err)
	}
	return position, turn + 1, relaxCommits(ctx, store)
}

func advanceArgs(turn int64, to cdc.Position) []any {
	return sql.AdvancePosition.Bind(sql.Args{
		"from_turn": turn, "to_lsn": to.LSN.String(), "to_partial_lsn": cdc.Nullable(to.Partial), "to_partial_changes": to.PartialChanges,
	})
}
