package cdc

import (
	"time"

	"github.com/jackc/pglogrepl"
)

// EventType is one of the four events. Its number is stored; its String is the public name.
type EventType int16

// The event types, in the order in which the events of one row change fire.
const (
	Created   EventType = 1
	Started   EventType = 2
	Completed EventType = 3
	Changed   EventType = 4
)

// String returns the public name, such as "response.created".
func (t EventType) String() string {
	switch t {
	case Created:
		return "response.created"
	case Started:
		return "response.started"
	case Completed:
		return "response.completed"
	case Changed:
		return "response.changed"
	default:
		return "response.unknown"
	}
}

// Event is one event of one response, before it is matched to webhooks.
type Event struct {
	Type           EventType
	ResponseID     string
	AssessmentID   *string // nil if NULL
	OrganizationID *string // nil if NULL or not mapped
	FirstID        *string // the response's first key; nil if its key never changed

	// LSN and Ordinal identify the event: the commit LSN of its transaction, and the ordinal of its row change in
	// that transaction, counted from 1. Together with Type they are unique.
	LSN     pglogrepl.LSN
	Ordinal int64

	XID       uint32    // source transaction; 0 if it is known to be visible
	CommitAt  time.Time // when the source transaction committed
	Recovered bool      // fired by a reconciliation, not by the stream
}
