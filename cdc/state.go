package cdc

// State is what the store remembers of a response: what has already fired, and what is needed to tell the next event
// from an update that moves nothing. It is the whole memory of the classifier.
type State struct {
	Started   bool // the started marker was set at least once
	Completed bool // the finished marker was set at least once

	StartedNow  bool // the started marker as it stands
	FinishedNow bool // the finished marker as it stands

	// Stamp is the last finish stamp that was not NULL while finished; empty while there was none.
	Stamp string

	AssessmentID   string // empty: NULL
	OrganizationID *string
}

// Equal reports whether two states are the same.
func (s State) Equal(o State) bool {
	sameOrganization := s.OrganizationID == o.OrganizationID ||
		s.OrganizationID != nil && o.OrganizationID != nil && *s.OrganizationID == *o.OrganizationID
	s.OrganizationID, o.OrganizationID = nil, nil
	return sameOrganization && s == o
}
