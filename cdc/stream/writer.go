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
	// lazyWriteBytes and lazyWriteInterval decide when progress without changes is written: often enough that the slot
	// retains little WAL, seldom enough that an idle server stays idle. On the same server, writing a position generates
	// WAL itself, so these writes never cease, like heartbeats.
	lazyWriteBytes    = 16 << 20
	lazyWriteInterval = 5 * time.Second

	// unchangedWriteInterval is the interval for changes of mapped tables that changed no state.
	unchangedWriteInterval = time.Second

	// storeCheckInterval is how often the writer asks the store which commits are on disk and whether another session
	// waits for the reader lock. It also detects a dead connection before that is needed.
	storeCheckInterval = time.Second
)

var (
	errEndReached = errors.New("everything before the given point has been consumed")
	errYielded    = errors.New("another session waits for the slot")
)

// batchItems is the maximum number of items of a store transaction, not counting the rest of an inbox.
const batchItems = 4096

// writer consumes the stream: it classifies row changes and writes state, deliveries and position in one transaction.
// While a batch is being committed, it classifies the next one.
//
// It runs in one goroutine and alone uses the store connection, except while a commit is in flight (commitDone is not
// nil): then the connection belongs to that.
type writer struct {
	store    *pgx.Conn
	encoding string // of the store
	inbox    *inbox
	reader   *reader
	queue    cdc.Queue
	mapping  cdc.Mapping
	status   *Status
	tracer   trace.Tracer // nil: no traces

	storeCtx context.Context // for transactions: a clean stop waits for them, up to a bound

	next           *batch       // being filled
	commitDone     chan error   // receives the result of the commit in flight; nil: none is
	inFlight       *batch       // being committed
	inFlightSince  time.Time    // commit time of its first transaction
	reportedLag    time.Time    // last value passed to the status
	stored         cdc.Position // in the store
	fence          int64        // fencing token of the stored position; every write increments it
	consumed       cdc.Position // ahead of stored by the commit in flight and by changes without effect
	idle           bool         // no changes of mapped tables lie between stored and consumed
	replyRequested bool
	awaited        bool // commits on the source's server wait for what the reader acknowledges
	endReached     bool // everything before the end point has been consumed
	lastWrite      time.Time
	lastCheck      time.Time // of the store
	ledger         ledger

	states      *stateCache
	responses   responseSet // of the batch being filled
	spareEvents []cdc.Event // memory for reuse

	key         cdc.ColumnType // type of the recorded states' keys; zero: unknown
	setAside    []string       // open incidents of rows that the store rejected
	isolateLeft int            // number of items to store synchronously, to find a rejected row
	log         *slog.Logger
}

// newWriter returns the writer of a stream that continues where its reader does, with an acquired fencing token.
func newWriter(cfg Config, store *pgx.Conn, r *reader, fence int64) *writer {
	now := time.Now()
	w := &writer{
		store: store, inbox: r.inbox, reader: r, queue: cfg.Queue, mapping: cfg.Mapping, status: cfg.Status, tracer: cfg.Tracer,
		stored: r.from, fence: fence, consumed: r.from, idle: true, lastWrite: now, lastCheck: now, states: newStateCache(), log: cfg.Log,
		storeCtx: context.Background(),
	}
	if store != nil { // unit tests have none
		w.encoding = store.PgConn().ParameterStatus("server_encoding")
	}
	w.next = newBatch(w)
	return w
}

func (w *writer) run(ctx context.Context) error {
	check := time.NewTicker(storeCheckInterval)
	defer check.Stop()
	var items []item
	var woken wakeups
	for {
		filled := w.inbox.added
		if w.next.items >= batchItems {
			filled = nil // the inbox fills up and the reader waits
		}
		select {
		case <-ctx.Done():
			// Wait for the commit in flight, to learn its outcome.
			if err := w.awaitCommit(); err != nil {
				return err
			}
			return ctx.Err()
		case err := <-w.commitDone:
			if err := w.finishCommit(err); err != nil {
				return err
			}
		case <-filled:
			woken.pause()
			items = w.inbox.take(items)
			woken.record(len(items) < batchItems/16)
			if err := w.addItems(w.storeCtx, items); err != nil {
				_ = w.awaitCommit() // until then the connection is in use
				return err
			}
			clear(items) // free the strings
		case <-check.C:
		}
		if err := w.proceed(w.storeCtx); err != nil { // a stop does not cancel statements in flight
			return err
		}
	}
}

// addItems adds items to the next batch, or stores them synchronously while it looks for a rejected row.
func (w *writer) addItems(ctx context.Context, items []item) error {
	for {
		alike := slices.IndexFunc(items, w.keyTypeChanged)
		if alike < 0 {
			return w.addSameKeyType(ctx, items)
		}
		if alike > 0 {
			if err := w.addSameKeyType(ctx, items[:alike]); err != nil {
				return err
			}
		}
		if err := w.rekey(ctx, items[alike].keyType); err != nil {
			return err
		}
		items = items[alike:]
	}
}

// addSameKeyType adds items whose keys have the type of the recorded states.
func (w *writer) addSameKeyType(ctx context.Context, items []item) error {
	if w.isolateLeft == 0 {
		return w.next.add(ctx, items)
	}
	w.isolateLeft = max(w.isolateLeft-len(items), 0)
	err := w.isolate(ctx, items)
	w.next = newBatch(w)
	return err
}

// proceed starts to commit the next batch unless a commit is in flight. If there is nothing to commit, it writes the
// position when that is worth it, and returns errEndReached once everything before the end point is stored.
func (w *writer) proceed(ctx context.Context) error {
	if w.commitDone == nil && time.Since(w.lastCheck) > storeCheckInterval {
		w.lastCheck = time.Now()
		if err := w.checkStore(ctx); err != nil {
			return err
		}
	}
	if w.commitDone == nil {
		w.startCommit(w.storeCtx, w.next)
		w.next = newBatch(w)
	}
	w.reportLag(w.next)
	switch {
	case w.commitDone != nil:
		return nil
	case w.endReached:
		return cmp.Or(w.flush(ctx), errEndReached)
	}
	return w.persistLazily(ctx)
}

// startCommit commits a batch in the background, or only advances the position if the batch changed nothing.
func (w *writer) startCommit(ctx context.Context, b *batch) {
	if !b.changed {
		w.advance(b.position, b.idle)
		return
	}
	b.seal()
	w.consumed, w.idle, w.replyRequested, w.inFlightSince = b.position, true, false, b.firstCommit
	done := make(chan error, 1)
	w.commitDone, w.inFlight = done, b
	go func() { done <- w.commitTraced(ctx, b) }()
}

// commitBatch commits a batch and notifies queue and status.
func (w *writer) commitBatch(ctx context.Context, b *batch) error {
	if err := w.commit(ctx, b.work, b.position); err != nil {
		w.queue.Discarded()
		return err
	}
	w.status.recordEvents(b.events)
	w.queue.Committed(ctx)
	return nil
}

// awaitCommit waits for the commit in flight, if any.
func (w *writer) awaitCommit() error {
	if w.commitDone == nil {
		return nil
	}
	return w.finishCommit(<-w.commitDone)
}

// finishCommit processes the result of the commit in flight. If it failed, its changes have not been consumed.
func (w *writer) finishCommit(err error) error {
	w.commitDone = nil
	w.inFlight.release()
	if err != nil {
		w.consumed = w.stored
	} else {
		w.forgetResolved(w.inFlight)
	}
	w.inFlight = nil
	return err
}

// reportLag reports to the status since when transactions have been waiting for the store.
func (w *writer) reportLag(next *batch) {
	since := next.firstCommit
	if w.commitDone != nil && !w.inFlightSince.IsZero() {
		since = w.inFlightSince
	}
	if since != w.reportedLag {
		w.reportedLag = since
		w.status.recordLag(since)
	}
}

// persistLazily writes a position from time to time that is ahead of the stored one only because of changes without effect.
func (w *writer) persistLazily(ctx context.Context) error {
	if w.consumed == w.stored {
		w.replyRequested = false
		return nil
	}
	if !w.shouldWritePosition() {
		return nil
	}
	return w.flush(ctx) // durable, so that it can be acknowledged at once
}

// shouldWritePosition reports whether to write a position now although nothing else changed.
func (w *writer) shouldWritePosition() bool {
	ahead, since := uint64(w.consumed.LSN-w.stored.LSN), time.Since(w.lastWrite)
	return (w.replyRequested || w.awaited) && since > time.Second ||
		ahead >= lazyWriteBytes ||
		since >= lazyWriteInterval ||
		!w.idle && since >= unchangedWriteInterval
}

// flush writes the position and waits until everything is on the store's disk, so that all of it is acknowledged.
func (w *writer) flush(ctx context.Context) error {
	if w.consumed == w.stored && w.ledger.isEmpty() {
		return nil
	}
	if err := w.send(ctx, &pgx.Batch{}, w.consumed, true); err != nil {
		return err
	}
	w.ledger.clear()
	w.acknowledge(w.stored.LSN)
	w.idle, w.replyRequested = true, false
	return nil
}

// commit sends the statements and the position as one implicit transaction, in one round trip. It does not wait for
// the store's disk, but may wait for standbys.
func (w *writer) commit(ctx context.Context, work *pgx.Batch, to cdc.Position) error {
	return w.send(ctx, work, to, false)
}

func (w *writer) send(ctx context.Context, work *pgx.Batch, to cdc.Position, durable bool) error {
	batch := &pgx.Batch{}
	relaxCommit(batch, durable).QueryRow(func(row pgx.Row) error { return row.Scan(nil, &w.awaited) })
	var inserted, flushed uint64 // of earlier commits
	batch.Queue(sql.StoreWAL.SQL).QueryRow(func(row pgx.Row) error { return row.Scan(&inserted, &flushed) })
	batch.Queue(sql.AdvancePosition.SQL, advanceArgs(w.fence, to)...)
	batch.QueuedQueries = append(batch.QueuedQueries, work.QueuedQueries...)
	answered := w.status.startWrite()
	err := w.store.SendBatch(ctx, batch).Close()
	answered()
	if err != nil {
		return fmt.Errorf("write state, deliveries and position %s to the store: %w", to, err)
	}
	w.acknowledge(w.ledger.committed(to.LSN, inserted, flushed))
	w.stored = to
	w.fence++
	w.lastWrite = time.Now()
	w.status.recordPosition(to)
	return nil
}

func relaxCommit(batch *pgx.Batch, durable bool) *pgx.QueuedQuery {
	return batch.Queue(sql.RelaxCommit.SQL, sql.RelaxCommit.Bind(sql.Args{"durable": durable})...)
}

// acknowledge lets the reader acknowledge everything up to a position.
func (w *writer) acknowledge(to pglogrepl.LSN) {
	if to != 0 {
		w.reader.durable.Store(uint64(to))
	}
}

// checkStore asks the store which commits are on disk. If another session waits for the reader lock, it flushes and
// returns errYielded.
func (w *writer) checkStore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, catalog.DialTimeout)
	defer cancel()
	var inserted, flushed uint64
	if err := w.store.QueryRow(ctx, sql.StoreWAL.SQL).Scan(&inserted, &flushed); err != nil {
		return fmt.Errorf("check which of the store's commits are on disk: %w", err)
	}
	w.acknowledge(w.ledger.observe(inserted, flushed))
	if w.reader.endLSN != 0 {
		return nil // this is a reconciliation, which ends soon
	}
	waiting, err := catalog.LockSessions(ctx, w.store, catalog.ReaderLock, false)
	if err != nil || len(waiting) == 0 {
		return err
	}
	return cmp.Or(w.flush(ctx), errYielded)
}

// advance records that the stream was consumed up to a position without anything to store.
func (w *writer) advance(to cdc.Position, idle bool) {
	w.idle = w.idle && idle
	w.consumed = to
}

// acquireFence returns the stored position and a new fencing token, by rewriting the position. An earlier writer that
// is still alive then fails, and all earlier commits are on the store's disk, so that they may be acknowledged.
func acquireFence(ctx context.Context, store *pgx.Conn) (position cdc.Position, fence int64, err error) {
	position, fence, err = catalog.ReadPosition(ctx, store)
	if err != nil {
		return position, 0, err
	}
	batch := &pgx.Batch{}
	relaxCommit(batch, true)
	batch.Queue(sql.AdvancePosition.SQL, advanceArgs(fence, position)...)
	batch.Queue(sql.SkipLostIds.SQL)
	if err := store.SendBatch(ctx, batch).Close(); err != nil {
		return position, 0, fmt.Errorf("acquire the fencing token: %w", err)
	}
	return position, fence + 1, nil
}

func advanceArgs(fence int64, to cdc.Position) []any {
	return sql.AdvancePosition.Bind(sql.Args{
		"from_turn": fence, "to_lsn": to.LSN.String(),
		"to_partial_lsn": cdc.NullableLSN(to.Partial), "to_partial_changes": to.PartialChanges,
	})
}
