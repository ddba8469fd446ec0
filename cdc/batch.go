package cdc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"walhook/sql"
)

// batch folds a slice of the stream into one store transaction: the last state of each response, the events in order, and
// the changes of assessments exactly between the events that they lie between.
type batch struct {
	w *writer

	// states holds what the batch knows of each response; nil: there is none. touched are those to be written.
	states  map[string]*State
	touched map[string]struct{}
	created map[string]pglogrepl.LSN // commit LSN of the responses inserted in this batch
	fates   map[string]fate          // of the responses with events in this batch
	cleared bool                     // the respondent table was truncated in this batch: what is not in states has no state

	work     *pgx.Batch
	segment  []Event // events since the last change of an assessment
	assessed assessments
	items    int
	changes  int
	events   EventCounts
	since    time.Time // commit of its first transaction; zero: it has none
	to       Position
	idle     bool
	changed  bool

	unidentified bool // a delete came without its key
}

func newBatch(w *writer) *batch {
	return &batch{
		w: w, work: &pgx.Batch{}, to: w.consumed, idle: true, states: map[string]*State{},
		touched: map[string]struct{}{}, created: map[string]pglogrepl.LSN{}, fates: map[string]fate{},
	}
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
}

// loadStates reads the states that the changes build on, those that are neither known nor in the cache, in one query.
func (b *batch) loadStates(ctx context.Context, items []item) error {
	var missing []string
	want := func(id string) {
		if id == "" {
			return
		}
		if _, known := b.states[id]; known || b.cleared {
			return
		}
		if state, cached := b.w.states.get(id); cached {
			b.states[id] = state
			return
		}
		b.states[id] = nil
		missing = append(missing, id)
	}
	for i := range items {
		it := &items[i]
		if it.kind != itemChange || it.change.Table != Respondent {
			continue
		}
		switch it.change.Kind {
		case Update:
			if it.change.OldID != "" {
				want(it.change.OldID)
			} else {
				want(it.change.New.ID)
			}
		case Insert, Delete, Truncate:
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
		b.states[id] = state
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
		b.to, b.idle = Position{LSN: it.end}, false
		return
	case itemIdle, itemHurry:
		if it.end > b.to.LSN {
			b.to = Position{LSN: it.end}
		}
		b.w.hurry = b.w.hurry || it.kind == itemHurry
		return
	case itemReached:
		b.to, b.w.reached = Position{LSN: max(it.end, b.to.LSN)}, true
		return
	case itemChange, itemUnstable:
		b.to.Partial, b.to.PartialChanges, b.idle = it.tx.CommitLSN, it.ordinal, false
		b.changes++
	}
	if it.kind == itemUnstable {
		b.unidentifiedDelete()
		return
	}
	switch c := &it.change; {
	case c.Table == Assessment:
		b.endSegment() // events so far are matched without it
		b.assessed.take(b.work, c)
		b.changed = true
	case c.Kind == Truncate:
		clear(b.states)
		clear(b.touched)
		clear(b.fates)
		b.cleared, b.changed = true, true
	default:
		b.takeRespondent(it)
	}
}

func (b *batch) takeRespondent(it *item) {
	c := &it.change
	key := c.New.ID
	if c.OldID != "" {
		key = c.OldID
	}
	prev := b.states[key]
	next, fired := Classify(prev, *c)
	if c.OldID != "" {
		b.set(c.OldID, nil)
		if lsn, ok := b.created[c.OldID]; ok {
			b.created[c.New.ID] = lsn
			delete(b.created, c.OldID)
		}
		b.fates[c.New.ID] = b.fates[c.OldID]
		delete(b.fates, c.OldID)
		b.set(c.New.ID, next)
	} else if prev == nil || next == nil || !next.Equal(*prev) {
		b.set(key, next)
	}
	if c.Kind == Insert || prev == nil && next != nil {
		b.created[c.New.ID] = it.tx.CommitLSN
	}
	if next == nil || c.Kind == Insert {
		delete(b.fates, c.New.ID)
	}
	if next != nil && fired != 0 {
		b.fates[c.New.ID] = b.fates[c.New.ID].add(fired, it.silenced, it.tx.CommitAt)
	}
	if it.silenced || next == nil {
		return
	}
	for _, event := range fired.Types() {
		b.assessed.queue(b.work) // what was said of assessments before this event holds for it
		b.segment = append(b.segment, Event{
			Type: event, ResponseID: c.New.ID, AssessmentID: next.AssessmentID, OrganizationID: next.OrganizationID,
			LSN: it.tx.CommitLSN, Ordinal: it.ordinal, XID: it.tx.XID, CommitAt: it.tx.CommitAt,
		})
		b.events[event]++
		b.changed = true
	}
}

func (b *batch) set(id string, state *State) {
	b.states[id] = state
	b.touched[id] = struct{}{}
	b.changed = true
}

// endSegment queues the matching of the events so far.
func (b *batch) endSegment() {
	if len(b.segment) > 0 {
		b.w.queue.Add(b.work, b.segment)
		b.segment = nil
	}
}

func (b *batch) writeStates() {
	if b.cleared {
		b.work.Queue(sql.TruncateStates.SQL)
	}
	var gone []string
	var rows stateRows
	for id := range b.touched {
		state := b.states[id]
		switch {
		case state != nil:
			rows.add(id, state, b.created[id], b.fates[id])
		case !b.cleared:
			gone = append(gone, id)
		}
	}
	if len(gone) > 0 {
		b.work.Queue(sql.DeleteStates.SQL, sql.DeleteStates.Bind(sql.Args{"response_ids": gone})...)
	}
	rows.queue(b.work)
}

// remember keeps the states for the batches that follow.
func (b *batch) remember() {
	if b.cleared {
		b.w.states.purge()
	}
	for id := range b.touched {
		b.w.states.put(id, b.states[id])
	}
}
