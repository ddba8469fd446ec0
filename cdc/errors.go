package cdc

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// Kinds of gaps and incidents, as they appear in walhook.incident and in metrics.
const (
	SlotLost           = "slot_lost"           // the slot is gone or its WAL was removed
	SlotForeign        = "slot_foreign"        // a slot of that name exists, but it is not the one that was read before
	ServerRestored     = "server_restored"     // the server's WAL ends before the stored position, or it is another server
	PublicationChanged = "publication_changed" // dropped, emptied, or with fewer actions
	TableReplaced      = "table_replaced"      // another table has the mapped name
	ColumnMissing      = "column_missing"      // a mapped column is gone
	IdentityLost       = "replica_identity"    // a table lost its replica identity and is no longer published
	DeliveriesStopped  = "deliveries_stopped"  // something keeps a daemon from sending
	LogUpkeep          = "log_upkeep"          // the log cannot store results, create partitions or drop old ones
	SwitchedOff        = "switched_off"        // an administrator turned the site's switch off
	PartitionEmptied   = "partition_emptied"   // a partition was truncated, which PostgreSQL does not publish
	KeyHidden          = "key_hidden"          // a replica identity lacks the key; it becomes a gap once the key is back
)

// GapKinds are the gaps that stop the stream. A reconciliation of the whole table closes each of them.
var GapKinds = []string{
	SlotLost, SlotForeign, ServerRestored, PublicationChanged, TableReplaced, ColumnMissing, IdentityLost, KeyRetyped,
}

// SlotKeptKinds are gaps that leave the slot intact. The table is reconciled at a point of the slot's stream.
var SlotKeptKinds = []string{ColumnRetyped, PartitionEmptied}

var (
	// ReconciledKinds are the incidents that a reconciliation resolves.
	ReconciledKinds = append(append(slices.Clone(GapKinds), KeyHidden), SlotKeptKinds...)
	// IncidentKinds are the incidents that stay open until they are resolved. All other kinds are recorded once they
	// are over.
	IncidentKinds = append(
		[]string{"retention", SwitchedOff, SetAside, PreconditionLost, DeliveriesStopped, LogUpkeep},
		ReconciledKinds...)
)

// GapError reports that the stream may have missed changes, so that reconnecting is not enough.
type GapError struct {
	Kind   string // one of the kinds above
	Detail string // a sentence for people
}

// KeepsSlot reports whether the slot survives the gap.
func (e *GapError) KeepsSlot() bool { return slices.Contains(SlotKeptKinds, e.Kind) }

func (e *GapError) Error() string { return e.Detail }

// FatalError reports that retrying cannot help until somebody changes the configuration or the database.
type FatalError struct{ Err error }

func (e *FatalError) Error() string { return e.Err.Error() }

func (e *FatalError) Unwrap() error { return e.Err }

// Fatalf returns a *FatalError.
func Fatalf(format string, args ...any) error { return &FatalError{Err: fmt.Errorf(format, args...)} }

// SQLState returns the SQLSTATE of a server's error, or "" if err is not one.
func SQLState(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}

// IsRejected reports whether the store rejected the data itself, so that a retry would fail in the same way: a data
// exception, a constraint violation or a limit of the server (SQLSTATE classes 22, 23 and 54).
func IsRejected(err error) bool {
	state := SQLState(err)
	return strings.HasPrefix(state, "22") || strings.HasPrefix(state, "23") || strings.HasPrefix(state, "54")
}

// SetAside is the kind of incident that names a row which the store rejected.
const SetAside = "set_aside"

// PreconditionLost is the kind of incident that names a precondition of attach that no longer holds. The stream
// continues without it, until the table has to be reconciled.
const PreconditionLost = "precondition_lost"

// ColumnRetyped is the kind of gap that a mapped column's new type makes. The stream continues, and the table is
// reconciled so that the recorded state matches the new types.
const ColumnRetyped = "column_retyped"

// KeyRetyped is the kind of gap that a new type of the key makes if the recorded keys cannot be converted to it.
const KeyRetyped = "key_retyped"

// IsEncodingError reports whether the store's encoding cannot represent a text.
func IsEncodingError(err error) bool {
	state := SQLState(err)
	return state == pgerrcode.CharacterNotInRepertoire || state == pgerrcode.UntranslatableCharacter
}
