package cdc

import "slices"

// Kinds of incidents, as they appear in walhook.incident and in metrics.
const (
	// Gaps that stop the stream. A reconciliation of the whole table closes each of them.
	SlotLost           = "slot_lost"           // the slot is gone or its WAL was removed
	SlotForeign        = "slot_foreign"        // a slot of that name exists, but it is not the one that was read before
	ServerRestored     = "server_restored"     // the server's WAL ends before the stored position, or it is another server
	PublicationChanged = "publication_changed" // dropped, emptied, or with fewer actions
	TableReplaced      = "table_replaced"      // another table has the mapped name
	ColumnMissing      = "column_missing"      // a mapped column is gone
	IdentityLost       = "replica_identity"    // a table lost its replica identity and is no longer published
	KeyRetyped         = "key_retyped"         // the recorded keys cannot be converted to the key's new type

	// Gaps that leave the slot intact. The table is reconciled at a point of the slot's stream.
	ColumnRetyped    = "column_retyped"    // the recorded state may not match a column's new type
	PartitionEmptied = "partition_emptied" // a partition was truncated, which PostgreSQL does not publish

	// Gaps once their cause has ended.
	KeyHidden     = "key_hidden"     // a replica identity lacks the key
	TableUnlogged = "table_unlogged" // the WAL lacks the changes of a table

	// Incidents that leave the stream intact and stay open until they are resolved.
	SetAside          = "set_aside"          // the store rejected a row
	PreconditionLost  = "precondition_lost"  // a precondition of attach no longer holds
	DeliveriesStopped = "deliveries_stopped" // something keeps a daemon from sending
	LogUpkeep         = "log_upkeep"         // the log cannot store results, create partitions or drop old ones
	Retention         = "retention"          // log entries stay longer than they should
	SwitchedOff       = "switched_off"       // an administrator turned the site's switch off
)

var (
	// GapKinds are the gaps that stop the stream.
	GapKinds = []string{
		SlotLost, SlotForeign, ServerRestored, PublicationChanged, TableReplaced, ColumnMissing, IdentityLost, KeyRetyped,
	}
	// SlotKeptKinds are the gaps that leave the slot intact.
	SlotKeptKinds = []string{ColumnRetyped, PartitionEmptied}
	// ReconciledKinds are the incidents that a reconciliation resolves.
	ReconciledKinds = slices.Concat(GapKinds, SlotKeptKinds, []string{KeyHidden, TableUnlogged})
	// IncidentKinds are the incidents that stay open until they are resolved. All other kinds are recorded once they
	// are over.
	IncidentKinds = slices.Concat(ReconciledKinds,
		[]string{SetAside, PreconditionLost, DeliveriesStopped, LogUpkeep, Retention, SwitchedOff})
)

// GapError reports that the stream may have missed changes, so that reconnecting is not enough.
type GapError struct {
	Kind   string // one of ReconciledKinds
	Detail string // a sentence for people
}

// KeepsSlot reports whether the slot survives the gap.
func (e *GapError) KeepsSlot() bool { return slices.Contains(SlotKeptKinds, e.Kind) }

func (e *GapError) Error() string { return e.Detail }
