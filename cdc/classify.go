package cdc

// EventSet are the events of one row change.
type EventSet uint8

// Has reports whether the event is among them.
func (f EventSet) Has(t EventType) bool { return f&(1<<t) != 0 }

// Types returns them in the order in which they fire.
func (f EventSet) Types() []EventType {
	if f == 0 {
		return nil
	}
	types := make([]EventType, 0, 3)
	for t := Created; t <= Changed; t++ {
		if f.Has(t) {
			types = append(types, t)
		}
	}
	return types
}

func (f *EventSet) add(t EventType) { *f |= 1 << t }

// Classify tells what a change of a respondent row fires and what is remembered afterwards. It is a pure function and takes
// any input. prev is nil for a response that was never seen, next is nil for one that is forgotten.
//
// A change of the key (Moved) says nothing here: the caller passes the state under the old key and keeps the result under
// the new one.
func Classify(prev *State, c Change) (next *State, fired EventSet) {
	switch c.Kind {
	case Insert:
		prev = nil // what was there before under this key is another row
	case Update:
	case Delete, Truncate:
		return nil, 0
	default:
		return prev, 0
	}
	return follow(prev, &c.New)
}

// InitialState is the state of a row found at attach: what already happened to it fires nothing.
func InitialState(row Row) State {
	state, _ := follow(nil, &row)
	return *state
}

// Missed tells what a comparison of a row with the recorded state must fire, and what is remembered afterwards.
func Missed(prev *State, row Row) (State, EventSet) {
	state, fired := follow(prev, &row)
	return *state, fired
}

// follow takes a row image over into the state. A row never seen counts as created.
func follow(prev *State, row *Row) (*State, EventSet) {
	var fired EventSet
	next := State{}
	if prev == nil {
		fired.add(Created)
	} else {
		next = *prev
	}

	next.Stamp = row.currentStamp(next.Stamp)
	next.AssessmentID = row.Assessment.applyTo(next.AssessmentID)
	next.OrganizationID = row.Organization.applyTo(next.OrganizationID)

	if row.Started != MarkUnchanged {
		next.StartedNow = row.Started == MarkSet
	}
	if next.StartedNow && !next.Started {
		next.Started = true
		fired.add(Started)
	}

	wasFinished := next.FinishedNow
	if row.Finished != MarkUnchanged {
		next.FinishedNow = row.Finished == MarkSet
	}
	newFinish := next.FinishedNow && !(wasFinished && next.Completed)
	newStamp := !row.Stamp.Null && !row.Stamp.Unchanged && row.Stamp.Value != next.Stamp
	awaited := next.AwaitsStamp || next.Stamp == ""
	switch {
	case !next.FinishedNow:
		next.AwaitsStamp = false
	case newFinish:
		if next.Completed {
			fired.add(Changed)
		} else {
			fired.add(Completed)
		}
		next.Completed, next.AwaitsStamp = true, !newStamp
	case newStamp && awaited:
		next.AwaitsStamp = false // it belongs to the finish before it
	case newStamp:
		fired.add(Changed)
	}
	switch {
	case next.FinishedNow && newStamp:
		next.Stamp = row.Stamp.Value
	case row.Stamp.Null && (!next.FinishedNow || next.AwaitsStamp):
		next.Stamp = "" // what is written now is a new stamp, also where it is the former one
	}
	return &next, fired
}
