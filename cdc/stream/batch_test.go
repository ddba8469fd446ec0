package stream

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/sql"
)

// The server may report its progress before it sends a partially consumed transaction again. The partial count is
// kept until that transaction ends.
func TestIdlePositionKeepsThePartialTransaction(t *testing.T) {
	t.Parallel()
	partial := cdc.Position{LSN: 0x20, Partial: 0x30, PartialChanges: 5}
	deleted := cdc.Change{Kind: cdc.Delete, Table: cdc.Respondent, New: cdc.Row{ID: "1"}}
	for _, tt := range []struct {
		name string
		item item
		want cdc.Position
	}{
		{"an idle position before the commit", item{kind: itemIdle, end: 0x28}, cdc.Position{LSN: 0x28, Partial: 0x30, PartialChanges: 5}},
		{"one that is answered at once", item{kind: itemReplyRequested, end: 0x28}, cdc.Position{LSN: 0x28, Partial: 0x30, PartialChanges: 5}},
		{"one at the commit", item{kind: itemIdle, end: 0x30}, cdc.Position{LSN: 0x30, Partial: 0x30, PartialChanges: 5}},
		{"one that lies behind", item{kind: itemIdle, end: 0x18}, partial},
		{"a further change", item{kind: itemChange, tx: cdc.Tx{CommitLSN: 0x30}, ordinal: 6, change: deleted}, cdc.Position{LSN: 0x20, Partial: 0x30, PartialChanges: 6}},
		{"the commit", item{kind: itemCommit, tx: cdc.Tx{CommitLSN: 0x30}, end: 0x38}, cdc.Position{LSN: 0x38}},
		{"the point where the stream is to end", item{kind: itemEndReached, end: 0x40}, cdc.Position{LSN: 0x40}},
		{"an end before the commit", item{kind: itemEndReached, end: 0x28}, cdc.Position{LSN: 0x28, Partial: 0x30, PartialChanges: 5}},
		{"an idle position behind the commit", item{kind: itemIdle, end: 0x31}, cdc.Position{LSN: 0x31}},
	} {
		w := &writer{consumed: partial, states: newStateCache()}
		b := newBatch(w)
		b.apply(&tt.item)
		if b.position != tt.want {
			t.Errorf("%s leads to %s, not %s", tt.name, b.position, tt.want)
		}
		if skip, all := b.position.Skip(0x30); b.position.Partial != 0 && (all || skip != b.position.PartialChanges) {
			t.Errorf("%s: %s skips %d changes, all: %t", tt.name, b.position, skip, all)
		}
	}
}

// A requested reply is written soon; progress without changes of mapped tables is not urgent.
func TestProgressIsWrittenWhenItIsWorthIt(t *testing.T) {
	t.Parallel()
	handled := func(from cdc.Position, messages ...wire) *writer {
		cfg := Config{Mapping: testMapping, Status: &Status{}}
		r := newReader(cfg, &catalog.Attachment{RespondentOID: respondentOID, AssessmentOID: assessmentOID}, from)
		w := newWriter(cfg, nil, r, 1)
		for _, m := range messages {
			if _, _, err := r.handle(m); err != nil {
				t.Fatal(err)
			}
		}
		w.states.put("1", &cdc.State{AssessmentID: new("10")})
		if err := w.next.add(t.Context(), r.inbox.take(nil)); err != nil {
			t.Fatal(err)
		}
		w.startCommit(t.Context(), w.next)
		return w
	}
	wal := func(m wire) wire { return append(wire("w").uint64(0).uint64(0).uint64(0), m...) }
	report := func(reply byte) wire { return wire("k").uint64(0x30).uint64(0).uint8(reply) }
	empty := []wire{wal(beginMessage(0x28, time.Now(), 7)), wal(commitMessage(0x28, 0x30))}
	updated := []wire{empty[0], wal(respondentRelation), wal(updateMessage(respondentOID, "1", "somebody", "10", nil, nil, "open", nil)), empty[1]}
	start := cdc.Position{LSN: 0x20}
	partial, end := cdc.Position{LSN: 0x20, Partial: 0x28, PartialChanges: 1}, cdc.Position{LSN: 0x30}
	for name, tt := range map[string]struct {
		from        cdc.Position
		messages    []wire
		to          cdc.Position
		idle, hurry bool
	}{
		"a report":                                 {start, []wire{report(0)}, end, true, false},
		"a report that asks":                       {start, []wire{report(1)}, end, true, true},
		"a transaction without ours":               {start, empty, end, true, false},
		"a change that moves nothing":              {start, updated, end, false, false},
		"one within a transaction that continues":  {start, updated[:3], partial, false, false},
		"the end of a partly consumed transaction": {partial, updated, end, false, false},
	} {
		w := handled(tt.from, tt.messages...)
		if w.consumed != tt.to || w.idle != tt.idle || w.replyRequested != tt.hurry {
			t.Errorf("%s: at %s, idle: %t, in a hurry: %t", name, w.consumed, w.idle, w.replyRequested)
		}
		for after, want := range map[time.Duration]bool{
			500 * time.Millisecond:  false,
			1500 * time.Millisecond: !tt.idle || tt.hurry,
			lazyWriteInterval:       true,
		} {
			w.lastWrite = time.Now().Add(-after)
			if got := w.shouldWritePosition(); got != want {
				t.Errorf("%s: %s after the last write, writing is worth it: %t", name, after, got)
			}
		}
	}
}

// Changes after a TRUNCATE do not build on earlier states, whether they are in the same batch or a later one.
func TestTruncateForgetsWhatIsCached(t *testing.T) {
	t.Parallel()
	w := &writer{states: newStateCache(), queue: cdc.Queue{Add: func(*pgx.Batch, []cdc.Event) {}}}
	for _, id := range []string{"1", "2", "3"} {
		w.states.put(id, &cdc.State{AssessmentID: new("10"), Started: true, StartedNow: true})
	}
	b := newBatch(w)
	change := func(kind cdc.Kind, id string) []item {
		row := cdc.Row{ID: id, Assessment: text("10"), Organization: null, Started: cdc.MarkSet}
		return []item{{kind: itemChange, ordinal: 1, change: cdc.Change{Kind: kind, Table: cdc.Respondent, New: row}}}
	}
	for _, items := range [][]item{append(change(cdc.Truncate, ""), change(cdc.Update, "1")...), change(cdc.Update, "2")} {
		if err := b.add(t.Context(), items); err != nil {
			t.Fatal(err)
		}
	}
	b.seal()
	if b.events[cdc.Created] != 2 || b.events[cdc.Started] != 2 {
		t.Errorf("two rows that were not there before fire %v", b.events)
	}
	if state, cached := w.states.get("3"); cached {
		t.Errorf("%+v is left of before", state)
	}
}

// The lag is that of the oldest transaction that the store lacks. Items without a transaction do not count.
func TestLagIsThatOfTheOldestTransaction(t *testing.T) {
	t.Parallel()
	first, second, third := time.Unix(100, 0), time.Unix(200, 0), time.Unix(300, 0)
	change := func(at time.Time) item {
		return item{kind: itemSetAside, ordinal: 1, tx: cdc.Tx{CommitLSN: 0x30, CommitAt: at}}
	}
	w := &writer{states: newStateCache(), status: &Status{}}
	lag := func(b *batch) time.Time {
		w.reportLag(b)
		return w.status.oldestUnstored
	}
	b := newBatch(w)
	for _, tt := range []struct {
		it   item
		want time.Time
	}{
		{item{kind: itemIdle, end: 1, tx: cdc.Tx{CommitAt: third}}, time.Time{}},
		{item{kind: itemReplyRequested, end: 2, tx: cdc.Tx{CommitAt: third}}, time.Time{}},
		{change(first), first},
		{change(second), first},
		{item{kind: itemCommit, tx: cdc.Tx{CommitAt: second}, end: 0x38}, first},
	} {
		if b.apply(&tt.it); !lag(b).Equal(tt.want) {
			t.Errorf("after an item of kind %d the store lags since %s, not %s", tt.it.kind, w.status.oldestUnstored, tt.want)
		}
	}
	next := newBatch(w)
	w.commitDone, w.inFlightSince = make(chan error), b.firstCommit
	if !lag(next).Equal(first) {
		t.Errorf("while it is committed the store lags since %s", w.status.oldestUnstored)
	}
	it := change(third)
	if next.apply(&it); !lag(next).Equal(first) {
		t.Errorf("while more comes the store lags since %s", w.status.oldestUnstored)
	}
	if w.inFlightSince = (time.Time{}); !lag(next).Equal(third) {
		t.Errorf("while nothing but progress is committed the store lags since %s", w.status.oldestUnstored)
	}
	w.commitDone, w.inFlightSince = nil, first
	if !lag(next).Equal(third) {
		t.Errorf("after the commit the store lags since %s", w.status.oldestUnstored)
	}
	if !lag(newBatch(w)).IsZero() {
		t.Errorf("when all is stored it lags since %s", w.status.oldestUnstored)
	}
	w.status.oldestUnstored = first
	if lag(newBatch(w)); w.status.oldestUnstored != first {
		t.Error("the status is told what it knows")
	}
}

// Progress is written lazily, or at once if much WAL waits for it. A requested reply stays pending until it is
// written.
func TestLazyProgress(t *testing.T) {
	t.Parallel()
	// There is no store here, so any write fails.
	w := &writer{states: newStateCache(), status: &Status{}, idle: true, lastWrite: time.Now()}
	b := newBatch(w)
	for _, it := range []item{{kind: itemReplyRequested, end: 0x28}, {kind: itemIdle, end: 0x30}} {
		b.apply(&it)
	}
	if !w.replyRequested {
		t.Error("a report has made what was asked for before it less urgent")
	}
	w.advance(b.position, b.idle)
	w.lastWrite = time.Now()
	if err := w.persistLazily(t.Context()); err != nil || !w.replyRequested {
		t.Errorf("what was asked for a moment ago is forgotten: %v", err)
	}
	w.stored, w.lastWrite = w.consumed, time.Time{}
	if err := w.persistLazily(t.Context()); err != nil || w.replyRequested {
		t.Errorf("in a hurry for nothing: %v", err)
	}
	w.lastWrite = time.Now()
	for ahead, want := range map[pglogrepl.LSN]bool{lazyWriteBytes - 1: false, lazyWriteBytes: true, lazyWriteBytes + 1: true} {
		if w.consumed.LSN = w.stored.LSN + ahead; w.shouldWritePosition() != want {
			t.Errorf("%d bytes ahead, writing is worth it: %t", ahead, !want)
		}
	}
	w.advance(w.consumed, false)
	if w.advance(w.consumed, true); w.idle {
		t.Error("changes that moved nothing are forgotten over a report")
	}
}

// A batch only reads states that its changes build on, and only writes states that changed.
func TestBatchAsksAndWritesOnlyWhatItNeeds(t *testing.T) {
	t.Parallel()
	row := cdc.Row{ID: "1", Assessment: text("10"), Organization: null}
	ofRow := func(kind cdc.Kind) item {
		return item{kind: itemChange, ordinal: 1, change: cdc.Change{Kind: kind, Table: cdc.Respondent, New: row}}
	}
	assessment := item{kind: itemChange, ordinal: 1, change: cdc.Change{Kind: cdc.Update, Table: cdc.Assessment, New: cdc.Row{ID: "1", ExternalID: text("x")}}}
	silenced := ofRow(cdc.Insert)
	silenced.silenced = true
	for name, tt := range map[string]struct {
		items      []item
		statements int
		events     int
		changed    bool
	}{
		"an insert":               {[]item{ofRow(cdc.Insert)}, 1, 1, true},
		"a silenced one":          {[]item{silenced}, 1, 0, true},
		"a delete":                {[]item{ofRow(cdc.Delete)}, 1, 0, true},
		"a truncate":              {[]item{ofRow(cdc.Truncate)}, 1, 0, true},
		"a truncate and a delete": {[]item{ofRow(cdc.Truncate), ofRow(cdc.Delete)}, 1, 0, true},
		"an assessment":           {[]item{assessment}, 1, 0, true},
		"one among events":        {[]item{ofRow(cdc.Insert), assessment, ofRow(cdc.Insert)}, 2, 2, true},
		"what is set aside":       {[]item{{kind: itemSetAside, ordinal: 1}}, 0, 0, false},
		"a report":                {[]item{{kind: itemIdle, end: 7}}, 0, 0, false},
	} {
		events := 0
		w := &writer{states: newStateCache(), queue: cdc.Queue{Add: func(_ *pgx.Batch, added []cdc.Event) {
			if len(added) == 0 {
				t.Errorf("%s: no event is queued", name)
			}
			events += len(added)
		}}}
		w.states.put("other", nil)
		b := newBatch(w)
		if err := b.add(t.Context(), tt.items); err != nil {
			t.Fatal(err)
		}
		if b.changed != tt.changed {
			t.Errorf("%s: something is to be written: %t", name, b.changed)
		}
		b.seal()
		if n := b.work.Len(); n != tt.statements || events != tt.events {
			t.Errorf("%s: %d statements and %d events", name, n, events)
		}
		if _, cached := w.states.get("other"); cached != !b.truncated {
			t.Errorf("%s: other states are cached: %t", name, cached)
		}
		if newBatch(w); len(w.responses.all) > 0 || len(w.responses.index) > 0 {
			t.Errorf("%s: %d responses are known in the next batch", name, len(w.responses.all))
		}
		b.release()
	}
	w := &writer{states: newStateCache(), queue: cdc.Queue{Add: func(*pgx.Batch, []cdc.Event) {}}}
	w.states.put("1", &cdc.State{AssessmentID: new("10")})
	b := newBatch(w)
	if err := b.add(t.Context(), []item{ofRow(cdc.Update)}); err != nil {
		t.Fatal(err)
	}
	if b.seal(); b.changed || b.work.Len() > 0 {
		t.Errorf("an update that moves nothing makes %d statements", b.work.Len())
	}
}

// After a delete without its key, an insert is a new response even if its row is the same: its state is written.
func TestInsertIsWrittenWhateverWasThere(t *testing.T) {
	t.Parallel()
	w := &writer{states: newStateCache(), queue: cdc.Queue{Add: func(*pgx.Batch, []cdc.Event) {}}}
	row := cdc.Row{ID: "1", Assessment: text("10"), Organization: null}
	state := cdc.InitialState(row)
	w.states.put("1", &state)
	b := newBatch(w)
	for _, kind := range []cdc.Kind{cdc.Update, cdc.Insert} {
		it := item{kind: itemChange, ordinal: 1, tx: cdc.Tx{CommitLSN: 0x30}, change: cdc.Change{Kind: kind, Table: cdc.Respondent, New: row}}
		if err := b.add(t.Context(), []item{it}); err != nil {
			t.Fatal(err)
		}
	}
	b.seal()
	written := b.work.QueuedQueries
	if len(written) != 1 || written[0].SQL != sql.WriteStates.SQL {
		t.Fatalf("%d statements, not one that writes the state", len(written))
	}
	if states := written[0].Arguments[0].(sql.Rows[stateRow]); len(states) != 1 || states[0].CreatedLSN != 0x30 {
		t.Errorf("the state is written as %+v", states)
	}
}

// Whether its key changes in one batch or in several, a response keeps its first key, and events under different keys
// are queued by different statements.
func TestKeyThatChangesRepeatedly(t *testing.T) {
	t.Parallel()
	row := func(id string, stamp string) cdc.Row {
		return withStamp(cdc.Row{ID: id, Assessment: text("10"), Organization: null, Finished: cdc.MarkSet}, stamp)
	}
	items := []item{
		{change: cdc.Change{Kind: cdc.Insert, New: row("1", "a")}},
		{change: cdc.Change{Kind: cdc.Update, New: row("2", "b"), KeyChanged: true, OldID: "1"}},
		{change: cdc.Change{Kind: cdc.Update, New: row("3", "b"), KeyChanged: true, OldID: "2"}, silenced: true},
		{change: cdc.Change{Kind: cdc.Update, New: row("3", "c")}},
	}
	for i := range items {
		items[i].kind, items[i].change.Table, items[i].ordinal = itemChange, cdc.Respondent, int64(i+1)
	}
	for _, batches := range [][][]item{{items}, {items[:1], items[1:2], items[2:3], items[3:]}} {
		var queued []string
		w := &writer{states: newStateCache(), queue: cdc.Queue{Add: func(_ *pgx.Batch, events []cdc.Event) {
			statement := ""
			for _, e := range events {
				statement += fmt.Sprintf("%s %s", e.Type, e.ResponseID)
				if e.FirstID != nil {
					statement += " first " + *e.FirstID
				}
				statement += "; "
			}
			queued = append(queued, statement)
		}}}
		for _, id := range []string{"1", "2", "3"} {
			w.states.put(id, nil)
		}
		for _, some := range batches {
			b := newBatch(w)
			if err := b.add(t.Context(), some); err != nil {
				t.Fatal(err)
			}
			b.seal()
		}
		want := []string{"response.created 1; response.completed 1; ", "response.changed 2 first 1; ", "response.changed 3 first 1; "}
		if !slices.Equal(queued, want) {
			t.Errorf("in %d batches %q is queued", len(batches), queued)
		}
	}
}
