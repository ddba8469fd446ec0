package cdc

import (
	"time"

	"github.com/jackc/pglogrepl"
)

// Kind tells what a Change did to its row.
type Kind uint8

// The kinds of Change.
const (
	Insert Kind = iota + 1
	Update
	Delete
	Truncate
)

// Table tells which of the mapped tables a Change belongs to.
type Table uint8

// The mapped tables.
const (
	Respondent Table = iota + 1
	Assessment
)

// Mark is what a row image says of a marker.
type Mark uint8

// The values of a Mark. MarkUnchanged stands for an unchanged TOASTed value that the server did not send.
const (
	MarkUnset Mark = iota
	MarkSet
	MarkUnchanged
)

// Text is a column value in PostgreSQL's text output format.
//
// Of Null and Unchanged at most one is true, and Value is empty when either is. Unchanged stands for a TOASTed value
// that the update did not touch and that the server therefore did not send.
type Text struct {
	Value     string
	Null      bool
	Unchanged bool
}

// applyTo returns what a column that was before has become, nil for NULL.
func (t Text) applyTo(before *string) *string {
	switch {
	case t.Unchanged:
		return before
	case t.Null:
		return nil
	case before != nil && *before == t.Value:
		return before
	}
	return new(t.Value)
}

// Row is the mapped part of a row image of either table; all other columns were dropped at the decoder.
type Row struct {
	ID string // primary key in text form

	// Respondent only.
	Assessment   Text
	Organization Text // Null where no organization column is mapped
	Started      Mark
	Finished     Mark
	Stamp        Text       // finish stamp as it is stored; Null where there is none
	StampValue   StampValue // what Stamp is of

	// Assessment only.
	ExternalID Text
	CopiedFrom Text // Null where no such column is mapped
}

// Change is one row change of a mapped table, in the order of the WAL.
type Change struct {
	Kind  Kind
	Table Table

	// New is the row after an Insert or Update; New.ID is also the key of a Delete. Empty for Truncate.
	New Row

	// Moved reports that the key changed: OldID is the one before, which may be an empty text.
	KeyChanged bool
	OldID      string
}

// PriorID returns the key of the row before the change.
func (c *Change) PriorID() string {
	if c.KeyChanged {
		return c.OldID
	}
	return c.New.ID
}

// Tx identifies the source transaction that a change belongs to, from the Begin message.
type Tx struct {
	XID       uint32
	CommitLSN pglogrepl.LSN // LSN of the commit record: Begin's final LSN
	CommitAt  time.Time
}

// Pointer returns the value, nil for NULL.
func (t Text) Pointer() *string {
	if t.Null || t.Unchanged {
		return nil
	}
	value := t.Value
	return &value
}
