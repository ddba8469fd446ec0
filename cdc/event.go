package cdc

import (
	"time"

	"github.com/jackc/pglogrepl"
)

// EventType is one of the events. Its number is stored; its String is the public name. sql/code/12_events.sql has the
// same names, in the same order.
type EventType int16

// The event types, in the order in which the events of one row change fire.
const (
	Created EventType = iota + 1
	Started
	Completed
	Changed
)

var eventNames = [...]string{
	Created:   "response.created",
	Started:   "response.started",
	Completed: "response.completed",
	Changed:   "response.changed",
}

// EventTypeLimit is one more than the greatest EventType.
const EventTypeLimit = len(eventNames)

// EventTypes yields all event types in their order.
func EventTypes(yield func(EventType) bool) {
	for t := Created; int(t) < EventTypeLimit && yield(t); t++ {
	}
}

// String returns the public name, such as "response.created".
func (t EventType) String() string {
	if t < Created || int(t) >= EventTypeLimit {
		return "response.unknown"
	}
	return eventNames[t]
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
