package cdc

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Queue is how events become deliveries inside the writer's transaction. Add queues its statements on the batch, for a
// part of the events at a time, which it may keep until then; Committed or Discarded tells what became of all that was added
// since the last such call. Began is
// called before the first Add of a session, when no other writer lives any more. The context of Committed holds the span of the
// transaction, where traces are taken.
type Queue struct {
	Began         func()
	Add           func(batch *pgx.Batch, events []Event)
	Committed     func(context.Context)
	Discarded     func()
	SetNumericKey func(numeric bool) // tells whether the key is a JSON number from here on; nil: nobody asks
}

// ReportKeyType tells of the type that the key has from here on.
func (q Queue) ReportKeyType(key ColumnType) {
	if q.SetNumericKey != nil {
		q.SetNumericKey(key.IsInteger())
	}
}
