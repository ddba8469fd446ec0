package cdc

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Queue turns events into deliveries inside the writer's store transaction.
//
// The writer calls Began before the first Add of a session, when no earlier writer is alive. Add appends the
// statements for some of the events to the batch, and may retain the events until the next Committed or Discarded.
// Exactly one of those follows, and concerns everything added since the previous such call. The context of Committed
// carries the transaction's span if traces are enabled.
type Queue struct {
	Began         func()
	Add           func(batch *pgx.Batch, events []Event)
	Committed     func(context.Context)
	Discarded     func()
	SetNumericKey func(numeric bool) // reports whether keys are JSON numbers from now on; may be nil
}

// ReportKeyType reports the key's type from now on.
func (q Queue) ReportKeyType(key ColumnType) {
	if q.SetNumericKey != nil {
		q.SetNumericKey(key.IsInteger())
	}
}
