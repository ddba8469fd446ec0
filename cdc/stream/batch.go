package stream

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/sql"
)

// batch combines a part of the stream into one store transaction: the last state of each response, the events in
// order, and each change of an assessment between the events that precede and follow it.
type batch struct {
	writer *writer

	responses *responseSet
	truncated bool // the respondent table was truncated in this batch: responses that are not in the set have no state

	work        *pgx.Batch
	segment     []cdc.Event   // events since the last change of an assessment
	segments    [][]cdc.Event // earlier segments, which the queue retains until the batch is committed
	assessments assessments
	items       int
	changes     int
	events      EventCounts
	firstCommit time.Time // commit time of the first transaction; zero: the batch has none
	position    cdc.Position
	idle        bool
	changed     bool

	resolved     []string // incidents of rows that were set aside and are stored by this batch
	unidentified bool     // a delete did not carry its key
}

// newBatch begins a batch. It reuses the response set of the previous one, which must be sealed.
func newBatch(w *writer) *batch {
	w.responses.clear()
	return &batch{
		writer: w, work: &pgx.Batch{}, position: w.consumed, idle: true, responses: &w.responses,
		assessments: assessments{storeEncoding: w.encoding},
	}
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

// seal completes the statements of the batch, and caches its states for the following batches.
func (b *batch) seal() {
	b.endSegment()
	b.assessments.flush(b.work)
	b.writeStates()
	b.cacheStates()
	if len(b.resolved) > 0 {
		b.work.Queue(sql.ResolveSetAside.SQL, b.resolved)
	}
}

// loadStates reads the previous states of the changed responses that are neither in the set nor in the cache, in one
// query.
func (b *batch) loadStates(ctx context.Context, items []item) error {
	var missing []string
	want := func(id string) {
		if b.truncated {
			return
		}
		r, found := b.responses.get(id)
		if found {
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
			// The previous state is irrelevant.
		}
	}
	if len(missing) == 0 {
		return nil
	}
	// The connection belongs to the commit in flight, and its states are only final once it ends.
	if err := b.writer.awaitCommit(); err != nil {
		return err
	}
	rows, err := b.writer.store.Query(
		ctx, sql.ReadStates.SQL,
		sql.ReadStates.Bind(sql.Args{"response_ids": missing})...)
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

// apply adds one item to the batch.
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
		b.endSegment() // earlier events are matched without this change
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
		b.endSegment() // it may contain events of the response under its former key
		if prev != nil && next != nil && next.FirstID == nil {
			renamed := *next
			renamed.FirstID = new(c.OldID)
			next = &renamed
		}
		moved := *r
		*r = response{id: c.OldID}
		b.setState(r, nil)
		r, _ = b.responses.get(c.New.ID)
		r.storedAs, r.created, r.history = moved.storedAs, moved.created, moved.history
		b.setState(r, next)
	} else if c.Kind == cdc.Insert || prev == nil || next != prev {
		b.setState(r, next)
	}
	if fired.Has(cdc.Created) {
		r.created = it.tx.CommitLSN
	}
	if next == nil || fired.Has(cdc.Created) {
		r.history = eventHistory{}
	}
	if next != nil {
		r.history = r.history.add(fired, it.silenced, it.tx.CommitAt)
	}
	if it.silenced || next == nil {
		return
	}
	for _, event := range fired.Types() {
		b.assessments.flush(b.work) // earlier changes of assessments apply to this event
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

// writeStates queues the writes of all changed states.
func (b *batch) writeStates() {
	if b.truncated {
		b.work.Queue(sql.TruncateStates.SQL)
	}
	var gone, movedFrom, movedTo []string
	var states sql.Rows[stateRow]
	for r := range b.responses.dirty() {
		switch {
		case r.state != nil:
			states = append(states, newStateRow(r.id, r.state, r.created, r.history))
			if r.storedAs != r.id {
				movedFrom, movedTo = append(movedFrom, r.storedAs), append(movedTo, r.id)
			}
		case !b.truncated:
			gone = append(gone, r.id)
		}
	}
	if len(movedTo) > 0 {
		b.work.Queue(sql.MoveStates.SQL, sql.MoveStates.Bind(sql.Args{"from_ids": movedFrom, "to_ids": movedTo})...)
	}
	if len(gone) > 0 {
		b.work.Queue(sql.DeleteStates.SQL, gone)
	}
	if len(states) > 0 {
		b.work.Queue(sql.WriteStates.SQL, states)
	}
}

// cacheStates caches the states for the following batches.
func (b *batch) cacheStates() {
	if b.truncated {
		b.writer.states.purge()
	}
	for r := range b.responses.dirty() {
		b.writer.states.put(r.id, r.state)
	}
}

// release frees memory that was in use until the store answered.
func (b *batch) release() {
	for _, events := range b.segments {
		if cap(events) > cap(b.writer.spareEvents) {
			clear(events)
			b.writer.spareEvents = events[:0]
		}
	}
}

// responseSet holds the responses of a batch, in the order of their first change.
type responseSet struct {
	index map[string]int
	all   []response
}

// response is a response and its state after the changes so far.
type response struct {
	id       string
	storedAs string        // its key in earlier batches, if it is older than this one
	state    *cdc.State    // nil: it has none
	dirty    bool          // to be written
	created  pglogrepl.LSN // commit LSN of its insert, if that is in this batch
	history  eventHistory
}

func (k *responseSet) clear() {
	clear(k.index)
	clear(k.all)
	k.all = k.all[:0]
}

// get returns a response, adding it if needed, and whether it was in the set before. The pointer is valid until the
// next call.
func (k *responseSet) get(id string) (r *response, found bool) {
	i, found := k.index[id]
	if !found {
		i = len(k.all)
		k.all = append(k.all, response{id: id, storedAs: id})
		if k.index == nil {
			k.index = map[string]int{}
		}
		k.index[id] = i
	}
	return &k.all[i], found
}

// dirty returns the responses whose state must be written.
func (k *responseSet) dirty() iter.Seq[*response] {
	return func(yield func(*response) bool) {
		for i := range k.all {
			if k.all[i].dirty && !yield(&k.all[i]) {
				return
			}
		}
	}
}
