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
	writer *writer

	responses *responseSet
	truncated bool // the respondent table was truncated in this batch: what is not known has no state

	work        *pgx.Batch
	states      *sql.Rows     // that are written
	segment     []cdc.Event   // events since the last change of an assessment
	segments    [][]cdc.Event // those before it, which the queue holds until the batch is committed
	assessments assessments
	items       int
	changes     int
	events      EventCounts
	firstCommit time.Time // commit of its first transaction; zero: it has none
	position    cdc.Position
	idle        bool
	changed     bool

	resolved     []string // incidents of rows that were set aside, and are taken now
	unidentified bool     // a delete came without its key
}

// newBatch begins a batch. What the one before it knew is gone: that one is sealed.
func newBatch(w *writer) *batch {
	w.responses.clear()
	return &batch{writer: w, work: &pgx.Batch{}, position: w.consumed, idle: true, responses: &w.responses}
}

// add classifies items.
func (b *batch) add(ctx context.Context, items []item) error {
	if err := b.loadStates(ctx, items); err != nil {
		return err
	}
	for i := range items {
		b.apply(&items[i])
	}
	b.items += len(items)
	return nil
}

// seal makes the batch one that can be committed. What it says of the states is true for the batches that follow.
func (b *batch) seal() {
	b.endSegment()
	b.assessments.flush(b.work)
	b.writeStates()
	b.cacheStates()
	if len(b.resolved) > 0 {
		b.work.Queue(sql.ResolveSetAside.SQL, b.resolved)
	}
}

// loadStates reads the states that the changes build on, those that are neither known nor in the cache, in one query.
func (b *batch) loadStates(ctx context.Context, items []item) error {
	var missing []string
	want := func(id string) {
		if b.truncated {
			return
		}
		r, met := b.responses.get(id)
		if met {
			return
		}
		state, cached := b.writer.states.get(id)
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
			want(it.change.PriorID())
		case cdc.Insert, cdc.Delete, cdc.Truncate:
			// What was there before does not matter.
		}
	}
	if len(missing) == 0 {
		return nil
	}
	// The store has the connection until then, and tells of what is being committed only afterwards.
	if err := b.writer.awaitCommit(); err != nil {
		return err
	}
	rows, err := b.writer.store.Query(ctx, sql.ReadStates.SQL, sql.ReadStates.Bind(sql.Args{"response_ids": missing})...)
	if err != nil {
		return fmt.Errorf("read the state of %d responses: %w", len(missing), err)
	}
	defer rows.Close()
	for rows.Next() {
		id, state, err := scanState(rows)
		if err != nil {
			return err
		}
		r, _ := b.responses.get(id)
		r.state = state
		b.writer.states.put(id, state)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the state of %d responses: %w", len(missing), err)
	}
	return nil
}

// apply applies one item.
func (b *batch) apply(it *item) {
	if b.firstCommit.IsZero() && it.kind != itemIdle && it.kind != itemReplyRequested {
		b.firstCommit = it.tx.CommitAt
	}
	switch it.kind {
	case itemCommit:
		b.position, b.idle = b.position.AdvanceTo(it.end), false
		return
	case itemIdle, itemReplyRequested:
		b.position = b.position.AdvanceTo(it.end)
		b.writer.replyRequested = b.writer.replyRequested || it.kind == itemReplyRequested
		return
	case itemEndReached:
		b.position, b.writer.endReached = b.position.AdvanceTo(it.end), true
		return
	case itemChange, itemUnidentifiedDelete, itemSetAside:
		b.position.Partial, b.position.PartialChanges, b.idle = it.tx.CommitLSN, it.ordinal, false
		b.changes++
	}
	switch it.kind {
	case itemUnidentifiedDelete:
		b.unidentifiedDelete()
		return
	case itemSetAside:
		if it.change.Kind == cdc.Delete {
			b.resolveSetAside(&it.change)
		}
		return
	default:
	}
	b.resolveSetAside(&it.change)
	switch c := &it.change; {
	case c.Table == cdc.Assessment:
		b.endSegment() // events so far are matched without it
		b.assessments.add(b.work, c)
		b.changed = true
	case c.Kind == cdc.Truncate:
		b.responses.clear()
		b.truncated, b.changed = true, true
	default:
		b.applyRespondent(it)
	}
}

func (b *batch) applyRespondent(it *item) {
	c := &it.change
	r, _ := b.responses.get(c.PriorID())
	prev := r.state
	next, fired := cdc.Classify(prev, *c)
	if c.KeyChanged {
		if prev != nil && next != nil && next.FirstID == nil {
			next.FirstID = new(c.OldID)
		}
		moved := *r
		*r = response{id: c.OldID}
		b.setState(r, nil)
		r, _ = b.responses.get(c.New.ID)
		r.created, r.history, r.keyChanged = cmp.Or(moved.created, r.created), moved.history, true
		b.setState(r, next)
	} else if c.Kind == cdc.Insert || prev == nil || next == nil || !next.Equal(*prev) {
		b.setState(r, next)
	}
	if c.Kind == cdc.Insert || prev == nil && next != nil {
		r.created = it.tx.CommitLSN
	}
	if next == nil || c.Kind == cdc.Insert {
		r.history = eventHistory{}
	}
	if next != nil {
		r.history = r.history.add(fired, it.silenced, it.tx.CommitAt)
	}
	if it.silenced || next == nil {
		return
	}
	if fired != 0 && r.keyChanged {
		b.endSegment() // which may have events of the response under another key
		r.keyChanged = false
	}
	for _, event := range fired.Types() {
		b.assessments.flush(b.work) // what was said of assessments before this event holds for it
		if b.segment == nil {
			b.segment, b.writer.spareEvents = b.writer.spareEvents, nil
		}
		b.segment = append(b.segment, cdc.Event{
			Type: event, ResponseID: c.New.ID, AssessmentID: next.AssessmentID, OrganizationID: next.OrganizationID, FirstID: next.FirstID,
			LSN: it.tx.CommitLSN, Ordinal: it.ordinal, XID: it.tx.XID, CommitAt: it.tx.CommitAt,
		})
		b.events[event]++
		b.changed = true
	}
}

func (b *batch) setState(r *response, state *cdc.State) {
	r.state, r.dirty = state, true
	b.changed = true
}

// endSegment queues the matching of the events so far.
func (b *batch) endSegment() {
	if len(b.segment) > 0 {
		b.writer.queue.Add(b.work, b.segment)
		b.segments = append(b.segments, b.segment)
		b.segment = nil
	}
}

// writeStates queues the states that are to be written.
func (b *batch) writeStates() {
	if b.truncated {
		b.work.Queue(sql.TruncateStates.SQL)
	}
	var gone []string
	b.states = sql.NewRows()
	for r := range b.responses.dirty() {
		switch {
		case r.state != nil:
			addState(b.states, r.id, r.state, r.created, r.history)
		case !b.truncated:
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

// cacheStates keeps the states for the batches that follow.
func (b *batch) cacheStates() {
	if b.truncated {
		b.writer.states.purge()
	}
	for r := range b.responses.dirty() {
		b.writer.states.put(r.id, r.state)
	}
}

// release gives up the memory that was needed until the store had answered.
func (b *batch) release() {
	b.states.Release()
	for _, events := range b.segments {
		if cap(events) > cap(b.writer.spareEvents) {
			clear(events)
			b.writer.spareEvents = events[:0]
		}
	}
}

// responseSet is what a batch knows of responses, in the order in which it met them.
type responseSet struct {
	index map[string]int
	all   []response
}

// response is one of them.
type response struct {
	id         string
	state      *cdc.State    // nil: there is none
	dirty      bool          // to be written
	keyChanged bool          // its key has changed since its last event in this batch
	created    pglogrepl.LSN // commit LSN, where it was inserted in this batch
	history    eventHistory
}

func (k *responseSet) clear() {
	clear(k.index)
	clear(k.all)
	k.all = k.all[:0]
}

// get returns what is known of a response, until another one is asked for, and whether it was met before.
func (k *responseSet) get(id string) (r *response, met bool) {
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

// dirty returns those that are to be written.
func (k *responseSet) dirty() iter.Seq[*response] {
	return func(yield func(*response) bool) {
		for i := range k.all {
			if k.all[i].dirty && !yield(&k.all[i]) {
				return
			}
		}
	}
}
