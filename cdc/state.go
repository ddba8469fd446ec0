package cdc

// State is what the store remembers of a response: the events that have fired, and what is needed to tell the next
// event from an update that changes nothing. It is the classifier's only memory.
type State struct {
	Started   bool // the started marker was set at least once
	Completed bool // the finished marker was set at least once

	StartedNow  bool // the started marker's current state
	FinishedNow bool // the finished marker's current state

	// Excluded reports that the row is no response (Mapping.Where). Its state is only kept for the case that it becomes
	// one: the WAL may then omit long values.
	Excluded bool

	// Stamp belongs to the last finish that has one. It is empty if there is none, or if it was cleared before the
	// current finish. AwaitsStamp reports that the last finish has no stamp yet: the next new stamp belongs to it,
	// and fires nothing.
	Stamp       string
	AwaitsStamp bool

	// nil is NULL. An empty string is an id.
	AssessmentID, OrganizationID *string

	// FirstID is the response's first key, nil if the key never changed. Deliveries that are pending under former
	// keys come first.
	FirstID *string
}

// Equal reports whether two states are the same.
func (s State) Equal(o State) bool {
	same := EqualText(s.AssessmentID, o.AssessmentID) && EqualText(s.OrganizationID, o.OrganizationID) &&
		EqualText(s.FirstID, o.FirstID)
	s.AssessmentID, s.OrganizationID, s.FirstID = nil, nil, nil
	o.AssessmentID, o.OrganizationID, o.FirstID = nil, nil, nil
	return same && s == o
}

// EqualText reports whether both are nil or point to the same text.
func EqualText(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }

// Flags encodes the state as walhook.response_state.flags.
func (s *State) Flags() int16 {
	var flags int16
	for i, set := range s.flags() {
		if *set {
			flags |= 1 << i
		}
	}
	return flags
}

// SetFlags decodes walhook.response_state.flags.
func (s *State) SetFlags(flags int16) {
	for i, set := range s.flags() {
		*set = flags&(1<<i) != 0
	}
}

// flags returns what the bits of the flags stand for, in their order.
func (s *State) flags() [6]*bool {
	return [...]*bool{&s.Started, &s.Completed, &s.StartedNow, &s.FinishedNow, &s.AwaitsStamp, &s.Excluded}
}

// The bits of walhook.response_state.flags. walhook.has_flag in sql/code/12_events.sql knows some of them.
const (
	FlagStarted int16 = 1 << iota
	FlagCompleted
	FlagStartedNow
	FlagFinishedNow
	FlagAwaitsStamp
	FlagExcluded
)

// RowFlags are the flags that describe the row as it is.
const RowFlags = FlagStartedNow | FlagFinishedNow | FlagExcluded
