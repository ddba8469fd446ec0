package stream

import "github.com/jackc/pglogrepl"

// ledger tells which of the store's commits are on its disk. They are not waited for: what a crash of the store's server takes
// away is read from the slot again, since nothing is acknowledged before it is durable.
type ledger struct{ pending []entry }

// entry is a commit that may not be on disk yet.
type entry struct {
	position pglogrepl.LSN // of the source: what was committed up to it
	walEnd   uint64        // position in the store's WAL behind the commit; 0: not known yet
}

// committed notes a commit of everything up to a position, with what the store said of its WAL just before it, as told does.
func (l *ledger) committed(to pglogrepl.LSN, inserted, flushed uint64) (durable pglogrepl.LSN) {
	durable = l.observe(inserted, flushed)
	l.pending = append(l.pending, entry{position: to})
	return durable
}

// observe takes what the store says of its WAL after all commits so far: how far it has been inserted, and how far it is on disk. It
// returns up to where everything is durable, 0 where nothing has become so.
func (l *ledger) observe(inserted, flushed uint64) (durable pglogrepl.LSN) {
	if n := len(l.pending); n > 0 && l.pending[n-1].walEnd == 0 {
		l.pending[n-1].walEnd = inserted
	}
	done := 0
	for ; done < len(l.pending) && l.pending[done].walEnd <= flushed; done++ {
		durable = l.pending[done].position
	}
	l.pending = append(l.pending[:0], l.pending[done:]...)
	return durable
}

// clear notes that everything is on disk.
func (l *ledger) clear() { l.pending = l.pending[:0] }

// isEmpty reports whether everything is known to be on disk.
func (l *ledger) isEmpty() bool { return len(l.pending) == 0 }
