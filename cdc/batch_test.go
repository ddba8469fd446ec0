package cdc

import "testing"

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
