package stream

import "github.com/jackc/pglogrepl"

// ledger tells which of the store's commits are on its disk. They are not waited for: what a crash of the store's server takes
// away is read from the slot again, since nothing is acknowledged before it is durable.
type ledger struct{ open []entry }

// entry is a commit that may not be on disk yet.
type entry struct {
	position pglogrepl.LSN // of the source: what was committed up to it
	behind   uint64        // position in the store's WAL behind the commit; 0: not known yet
}

// committed notes a commit of everything up to a position, with what the store said of its WAL just before it, as told does.
func (l *ledger) committed(to pglogrepl.LSN, inserted, flushed uint64) (durable pglogrepl.LSN) {
	durable = l.told(inserted, flushed)
	l.open = append(l.open, entry{position: to})
	return durable
}

// told takes what the store says of its WAL after all commits so far: how far it has been inserted, and how far it is on disk. It
// returns up to where everything is durable, 0 where nothing has become so.
func (l *ledger) told(inserted, flushed uint64) (durable pglogrepl.LSN) {
	if n := len(l.open); n > 0 && l.open[n-1].behind == 0 {
		l.open[n-1].behind = inserted
	}
	done := 0
	for ; done < len(l.open) && l.open[done].behind <= flushed; done++ {
		durable = l.open[done].position
	}
	l.open = append(l.open[:0], l.open[done:]...)
	return durable
}

// synced notes that everything is on disk.
func (l *ledger) synced() { l.open = l.open[:0] }

// settled reports whether everything is known to be on disk.
func (l *ledger) settled() bool { return len(l.open) == 0 }
