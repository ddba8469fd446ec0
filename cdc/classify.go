package cdc

import "slices"

// EventSet is the set of events that one row change fires.
type EventSet uint8

// Has reports whether the set contains the event.
func (f EventSet) Has(t EventType) bool { return f&(1<<t) != 0 }

// Types returns the events in the order in which they fire.
func (f EventSet) Types() []EventType {
	if f == 0 {
		return nil
	}
	types := make([]EventType, 0, 3)
	for t := range EventTypes {
		if f.Has(t) {
			types = append(types, t)
		}
	}
	return types
}

func (f *EventSet) add(t EventType) { *f |= 1 << t }

// Classify returns a response's next state and the events that a change of its row fires. It is a pure function and
// accepts any input. A nil prev is a response that was never seen; a nil next is one to forget. If nothing changes,
// next is prev itself, so nobody may modify it.
//
// Classify ignores a change of the key (KeyChanged): the caller passes the state under the old key and stores the
// result under the new one.
func Classify(prev *State, c Change) (next *State, fired EventSet) {
	switch c.Kind {
	case Insert:
		prev = nil // a row that had this key before was another one
	case Update:
	case Delete, Truncate:
		return nil, 0
	default:
		return prev, 0
	}
	return follow(prev, &c.New)
}

// InitialState returns the state of a row that exists at attach. Its past fires nothing.
func InitialState(row Row) State {
	state, _ := firstSeen(&row)
	return *state
}

// Remapped returns the state of a row under another mapping than that of prev. What the row shows fires nothing, and
// what has happened under the former mapping stays so.
func Remapped(prev *State, row Row) State {
	next := InitialState(row)
	if prev != nil {
		next.FirstID = prev.FirstID
		if !prev.Excluded {
			next.Started, next.Completed = next.Started || prev.Started, next.Completed || prev.Completed
			if prev.AwaitsStamp && prev.Stamp != "" && prev.Stamp == next.Stamp {
				next.AwaitsStamp = next.FinishedNow // the row still shows the stamp of an earlier finish
			}
		}
	}
	return next
}

// firstSeen is follow for a row whose history is unknown. A stamp without the finished marker belongs to an earlier
// finish: the response was reopened, and its next finish may keep that stamp for a while.
func firstSeen(row *Row) (*State, EventSet) {
	state, fired := follow(nil, row)
	state.Stamp = row.storedStamp()
	return state, fired
}

// Missed returns the events that are missing from the recorded state of a row, and the row's new state. A
// reconciliation fires them. Its stamps are Unchanged if no change of the row was missed.
func Missed(prev *State, row Row) (State, EventSet) {
	if prev == nil {
		state, fired := firstSeen(&row)
		return *state, fired
	}
	followed, fired := follow(prev, &row)
	next := *followed
	omitted := func(s Stamp) bool { return s.Stored.Unchanged }
	if !next.FinishedNow && !slices.ContainsFunc(row.Stamps, omitted) {
		next.Stamp = row.storedStamp() // as in firstSeen: it was finished and reopened meanwhile
	}
	return next, fired
}

// follow applies a row image to a state. It is the one rule that attach, stream and reconciliation share. A row that
// was never seen counts as created.
func follow(prev *State, row *Row) (*State, EventSet) {
	if prev == nil && row.Excluded == MarkUnchanged {
		return nil, 0 // nobody knows whether it is a response
	}
	next, fired := advance(prev, row)
	switch {
	case next.Excluded:
		return next, 0
	case prev != nil && prev.Excluded:
		return next, next.begin()
	}
	return next, fired
}

// begin makes an excluded row a response, and returns the events that a row inserted with its values would fire.
func (s *State) begin() (fired EventSet) {
	s.Started, s.Completed = s.StartedNow, s.FinishedNow
	fired.add(Created)
	if s.Started {
		fired.add(Started)
	}
	if s.Completed {
		fired.add(Completed)
	}
	return fired
}

// advance follows markers, ids and stamp, whether the row is a response or not.
func advance(prev *State, row *Row) (*State, EventSet) {
	var fired EventSet
	next := State{}
	if prev == nil {
		fired.add(Created)
	} else {
		next = *prev
	}

	next.AssessmentID = row.Assessment.applyTo(next.AssessmentID)
	next.OrganizationID = row.Organization.applyTo(next.OrganizationID)

	next.Excluded = row.Excluded.applyTo(next.Excluded)
	next.StartedNow = row.Started.applyTo(next.StartedNow)
	if next.StartedNow && !next.Started {
		next.Started = true
		fired.add(Started)
	}

	wasFinished := next.FinishedNow
	next.FinishedNow = row.Finished.applyTo(next.FinishedNow)
	newFinish := !wasFinished || !next.Completed
	var room [4]string
	stamps, newStamp := splitStamp(room[:0], next.Stamp, len(row.Stamps)), false
	for i := range row.Stamps {
		stamps[i] = row.Stamps[i].current(stamps[i])
		newStamp = newStamp || row.Stamps[i].hasNew(stamps[i])
	}
	awaited := next.AwaitsStamp || !isStamped(stamps)
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
		next.AwaitsStamp = false // the stamp of the preceding finish
	case newStamp:
		fired.add(Changed)
	}
	clears := !next.FinishedNow || next.AwaitsStamp // the next stamp is new, even if it equals the former one
	for i := range row.Stamps {
		switch now := &row.Stamps[i].Stored; {
		case now.Null && clears:
			stamps[i] = ""
		case next.FinishedNow && !now.Null && !now.Unchanged:
			stamps[i] = now.Value
		}
	}
	switch {
	case len(stamps) > 1:
		next.Stamp = joinStamp(stamps)
	case len(stamps) == 1:
		next.Stamp = stamps[0]
	case clears:
		next.Stamp = ""
	}
	if prev != nil && next.Equal(*prev) {
		return prev, fired // without memory for what most changes are
	}
	changed := next
	return &changed, fired
}
