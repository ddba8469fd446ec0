package cdc

import (
	"fmt"

	"github.com/jackc/pglogrepl"
)

// Position is how far the stream has been consumed. It is written in the same store transaction as what was consumed,
// so after any crash it says exactly which changes to skip.
type Position struct {
	// LSN is the end of the last transaction that was consumed completely. Every transaction whose commit record lies
	// before LSN has been consumed.
	LSN pglogrepl.LSN

	// Partial is the commit LSN of a later transaction, of which the first PartialChanges row changes have been
	// consumed. Both are 0 between transactions.
	Partial        pglogrepl.LSN
	PartialChanges int64
}

func (p Position) String() string {
	if p.Partial == 0 {
		return p.LSN.String()
	}
	return fmt.Sprintf("%s+%d of %s", p.LSN, p.PartialChanges, p.Partial)
}

// Skip returns how many row changes of the transaction have been consumed; all reports that every one has.
func (p Position) Skip(commit pglogrepl.LSN) (changes int64, all bool) {
	switch {
	case commit < p.LSN:
		return 0, true
	case commit == p.Partial:
		return p.PartialChanges, false
	default:
		return 0, false
	}
}

// AdvanceTo returns the position after every transaction that commits before end has been consumed. It keeps the
// partial count of a transaction that commits later: after a restart the server reports its own progress before it
// sends that transaction again.
func (p Position) AdvanceTo(end pglogrepl.LSN) Position {
	p.LSN = max(p.LSN, end)
	if p.Partial < p.LSN {
		p.Partial, p.PartialChanges = 0, 0
	}
	return p
}

// NullableLSN returns the LSN as a query argument: NULL if it is 0.
func NullableLSN(lsn pglogrepl.LSN) any {
	if lsn == 0 {
		return nil
	}
	return lsn.String()
}
