package cdc

import (
	"testing"

	"pgregory.net/rapid"
)

func TestStatesAreEqualWhenNothingDiffers(t *testing.T) {
	t.Parallel()
	state := State{
		Started: true, Completed: true, StartedNow: true, FinishedNow: true, AwaitsStamp: true, Excluded: true, Stamp: "x", AssessmentID: new("a"), OrganizationID: new("o"),
		FirstID: new("1"),
	}
	same := state
	same.AssessmentID, same.OrganizationID, same.FirstID = new("a"), new("o"), new("1")
	if !state.Equal(same) || !(State{}).Equal(State{}) {
		t.Error("the same state is another")
	}
	for name, change := range map[string]func(*State){
		"started":              func(s *State) { s.Started = false },
		"completed":            func(s *State) { s.Completed = false },
		"started now":          func(s *State) { s.StartedNow = false },
		"finished now":         func(s *State) { s.FinishedNow = false },
		"awaits a stamp":       func(s *State) { s.AwaitsStamp = false },
		"excluded":             func(s *State) { s.Excluded = false },
		"stamp":                func(s *State) { s.Stamp = "" },
		"another assessment":   func(s *State) { s.AssessmentID = new("b") },
		"no assessment":        func(s *State) { s.AssessmentID = nil },
		"empty assessment":     func(s *State) { s.AssessmentID = new("") },
		"another organization": func(s *State) { s.OrganizationID = new("p") },
		"no organization":      func(s *State) { s.OrganizationID = nil },
		"empty organization":   func(s *State) { s.OrganizationID = new("") },
		"another first key":    func(s *State) { s.FirstID = new("2") },
		"the first key":        func(s *State) { s.FirstID = nil },
	} {
		other := same
		change(&other)
		if state.Equal(other) || other.Equal(state) {
			t.Errorf("%s: another state is the same", name)
		}
	}
}

func TestStateSaysHowTheMarkersStand(t *testing.T) {
	t.Parallel()
	var state *State
	for i, s := range []struct {
		change            Change
		started, finished bool
	}{
		{inserted("-", "-", null), false, false},
		{updated("s", "-", null), true, false},
		{updated("?", "s", text("x")), true, true},
		{updated("-", "?", unchanged), false, true},
		{updated("?", "-", null), false, false},
		{updated("?", "?", unchanged), false, false},
	} {
		state, _ = Classify(state, s.change)
		if state.StartedNow != s.started || state.FinishedNow != s.finished {
			t.Errorf("step %d: %+v", i+1, state)
		}
	}
	if !state.Started || !state.Completed {
		t.Errorf("what had fired is forgotten: %+v", state)
	}
}

// A killed daemon continues from the stored state: wherever the history is cut, the rest fires the same events.
func TestReplayFromAStoredStateFiresTheSame(t *testing.T) {
	t.Parallel()
	marks := rapid.SampledFrom([]string{"s", "-", "?"})
	stamps := rapid.SampledFrom([]Text{unchanged, null, text("x"), text("y")})
	rapid.Check(t, func(t *rapid.T) {
		before := anyState(t)
		var changes []Change
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			c := updated(marks.Draw(t, "started"), marks.Draw(t, "finished"), stamps.Draw(t, "stamp"))
			c.New.Excluded = Mark(rapid.IntRange(0, 2).Draw(t, "excluded"))
			c.Kind = rapid.SampledFrom([]Kind{Update, Update, Update, Insert, Delete}).Draw(t, "kind")
			c.New.Organization = stamps.Draw(t, "organization")
			changes = append(changes, c)
		}
		states, fired := []*State{&before}, []EventSet{}
		for _, c := range changes {
			next, f := Classify(states[len(states)-1], c)
			states, fired = append(states, next), append(fired, f)
		}
		from := rapid.IntRange(0, len(changes)-1).Draw(t, "from")
		state := stored(states[from])
		for i := from; i < len(changes); i++ {
			var f EventSet
			if state, f = Classify(state, changes[i]); f != fired[i] {
				t.Fatalf("change %d fires %v, and from the stored state %v", i+1, fired[i].Types(), f.Types())
			}
			if want := states[i+1]; (state == nil) != (want == nil) || want != nil && !want.Equal(*state) {
				t.Fatalf("change %d leads to %+v, and from the stored state to %+v", i+1, want, state)
			}
			state = stored(state)
		}
	})
}

// stored returns a copy of a state that shares no memory with it.
func stored(s *State) *State {
	if s == nil {
		return nil
	}
	again := *s
	if s.AssessmentID != nil {
		again.AssessmentID = new(*s.AssessmentID)
	}
	if s.OrganizationID != nil {
		organization := *s.OrganizationID
		again.OrganizationID = &organization
	}
	return &again
}
