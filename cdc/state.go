package cdc

// State is what the store remembers of a response: what has already fired, and what is needed to tell the next event
// from an update that moves nothing. It is the whole memory of the classifier.
type State struct {
	Started   bool // the started marker was set at least once
	Completed bool // the finished marker was set at least once

	StartedNow  bool // the started marker as it stands
	FinishedNow bool // the finished marker as it stands

	// Stamp is that of the last finish which has got one; empty where there is none, or where it was cleared before the finish that is
	// under way. AwaitsStamp says that the last finish has not got its own yet: the next new stamp is its, and fires nothing.
	Stamp       string
	AwaitsStamp bool

	// nil: NULL. An empty text is an id.
	AssessmentID, OrganizationID *string

	// FirstID is the first key that the response had, where it has changed: what is pending under former keys comes first. nil: it has not.
	FirstID *string
}

// Equal reports whether two states are the same.
func (s State) Equal(o State) bool {
	same := EqualText(s.AssessmentID, o.AssessmentID) && EqualText(s.OrganizationID, o.OrganizationID) && EqualText(s.FirstID, o.FirstID)
	s.AssessmentID, s.OrganizationID, s.FirstID = nil, nil, nil
	o.AssessmentID, o.OrganizationID, o.FirstID = nil, nil, nil
	return same && s == o
}

// EqualText reports whether both are nil, or the same text.
func EqualText(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }

// Flags returns the state as walhook.response_state.flags has it.
func (s *State) Flags() int16 {
	var flags int16
	for _, f := range []struct {
		set bool
		bit int16
	}{{s.Started, FlagStarted}, {s.Completed, FlagCompleted}, {s.StartedNow, FlagStartedNow}, {s.FinishedNow, FlagFinishedNow}, {s.AwaitsStamp, FlagAwaitsStamp}} {
		if f.set {
			flags |= f.bit
		}
	}
	return flags
}

// The bits of walhook.response_state.flags.
const (
	FlagStarted int16 = 1 << iota
	FlagCompleted
	FlagStartedNow
	FlagFinishedNow
	FlagAwaitsStamp
)
