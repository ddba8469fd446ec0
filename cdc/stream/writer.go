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
	// lazyWriteBytes and lazyWriteInterval decide when progress that changed nothing in the store is written there: often enough that
	// the slot holds little WAL, seldom enough that an idle server is not kept busy. Writing a position makes WAL itself where
	// the store is on the same server, so that there it never ends, as heartbeats do not.
	lazyWriteBytes    = 16 << 20
	lazyWriteInterval = 5 * time.Second

	// unchangedWriteInterval is the same for changes of ours that moved nothing.
	unchangedWriteInterval = time.Second

	// storeCheckInterval is how often the store is asked how far its commits are on disk, and whether somebody waits for the slot. A dead
	// connection is thereby found before it is needed.
	storeCheckInterval = time.Second
)

var (
	errEndReached = errors.New("everything before the given point has been consumed")
	errYielded    = errors.New("somebody else waits for the slot")
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

	next           *batch       // that is being made
	commitDone     chan error   // the commit under way; nil: none is
	inFlight       *batch       // that is being committed
	inFlightSince  time.Time    // commit of the first transaction in it
	reportedLag    time.Time    // as the status was last told
	stored         cdc.Position // as the store has it
	fence          int64        // of the stored position: another after each write
	consumed       cdc.Position // as far as this process has come; ahead of stored by the commit under way and by what changed nothing
	idle           bool         // what lies between the two is no transaction of ours
	replyRequested bool
	endReached     bool // the point where the stream is to end
	lastWrite      time.Time
	lastCheck      time.Time // into the store
	ledger         ledger

	states      *stateCache
	responses   responseSet // of the batch that is being made
	spareEvents []cdc.Event // memory for events

	key         cdc.ColumnType // of the respondent's key, as the states have it; zero: not known
	setAside    []string       // open incidents of rows that the store did not take
	isolateLeft int            // items that are stored one slice at a time, so that one which the store refuses can be found
	log         *slog.Logger
}

// newWriter returns the writer of a stream that continues where its reader does, in a turn that was taken.
func newWriter(cfg Config, store *pgx.Conn, r *reader, turn int64) *writer {
	now := time.Now()
	w := &writer{
		store: store, inbox: r.inbox, reader: r, queue: cfg.Queue, mapping: cfg.Mapping, status: cfg.Status, tracer: cfg.Tracer,
		stored: r.from, fence: turn, consumed: r.from, idle: true, lastWrite: now, lastCheck: now, states: newStateCache(), log: cfg.Log,
		storeCtx: context.Background(),
	}
	w.next = newBatch(w)
	return w
}

func (w *writer) run(ctx context.Context) error {
	look := time.NewTicker(storeCheckInterval)
	defer look.Stop()
	var items []item
	var woken wakeups
	for {
		filled := w.inbox.added
		if w.next.items >= batchItems {
			filled = nil // the inbox fills up, and the reader waits
		}
		select {
		case <-ctx.Done():
			// A stop waits for the commit under way: its outcome is worth knowing.
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
				_ = w.awaitCommit() // nobody may use the connection before
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

// addItems takes items into the batch that is being made, or stores them with care at once.
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

// addSameKeyType takes items whose keys are of the type that the states have.
func (w *writer) addSameKeyType(ctx context.Context, items []item) error {
	if w.isolateLeft == 0 {
		return w.next.add(ctx, items)
	}
	w.isolateLeft = max(w.isolateLeft-len(items), 0)
	err := w.isolate(ctx, items)
	w.next = newBatch(w)
	return err
}

// proceed begins to commit what was gathered, unless a commit is under way. Where nothing is left to commit it stores progress that is
// worth it, and returns errEndReached once everything before the end point has been stored.
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

// startCommit commits a batch in the background, or notes how far it came where nothing came of it.
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

// commitBatch commits a batch and tells what became of it.
func (w *writer) commitBatch(ctx context.Context, b *batch) error {
	if err := w.commit(ctx, b.work, b.position); err != nil {
		w.queue.Discarded()
		return err
	}
	w.status.recordEvents(b.events)
	w.queue.Committed(ctx)
	return nil
}

// awaitCommit waits for the commit under way.
func (w *writer) awaitCommit() error {
	if w.commitDone == nil {
		return nil
	}
	return w.finishCommit(<-w.commitDone)
}

// finishCommit takes the outcome of the commit that was under way. Where it failed, what it was to store has not been consumed.
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

// reportLag lets the status know since when something waits for the store.
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

// persistLazily writes a position that is ahead of the stored one only because nothing in between mattered.
func (w *writer) persistLazily(ctx context.Context) error {
	if w.consumed == w.stored {
		w.replyRequested = false
		return nil
	}
	if !w.shouldWritePosition() {
		return nil
	}
	return w.flush(ctx) // it is for the acknowledgement, which is not to wait
}

// shouldWritePosition reports whether progress that changed nothing in the store is to be written there now.
func (w *writer) shouldWritePosition() bool {
	ahead, since := uint64(w.consumed.LSN-w.stored.LSN), time.Since(w.lastWrite)
	return w.replyRequested && since > time.Second ||
		ahead >= lazyWriteBytes ||
		since >= lazyWriteInterval ||
		!w.idle && since >= unchangedWriteInterval
}

// flush writes the position and waits until everything is on the store's disk, so that all of it is acknowledged.
func (w *writer) flush(ctx context.Context) error {
	if w.consumed == w.stored && w.ledger.isEmpty() {
		return nil
	}
	work := &pgx.Batch{}
	work.Queue("select pg_catalog.set_config('synchronous_commit', 'on', true)")
	if err := w.commit(ctx, work, w.consumed); err != nil {
		return err
	}
	w.ledger.clear()
	w.acknowledge(w.stored.LSN)
	w.idle, w.replyRequested = true, false
	return nil
}

// commit sends the batch and the position as one implicit transaction, in one round trip. It does not wait for the store's disk.
func (w *writer) commit(ctx context.Context, work *pgx.Batch, to cdc.Position) error {
	batch := &pgx.Batch{}
	var inserted, flushed uint64 // of what was committed before
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

// acknowledge lets the reader acknowledge everything up to a position.
func (w *writer) acknowledge(to pglogrepl.LSN) {
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

// checkStore asks the store how far its commits are on disk, and returns errYielded when somebody waits for the lock of the one who
// reads the slot. What has been consumed is then stored.
func (w *writer) checkStore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, catalog.DialTimeout)
	defer cancel()
	var inserted, flushed uint64
	if err := w.store.QueryRow(ctx, sql.StoreWAL.SQL).Scan(&inserted, &flushed); err != nil {
		return fmt.Errorf("look how far the store's commits are on disk: %w", err)
	}
	w.acknowledge(w.ledger.observe(inserted, flushed))
	if w.reader.endLSN != 0 {
		return nil // a comparison has the slot, and comes to its end
	}
	waiting, err := lockSessions(ctx, w.store, catalog.ReaderLock, false)
	if err != nil || len(waiting) == 0 {
		return err
	}
	return cmp.Or(w.flush(ctx), errYielded)
}

// advance notes that the stream has been consumed up to a position and that nothing in between had to be stored.
func (w *writer) advance(to cdc.Position, idle bool) {
	w.idle = w.idle && idle
	w.consumed = to
}

// acquireFence returns the position, after writing it as it is under a turn of its own. A writer before this one that still lives
// thereby fails, and all that was committed before is on the store's disk, so that it may be acknowledged.
func acquireFence(ctx context.Context, store *pgx.Conn) (cdc.Position, int64, error) {
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
		"from_turn": turn, "to_lsn": to.LSN.String(), "to_partial_lsn": cdc.NullableLSN(to.Partial), "to_partial_changes": to.PartialChanges,
	})
}
