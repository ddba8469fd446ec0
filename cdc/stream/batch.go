package stream

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/sql"
)

// batch folds a slice of the stream into one store transaction: the last state of each response, the events in order, and
// the changes of assessments exactly between the events that they lie between.
type batch struct {
	w *writer

	known   *known
	cleared bool // the respondent table was truncated in this batch: what is not known has no state

	work     *pgx.Batch
	states   *sql.Rows     // that are written
	segment  []cdc.Event   // events since the last change of an assessment
	segments [][]cdc.Event // those before it, which the queue holds until the batch is committed
	assessed assessments
	items    int
	changes  int
	events   EventCounts
	since    time.Time // commit of its first transaction; zero: it has none
	to       cdc.Position
	idle     bool
	changed  bool

	taken        []string // incidents of rows that were set aside, and are taken now
	unidentified bool     // a delete came without its key
}

// newBatch begins a batch. What the one before it knew is gone: that one is sealed.
func newBatch(w *writer) *batch {
	w.known.clear()
	return &batch{w: w, work: &pgx.Batch{}, to: w.consumed, idle: true, known: &w.known}
}

// add classifies items.
func (b *batch) add(ctx context.Context, items []item) error {
	if err := b.loadStates(ctx, items); err != nil {
		return err
	}
	for i := range items {
		b.take(&items[i])
	}
	b.items += len(items)
	return nil
}

// seal makes the batch one that can be committed. What it says of the states is true for the batches that follow.
func (b *batch) seal() {
	b.endSegment()
	b.assessed.queue(b.work)
	b.writeStates()
	b.remember()
	if len(b.taken) > 0 {
		b.work.Queue(sql.ResolveSetAside.SQL, b.taken)
	}
}

// loadStates reads the states that the changes build on, those that are neither known nor in the cache, in one query.
func (b *batch) loadStates(ctx context.Context, items []item) error {
	var missing []string
	want := func(id string) {
		if b.cleared {
			return
		}
		r, met := b.known.of(id)
		if met {
			return
		}
		state, cached := b.w.states.get(id)
		if r.state = state; !cached {
			missing = append(missing, id)
		}
	}
	for i := range items {
		it := &items[i]
		if it.kind != itemChange || it.change.Table != cdc.Respondent {
			continue
		}
		switch it.change.Kind {
		case cdc.Update:
			want(it.change.Before())
		case cdc.Insert, cdc.Delete, cdc.Truncate:
			// What was there before does not matter.
		}
	}
	if len(missing) == 0 {
		return nil
	}
	// The store has the connection until then, and tells of what is being committed only afterwards.
	if err := b.w.await(); err != nil {
		return err
	}
	rows, err := b.w.store.Query(ctx, sql.ReadStates.SQL, sql.ReadStates.Bind(sql.Args{"response_ids": missing})...)
	if err != nil {
		return fmt.Errorf("read the state of %d responses: %w", len(missing), err)
	}
	defer rows.Close()
	for rows.Next() {
		id, state, err := scanState(rows)
		if err != nil {
			return err
		}
		r, _ := b.known.of(id)
		r.state = state
		b.w.states.put(id, state)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the state of %d responses: %w", len(missing), err)
	}
	return nil
}

// take applies one item.
func (b *batch) take(it *item) {
	if b.since.IsZero() && it.kind != itemIdle && it.kind != itemHurry {
		b.since = it.tx.CommitAt
	}
	switch it.kind {
	case itemCommit:
		b.to, b.idle = b.to.UpTo(it.end), false
		return
	case itemIdle, itemHurry:
		b.to = b.to.UpTo(it.end)
		b.w.hurry = b.w.hurry || it.kind == itemHurry
		return
	case itemReached:
		b.to, b.w.reached = b.to.UpTo(it.end), true
		return
	case itemChange, itemUnstable, itemSetAside:
		b.to.Partial, b.to.PartialChanges, b.idle = it.tx.CommitLSN, it.ordinal, false
		b.changes++
	}
	switch it.kind {
	case itemUnstable:
		b.unidentifiedDelete()
		return
	case itemSetAside:
		if it.change.Kind == cdc.Delete {
			b.noteTaken(&it.change)
		}
		return
	default:
	}
	b.noteTaken(&it.change)
	switch c := &it.change; {
	case c.Table == cdc.Assessment:
		b.endSegment() // events so far are matched without it
		b.assessed.take(b.work, c)
		b.changed = true
	case c.Kind == cdc.Truncate:
		b.known.clear()
		b.cleared, b.changed = true, true
	default:
		b.takeRespondent(it)
	}
}

func (b *batch) takeRespondent(it *item) {
	c := &it.change
	r, _ := b.known.of(c.Before())
	prev := r.state
	next, fired := cdc.Classify(prev, *c)
	if c.Moved {
		if prev != nil && next != nil && next.FirstID == nil {
			next.FirstID = new(c.OldID)
		}
		moved := *r
		*r = response{id: c.OldID}
		b.set(r, nil)
		r, _ = b.known.of(c.New.ID)
		r.created, r.fate, r.moved = cmp.Or(moved.created, r.created), moved.fate, true
		b.set(r, next)
	} else if c.Kind == cdc.Insert || prev == nil || next == nil || !next.Equal(*prev) {
		b.set(r, next)
	}
	if c.Kind == cdc.Insert || prev == nil && next != nil {
		r.created = it.tx.CommitLSN
	}
	if next == nil || c.Kind == cdc.Insert {
		r.fate = fate{}
	}
	if next != nil {
		r.fate = r.fate.add(fired, it.silenced, it.tx.CommitAt)
	}
	if it.silenced || next == nil {
		return
	}
	if fired != 0 && r.moved {
		b.endSegment() // which may have events of the response under another key
		r.moved = false
	}
	for _, event := range fired.Types() {
		b.assessed.queue(b.work) // what was said of assessments before this event holds for it
		if b.segment == nil {
			b.segment, b.w.spare = b.w.spare, nil
		}
		b.segment = append(b.segment, cdc.Event{
			Type: event, ResponseID: c.New.ID, AssessmentID: next.AssessmentID, OrganizationID: next.OrganizationID, FirstID: next.FirstID,
			LSN: it.tx.CommitLSN, Ordinal: it.ordinal, XID: it.tx.XID, CommitAt: it.tx.CommitAt,
		})
		b.events[event]++
		b.changed = true
	}
}

func (b *batch) set(r *response, state *cdc.State) {
	r.state, r.touched = state, true
	b.changed = true
}

// endSegment queues the matching of the events so far.
func (b *batch) endSegment() {
	if len(b.segment) > 0 {
		b.w.queue.Add(b.work, b.segment)
		b.segments = append(b.segments, b.segment)
		b.segment = nil
	}
}

// writeStates queues the states that are to be written.
func (b *batch) writeStates() {
	if b.cleared {
		b.work.Queue(sql.TruncateStates.SQL)
	}
	var gone []string
	b.states = sql.NewRows()
	for r := range b.known.touched() {
		switch {
		case r.state != nil:
			addState(b.states, r.id, r.state, r.created, r.fate)
		case !b.cleared:
			gone = append(gone, r.id)
		}
	}
	if len(gone) > 0 {
		b.work.Queue(sql.DeleteStates.SQL, gone)
	}
	if b.states.Len() > 0 {
		b.work.Queue(sql.WriteStates.SQL, b.states)
	}
}

// remember keeps the states for the batches that follow.
func (b *batch) remember() {
	if b.cleared {
		b.w.states.purge()
	}
	for r := range b.known.touched() {
		b.w.states.put(r.id, r.state)
	}
}

// release gives up the memory that was needed until the store had answered.
func (b *batch) release() {
	b.states.Release()
	for _, events := range b.segments {
		if cap(events) > cap(b.w.spare) {
			clear(events)
			b.w.spare = events[:0]
		}
	}
}

// known is what a batch knows of responses, in the order in which it met them.
type known struct {
	index map[string]int
	all   []response
}

// response is one of them.
type response struct {
	id      string
	state   *cdc.State    // nil: there is none
	touched bool          // to be written
	moved   bool          // its key has changed since its last event in this batch
	created pglogrepl.LSN // commit LSN, where it was inserted in this batch
	fate    fate
}

func (k *known) clear() {
	clear(k.index)
	clear(k.all)
	k.all = k.all[:0]
}

// of returns what is known of a response, until another one is asked for, and whether it was met before.
func (k *known) of(id string) (r *response, met bool) {
	i, met := k.index[id]
	if !met {
		i = len(k.all)
		k.all = append(k.all, response{id: id})
		if k.index == nil {
			k.index = map[string]int{}
		}
		k.index[id] = i
	}
	return &k.all[i], met
}

// touched returns those that are to be written.
func (k *known) touched() iter.Seq[*response] {
	return func(yield func(*response) bool) {
		for i := range k.all {
			if k.all[i].touched && !yield(&k.all[i]) {
				return
			}
		}
	}
}
