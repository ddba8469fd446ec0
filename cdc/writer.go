package cdc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/sql"
)

const (
	// lazyBytes and lazyTime decide when progress that changed nothing in the store is written there: often enough that
	// the slot holds little WAL, seldom enough that an idle database is not kept busy by our own writes.
	lazyBytes = 1 << 20
	lazyTime  = 10 * time.Second

	// unmovedTime is the same for changes of ours that moved nothing.
	unmovedTime = time.Second

	// idleTrickle is the least progress that is worth writing when only idleTime has passed. A write of the position makes
	// WAL itself, some hundred bytes, so anything less would feed itself.
	idleTrickle = 16 << 10
	idleTime    = 20 * time.Second

	// storePing is how often an idle store connection is tried, so that a dead one is found before it is needed.
	storePing = 3 * time.Second
)

// Queue is how events become deliveries inside the writer's transaction. Add queues its statements on the batch, for a
// part of the events at a time; Committed or Discarded tells what became of all that was added since the last such call.
type Queue struct {
	Add       func(batch *pgx.Batch, events []Event)
	Committed func()
	Discarded func()
}

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
	queue   Queue
	mapping Mapping
	status  *Status

	committing chan error // the commit under way; nil: none is
	oldest     time.Time  // commit of the first transaction in it
	lag        time.Time  // as the status was last told
	stored     Position   // as the store has it
	turn       int64      // of the stored position: another after each write
	consumed   Position   // as far as this process has come; ahead of stored by the commit under way and by what changed nothing
	idle       bool       // what lies between the two is no transaction of ours
	hurry      bool
	wrote      time.Time

	states *stateCache
}

func (w *writer) run(ctx context.Context) error {
	w.wrote = time.Now()
	pinged := time.Now()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	next := newBatch(w)
	var items []item
	var woken series
	for {
		filled := w.inbox.filled
		if next.items >= batchItems {
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
			if err := next.add(context.WithoutCancel(ctx), items); err != nil {
				_ = w.await() // nobody may use the connection before
				return err
			}
			clear(items) // release the strings
		case <-look.C:
		}
		if w.committing == nil && next.items > 0 {
			w.begin(context.WithoutCancel(ctx), next)
			next = newBatch(w)
		}
		w.tellLag(next)
		if w.committing != nil {
			continue
		}
		if err := w.persistLazily(ctx); err != nil {
			return err
		}
		if now := time.Now(); now.Sub(pinged) > storePing {
			pinged = now
			if err := w.pingStore(ctx); err != nil {
				return err
			}
		}
	}
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
	w.committing = done
	go func() {
		err := w.commit(ctx, b.work, b.to)
		if err != nil {
			w.queue.Discarded()
		} else {
			w.status.queued(b.events)
			w.queue.Committed()
		}
		done <- err
	}()
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
	if err != nil {
		w.consumed = w.stored
	}
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
	ahead, since := uint64(w.consumed.LSN-w.stored.LSN), time.Since(w.wrote)
	worth := w.hurry && since > time.Second ||
		ahead >= lazyBytes && since >= lazyTime ||
		ahead >= 16*lazyBytes ||
		!w.idle && since >= unmovedTime ||
		ahead >= idleTrickle && since >= idleTime
	if !worth {
		return nil
	}
	return w.flush(ctx)
}

// flush writes the position at once, for a clean stop.
func (w *writer) flush(ctx context.Context) error {
	if w.consumed == w.stored {
		return nil
	}
	if err := w.commit(ctx, &pgx.Batch{}, w.consumed); err != nil {
		return err
	}
	w.idle, w.hurry = true, false
	return nil
}

// commit sends the batch and the position as one implicit transaction, in one round trip.
func (w *writer) commit(ctx context.Context, work *pgx.Batch, to Position) error {
	batch := &pgx.Batch{}
	batch.Queue(sql.AdvancePosition.SQL, sql.AdvancePosition.Bind(sql.Args{
		"from_turn": w.turn, "to_lsn": to.LSN.String(), "to_partial_lsn": nullable(to.Partial), "to_partial_changes": to.PartialChanges,
	})...)
	batch.QueuedQueries = append(batch.QueuedQueries, work.QueuedQueries...)
	if err := w.store.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("write state, deliveries and position %s to the store: %w", to, err)
	}
	w.stored = to
	w.turn++
	w.wrote = time.Now()
	w.reader.durable.Store(uint64(to.LSN))
	w.status.stored(to)
	return nil
}

func (w *writer) pingStore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := w.store.Ping(ctx); err != nil {
		return fmt.Errorf("reach the store: %w", err)
	}
	return nil
}

// progress notes that the stream has been consumed up to a position and that nothing in between had to be stored.
func (w *writer) progress(to Position, idle bool) {
	w.idle = w.idle && idle
	w.consumed = to
}
