package stream

import (
	"sync"

	"github.com/jackc/pglogrepl"

	"walhook/cdc"
)

// item is one step of the stream, passed from the reader to the writer.
type item struct {
	kind     itemKind
	silenced bool
	tx       cdc.Tx
	ordinal  int64          // of the change within its transaction, from 1
	change   cdc.Change     // of itemChange
	keyType  cdc.ColumnType // of the respondent's key when the change was decoded
	end      pglogrepl.LSN  // of itemCommit and itemIdle: everything before it was passed on
}

type itemKind uint8

const (
	itemChange             itemKind = iota + 1
	itemCommit                      // all changes of the transaction were passed on
	itemIdle                        // no transaction ends between the previous item and end
	itemReplyRequested              // like itemIdle, and the server requests a reply
	itemUnidentifiedDelete          // a delete without its key: the row's history is incomplete
	itemSetAside                    // a change that the store rejects: only the position advances
	itemEndReached                  // everything that commits before end was passed on; it is the last item
)

// inboxItems bounds the inbox: about 2 MiB of row changes.
const inboxItems = 4096

// inbox passes items from the reader to the writer, a slice at a time, which saves a channel operation for each. One
// goroutine puts items, another one takes them.
type inbox struct {
	mu    sync.Mutex
	items []item
	room  chan struct{} // capacity 1; signalled when take has made room
	added chan struct{} // capacity 1; signalled when put has added an item
}

func newInbox() *inbox {
	return &inbox{room: make(chan struct{}, 1), added: make(chan struct{}, 1)}
}

// put adds an item and reports whether the inbox is now full. The reader then waits for room before it reads on.
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

// hasRoom reports whether there is room, and returns the channel that signals that room was made.
func (b *inbox) hasRoom() (bool, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.items) < inboxItems, b.room
}

// take returns all items, in exchange for a slice to reuse. The channel added signals when there are more.
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
