package cdc

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// The server reports how far it has come while a transaction that was consumed in part has not come again: what was consumed of it
// stays known until it has ended.
func TestIdlePositionKeepsThePartialTransaction(t *testing.T) {
	t.Parallel()
	partial := Position{LSN: 0x20, Partial: 0x30, PartialChanges: 5}
	deleted := Change{Kind: Delete, Table: Respondent, New: Row{ID: "1"}}
	for _, tt := range []struct {
		name string
		item item
		want Position
	}{
		{"an idle position before the commit", item{kind: itemIdle, end: 0x28}, Position{LSN: 0x28, Partial: 0x30, PartialChanges: 5}},
		{"one that is answered at once", item{kind: itemHurry, end: 0x28}, Position{LSN: 0x28, Partial: 0x30, PartialChanges: 5}},
		{"one at the commit", item{kind: itemIdle, end: 0x30}, Position{LSN: 0x30, Partial: 0x30, PartialChanges: 5}},
		{"one that lies behind", item{kind: itemIdle, end: 0x18}, partial},
		{"a further change", item{kind: itemChange, tx: Tx{CommitLSN: 0x30}, ordinal: 6, change: deleted}, Position{LSN: 0x20, Partial: 0x30, PartialChanges: 6}},
		{"the commit", item{kind: itemCommit, tx: Tx{CommitLSN: 0x30}, end: 0x38}, Position{LSN: 0x38}},
		{"the point where the stream is to end", item{kind: itemReached, end: 0x40}, Position{LSN: 0x40}},
		{"an end before the commit", item{kind: itemReached, end: 0x28}, Position{LSN: 0x28, Partial: 0x30, PartialChanges: 5}},
		{"an idle position behind the commit", item{kind: itemIdle, end: 0x31}, Position{LSN: 0x31}},
	} {
		w := &writer{consumed: partial, states: newStateCache()}
		b := newBatch(w)
		b.take(&tt.item)
		if b.to != tt.want {
			t.Errorf("%s leads to %s, not %s", tt.name, b.to, tt.want)
		}
		if skip, all := b.to.skip(0x30); b.to.Partial != 0 && (all || skip != b.to.PartialChanges) {
			t.Errorf("%s: %s skips %d changes, all: %t", tt.name, b.to, skip, all)
		}
	}
}

// What the server waits for an answer to is written soon, and what changed nothing of ours in no hurry.
func TestProgressIsWrittenWhenItIsWorthIt(t *testing.T) {
	t.Parallel()
	handled := func(messages ...wire) *writer {
		cfg := StreamConfig{Mapping: testMapping, Status: &Status{}}
		r := newReader(cfg, &Attachment{RespondentOID: respondentOID, AssessmentOID: assessmentOID}, Position{LSN: 0x20}, false)
		w := newWriter(cfg, nil, r, 1)
		for _, m := range messages {
			if _, _, err := r.handle(m); err != nil {
				t.Fatal(err)
			}
		}
		w.states.put("1", &State{AssessmentID: new("10")})
		if err := w.next.add(t.Context(), r.inbox.take(nil)); err != nil {
			t.Fatal(err)
		}
		w.begin(t.Context(), w.next)
		return w
	}
	wal := func(m wire) wire { return append(wire("w").uint64(0).uint64(0).uint64(0), m...) }
	report := func(reply byte) wire { return wire("k").uint64(0x30).uint64(0).uint8(reply) }
	empty := []wire{wal(beginMessage(0x28, time.Now(), 7)), wal(commitMessage(0x28, 0x30))}
	updated := []wire{empty[0], wal(respondentRelation), wal(updateMessage(respondentOID, "1", "somebody", "10", nil, nil, "open", nil)), empty[1]}
	for name, tt := range map[string]struct {
		messages    []wire
		idle, hurry bool
	}{
		"a report":                    {[]wire{report(0)}, true, false},
		"a report that asks":          {[]wire{report(1)}, true, true},
		"a transaction without ours":  {empty, true, false},
		"a change that moves nothing": {updated, false, false},
	} {
		w := handled(tt.messages...)
		if w.consumed != (Position{LSN: 0x30}) || w.idle != tt.idle || w.hurry != tt.hurry {
			t.Errorf("%s: at %s, idle: %t, in a hurry: %t", name, w.consumed, w.idle, w.hurry)
		}
		for after, want := range map[time.Duration]bool{
			500 * time.Millisecond:  false,
			1500 * time.Millisecond: !tt.idle || tt.hurry,
			lazyTime:                true,
		} {
			w.wrote = time.Now().Add(-after)
			if got := w.worthWriting(); got != want {
				t.Errorf("%s: %s after the last write, writing is worth it: %t", name, after, got)
			}
		}
	}
}

// What follows a TRUNCATE in a batch builds on nothing that was there before, whether it comes with it or later.
func TestTruncateForgetsWhatIsCached(t *testing.T) {
	t.Parallel()
	w := &writer{states: newStateCache(), queue: Queue{Add: func(*pgx.Batch, []Event) {}}}
	for _, id := range []string{"1", "2", "3"} {
		w.states.put(id, &State{AssessmentID: new("10"), Started: true, StartedNow: true})
	}
	b := newBatch(w)
	change := func(kind Kind, id string) []item {
		row := Row{ID: id, Assessment: text("10"), Organization: null, Started: MarkSet, Stamp: null}
		return []item{{kind: itemChange, ordinal: 1, change: Change{Kind: kind, Table: Respondent, New: row}}}
	}
	for _, items := range [][]item{append(change(Truncate, ""), change(Update, "1")...), change(Update, "2")} {
		if err := b.add(t.Context(), items); err != nil {
			t.Fatal(err)
		}
	}
	b.seal()
	if b.events[Created] != 2 || b.events[Started] != 2 {
		t.Errorf("two rows that were not there before fire %v", b.events)
	}
	if state, cached := w.states.get("3"); cached {
		t.Errorf("%+v is left of before", state)
	}
}
