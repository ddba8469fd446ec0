package stream

import (
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
)

func TestInboxHandsOverInOrder(t *testing.T) {
	t.Parallel()
	const total = 100_000
	b := newInbox()
	go func() {
		for ordinal := int64(1); ordinal <= total; ordinal++ {
			if !b.put(item{kind: itemChange, ordinal: ordinal}) {
				continue
			}
			for {
				room, changed := b.hasRoom()
				if room {
					break
				}
				<-changed
			}
		}
	}()
	var items []item
	for next := int64(1); next <= total; {
		select {
		case <-b.added:
		case <-time.After(time.Minute):
			t.Fatalf("nothing came after item %d", next-1)
		}
		items = b.take(items)
		if len(items) > inboxItems {
			t.Fatalf("%d items were held", len(items))
		}
		for _, it := range items {
			if it.ordinal != next {
				t.Fatalf("item %d came as the %dth", it.ordinal, next)
			}
			next++
		}
	}
}

func TestInboxSaysWhenItIsFull(t *testing.T) {
	t.Parallel()
	b := newInbox()
	for n := 1; n <= inboxItems; n++ {
		if full := b.put(item{kind: itemChange}); full != (n == inboxItems) {
			t.Fatalf("after %d items: %v", n, full)
		}
	}
	room, changed := b.hasRoom()
	if room {
		t.Error("a full inbox has room")
	}
	if items := b.take(nil); len(items) != inboxItems {
		t.Fatalf("%d items", len(items))
	}
	<-changed
	if room, _ := b.hasRoom(); !room {
		t.Error("an empty inbox has no room")
	}
}

func TestInboxKeepsTheLastOfIdlePositions(t *testing.T) {
	t.Parallel()
	b := newInbox()
	for _, it := range []item{
		{kind: itemIdle, end: 1},
		{kind: itemIdle, end: 2},
		{kind: itemReplyRequested, end: 3},
		{kind: itemIdle, end: 4},
		{kind: itemIdle, end: 5},
		{kind: itemCommit, end: 6},
		{kind: itemIdle, end: 7},
		{kind: itemIdle, end: 8},
	} {
		b.put(it)
	}
	items := b.take(nil)
	var ends []pglogrepl.LSN
	hurry := false
	for _, it := range items {
		ends = append(ends, it.end)
		hurry = hurry || it.kind == itemReplyRequested
	}
	if len(ends) != 4 || ends[0] != 3 || ends[1] != 5 || ends[2] != 6 || ends[3] != 8 || !hurry {
		t.Errorf("%v, in a hurry: %v", ends, hurry)
	}
}
