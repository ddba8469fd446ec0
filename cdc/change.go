package cdc

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pglogrepl"
)

// Kind is the operation that a Change performed on its row.
type Kind uint8

// The kinds of Change.
const (
	Insert Kind = iota + 1
	Update
	Delete
	Truncate
)

// Table identifies one of the mapped tables.
type Table uint8

// The mapped tables.
const (
	Respondent Table = iota + 1
	Assessment
)

// Mark is the state of a marker in a row image.
type Mark uint8

// The values of a Mark. MarkUnchanged is an unchanged TOASTed value, which the server does not send.
const (
	MarkUnset Mark = iota
	MarkSet
	MarkUnchanged
)

func (m Mark) not() Mark {
	switch m {
	case MarkUnset:
		return MarkSet
	case MarkSet:
		return MarkUnset
	default:
		return m
	}
}

// applyTo returns whether the marker is set after the change, given whether it was before.
func (m Mark) applyTo(before bool) bool {
	if m == MarkUnchanged {
		return before
	}
	return m == MarkSet
}

// Text is a column value in PostgreSQL's text output format.
//
// At most one of Null and Unchanged is true, and then Value is empty. Unchanged marks a TOASTed value that the update
// did not touch, which the server therefore did not send.
type Text struct {
	Value     string
	Null      bool
	Unchanged bool
}

// Trimmed returns the text without surrounding white space, which is NULL if nothing else is left. It decides what a
// blank external id is, in the stream and in a snapshot.
func (t Text) Trimmed() Text {
	t.Value = strings.TrimSpace(t.Value)
	t.Null = t.Value == "" && !t.Unchanged
	return t
}

// After returns the column's value after a change, given its value before it.
func (t Text) After(before Text) Text {
	if t.Unchanged {
		return before
	}
	return t
}

// maxName is how many characters of an assessment's name are stored.
const maxName = 200

// DisplayName returns the name of an assessment as a store in this encoding keeps it. A name is only displayed, so
// characters that the store might reject are replaced.
func (t Text) DisplayName(storeEncoding string) Text {
	unicode := storeEncoding == "UTF8" || storeEncoding == "SQL_ASCII"
	name := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || r >= utf8.RuneSelf && !unicode {
			return '?'
		}
		return r
	}, t.Trimmed().Value)
	if runes := []rune(name); len(runes) > maxName {
		name = string(runes[:maxName-1]) + "…"
		if !unicode {
			name = string(runes[:maxName])
		}
	}
	t.Value = name
	return t.Trimmed()
}

// applyTo returns the column's value after the change, given the value before it; nil is NULL.
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

// Row holds the mapped columns of a row image of either table. The decoder drops all other columns.
type Row struct {
	ID string // primary key in text form

	Organization Text // of either table; Null if no such column is mapped

	// Respondent only.
	Assessment Text
	Excluded   Mark // set if the row is no response
	Started    Mark
	Finished   Mark
	Stamps     []Stamp // one for each of Mapping.StampColumns; nil: all are NULL

	// Assessment only.
	ExternalID Text
	CopiedFrom Text // Null if no such column is mapped
	Name       Text // Null if no such column is mapped
}

// SetMark sets the state of a marker.
func (r *Row) SetMark(k MarkerKind, to Mark) {
	switch k {
	case WhereMarker:
		r.Excluded = to.not()
	case StartedMarker:
		r.Started = to
	case FinishedMarker:
		r.Finished = to
	}
}

// Mark returns the state of a marker.
func (r *Row) Mark(k MarkerKind) Mark {
	switch k {
	case WhereMarker:
		return r.Excluded.not()
	case StartedMarker:
		return r.Started
	default:
		return r.Finished
	}
}

// SetFlags sets the markers from the flags of the row's state.
func (r *Row) SetFlags(flags int16) {
	mark := func(flag int16) Mark {
		if flags&flag != 0 {
			return MarkSet
		}
		return MarkUnset
	}
	r.Excluded, r.Started, r.Finished = mark(FlagExcluded), mark(FlagStartedNow), mark(FlagFinishedNow)
}

// Change is one row change of a mapped table, in the order of the WAL.
type Change struct {
	Kind  Kind
	Table Table

	// New is the row after an Insert or Update. New.ID is also the key of a Delete. New is empty for a Truncate.
	New Row

	// KeyChanged reports that the update changed the key. OldID is the previous key, which may be an empty string.
	KeyChanged bool
	OldID      string
}

// PriorID returns the row's key before the change.
func (c *Change) PriorID() string {
	if c.KeyChanged {
		return c.OldID
	}
	return c.New.ID
}

// Tx identifies the source transaction of a change. It comes from the Begin message.
type Tx struct {
	XID       uint32
	CommitLSN pglogrepl.LSN // LSN of the commit record: Begin's final LSN
	CommitAt  time.Time
}

// Pointer returns the value, or nil if it is NULL or unchanged.
func (t Text) Pointer() *string {
	if t.Null || t.Unchanged {
		return nil
	}
	value := t.Value
	return &value
}
