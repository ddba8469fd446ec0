package stream

import "github.com/jackc/pglogrepl"

// ledger tracks which of the store's commits are on its disk. The writer does not wait for the disk: nothing is
// acknowledged before it is durable, so what a crash of the store's server loses is read from the slot again.
type ledger struct{ pending []entry }

// entry is a commit that may not be on disk yet.
type entry struct {
	position pglogrepl.LSN // of the source: everything before it is in the commit
	walEnd   uint64        // the store's WAL position after the commit; 0: not known yet
}

// committed adds a commit of everything up to a position. inserted and flushed are the store's WAL positions just
// before it; see observe.
func (l *ledger) committed(to pglogrepl.LSN, inserted, flushed uint64) (durable pglogrepl.LSN) {
	durable = l.observe(inserted, flushed)
	l.pending = append(l.pending, entry{position: to})
	return durable
}

// observe takes the store's WAL positions after all commits so far: how far WAL is inserted, and how far it is
// flushed. It returns the position up to which everything is durable, or 0 if nothing became durable.
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

// clear records that every commit is on disk.
func (l *ledger) clear() { l.pending = l.pending[:0] }

// isEmpty reports whether every commit is known to be on disk.
func (l *ledger) isEmpty() bool { return len(l.pending) == 0 }
