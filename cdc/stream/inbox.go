package stream

import (
	"sync"

	"github.com/jackc/pglogrepl"

	"walhook/cdc"
)

// item is one step of the stream on its way from the reader to the writer.
type item struct {
	kind     itemKind
	silenced bool
	tx       cdc.Tx
	ordinal  int64          // of the change in its transaction, from 1
	change   cdc.Change     // itemChange only
	keyType  cdc.ColumnType // of the respondent's key, as the change has it
	end      pglogrepl.LSN  // itemCommit and itemIdle: everything before it has been handed over
}

type itemKind uint8

const (
	itemChange             itemKind = iota + 1
	itemCommit                      // the transaction has been handed over whole
	itemIdle                        // no transaction ends between the last one and end
	itemReplyRequested              // like itemIdle, and the server waits for the answer
	itemUnidentifiedDelete          // a delete that carried no key: something of the row's history cannot be followed
	itemSetAside                    // a change that the store cannot take: only the position passes it
	itemEndReached                  // all that commits before end has been handed over, and nothing else is going to be
)

// inboxItems bounds the inbox: about 2 MiB of row changes.
const inboxItems = 4096

// inbox hands items from the reader to the writer, a slice at a time, so that neither pays a channel operation for each.
// One goroutine puts, one takes.
type inbox struct {
	mu    sync.Mutex
	items []item
	room  chan struct{} // capacity 1: room was made
	added chan struct{} // capacity 1: something was put
}

func newInbox() *inbox {
	return &inbox{room: make(chan struct{}, 1), added: make(chan struct{}, 1)}
}

// put adds an item and reports whether the inbox is now full; the reader then waits for room before it reads on.
func (b *inbox) put(it item) (full bool) {
	b.mu.Lock()
	idle := it.kind == itemIdle || it.kind == itemReplyRequested
	if n := len(b.items); idle && n > 0 && b.items[n-1].kind == itemIdle {
		b.items[n-1] = it
	} else {
		b.items = append(b.items, it)
	}
	full = len(b.items) >= inboxItems
	b.mu.Unlock()
	signal(b.added)
	return full
}

// hasRoom reports whether the reader may go on, and the channel on which it is told when that changes.
func (b *inbox) hasRoom() (bool, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.items) < inboxItems, b.room
}

// take returns all items there are, in the slice that spare gives up for it. filled tells when to look again.
func (b *inbox) take(spare []item) []item {
	b.mu.Lock()
	items := b.items
	b.items = spare[:0]
	b.mu.Unlock()
	signal(b.room)
	return items
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
