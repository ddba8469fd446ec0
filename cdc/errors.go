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
	SlotForeign        = "slot_foreign"        // a slot of that name exists and is not the one that was read so far
	ServerRestored     = "server_restored"     // the server's WAL ends before the stored position, or it is another server
	PublicationChanged = "publication_changed" // dropped, emptied, or with fewer actions
	TableReplaced      = "table_replaced"      // another table stands under the mapped name
	ColumnMissing      = "column_missing"      // a mapped column is gone
	IdentityLost       = "replica_identity"    // a table lost its replica identity, and is published no more
	DeliveriesStopped  = "deliveries_stopped"  // something keeps a daemon from sending
	LogUpkeep          = "log_upkeep"          // the log takes no results, gets no partitions or loses no old ones
	SwitchedOff        = "switched_off"        // the site's switch, by an administrator
	PartitionEmptied   = "partition_emptied"   // a partition was truncated, which is not published
	KeyHidden          = "key_hidden"          // a replica identity lacks the key; a gap only once it has it again
)

// GapKinds are those at which the stream stops: a comparison of the whole table closes every gap.
var GapKinds = []string{SlotLost, SlotForeign, ServerRestored, PublicationChanged, TableReplaced, ColumnMissing, IdentityLost, KeyRetyped}

// SlotKeptKinds are gaps that the slot does not have: it is kept, and the table is compared at a point of its stream.
var SlotKeptKinds = []string{ColumnRetyped, PartitionEmptied}

// ReconciledKinds are what a comparison is the end of.
var (
	ReconciledKinds = append(append(slices.Clone(GapKinds), KeyHidden), SlotKeptKinds...)
	// IncidentKinds are the kinds of incidents that last until they are resolved. Others are noted when they are over.
	IncidentKinds = append([]string{"retention", SwitchedOff, SetAside, PreconditionLost, DeliveriesStopped, LogUpkeep}, ReconciledKinds...)
)

// GapError tells that the stream may have missed something: it is not enough to connect again.
type GapError struct {
	Kind   string // one of the kinds above
	Detail string // a sentence for people
}

// KeepsSlot reports whether the slot is kept.
func (e *GapError) KeepsSlot() bool { return slices.Contains(SlotKeptKinds, e.Kind) }

func (e *GapError) Error() string { return e.Detail }

// FatalError tells that trying again cannot help until somebody changes the configuration or the database.
type FatalError struct{ Err error }

func (e *FatalError) Error() string { return e.Err.Error() }

func (e *FatalError) Unwrap() error { return e.Err }

// Fatalf returns a *FatalError.
func Fatalf(format string, args ...any) error { return &FatalError{Err: fmt.Errorf(format, args...)} }

// SQLState returns the SQLSTATE of a server's error, or "".
func SQLState(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}

// IsRejected reports whether the store refused what it was given, and would refuse it again: a data exception, a violated constraint
// or a limit of the server (classes 22, 23 and 54 of SQLSTATE).
func IsRejected(err error) bool {
	state := SQLState(err)
	return strings.HasPrefix(state, "22") || strings.HasPrefix(state, "23") || strings.HasPrefix(state, "54")
}

// SetAside is the kind of incident that names a row which the store cannot take.
const SetAside = "set_aside"

// PreconditionLost is the kind of incident that names what attach required and holds no more. The stream goes on without it, until the
// table has to be compared.
const PreconditionLost = "precondition_lost"

// ColumnRetyped is the kind of gap that a mapped column with another type is: the stream goes on, and the table is compared, so that
// what was stored of the rows is of their columns as they are now.
const ColumnRetyped = "column_retyped"

// KeyRetyped is the kind of gap that a new type of the key is where rows cannot be told apart any more.
const KeyRetyped = "key_retyped"

// IsEncodingError reports whether the store's encoding cannot hold a text.
func IsEncodingError(err error) bool {
	state := SQLState(err)
	return state == pgerrcode.CharacterNotInRepertoire || state == pgerrcode.UntranslatableCharacter
}
