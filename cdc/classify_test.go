package cdc

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// unchanged stands for a TOASTed value that the server did not send.
var unchanged = Text{Unchanged: true}

func text(value string) Text { return Text{Value: value} }

var null = Text{Null: true}

// image builds a row image from one letter per marker: "s" set, "-" unset, "?" not sent.
func image(started, finished string, stamp Text) Row {
	mark := map[string]Mark{"s": MarkSet, "-": MarkUnset, "?": MarkUnchanged}
	return Row{
		ID: "7", Assessment: text("a"), Organization: null, Started: mark[started], Finished: mark[finished],
		Stamps: stampsOf(stamp),
	}
}

// stampsOf returns the stamp of a mapping with one stamp column.
func stampsOf(stored Text) []Stamp {
	if stored.Null {
		return nil
	}
	return []Stamp{{Stored: stored}}
}

func inserted(started, finished string, stamp Text) Change {
	return Change{Kind: Insert, Table: Respondent, New: image(started, finished, stamp)}
}

func updated(started, finished string, stamp Text) Change {
	return Change{Kind: Update, Table: Respondent, New: image(started, finished, stamp)}
}

func events(types ...EventType) (fired EventSet) {
	for _, t := range types {
		fired.add(t)
	}
	return fired
}

// step is a change and the events that it must fire.
type step struct {
	change Change
	fires  EventSet
}

func TestClassifyFollowsALife(t *testing.T) {
	t.Parallel()
	deleted := Change{Kind: Delete, Table: Respondent, New: Row{ID: "7"}}
	truncated := Change{Kind: Truncate, Table: Respondent}
	for name, life := range map[string][]step{
		"all at once": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{updated("s", "s", text("x")), 0},
		},
		"one step at a time": {
			{inserted("-", "-", null), events(Created)},
			{updated("s", "-", null), events(Started)},
			{updated("s", "s", text("x")), events(Completed)},
			{updated("s", "s", text("y")), events(Changed)},
			{updated("s", "s", text("z")), events(Changed)},
		},
		"started and finished in one update": {
			{inserted("-", "-", null), events(Created)},
			{updated("s", "s", text("x")), events(Started, Completed)},
		},
		"inserted started": {
			{inserted("s", "-", null), events(Created, Started)},
			{updated("s", "s", text("x")), events(Completed)},
		},
		"inserted finished, never started": {
			{inserted("-", "s", text("x")), events(Created, Completed)},
			{updated("s", "s", text("x")), events(Started)},
		},
		"an update that moves no marker": {
			{inserted("s", "-", null), events(Created, Started)},
			{updated("s", "-", null), 0},
			{updated("s", "-", text("a stamp before the finish")), 0},
			{Change{Kind: Update, New: Row{ID: "7", Assessment: text("another"), Organization: text("o"), Started: MarkSet}}, 0},
		},
		"the started marker again and again": {
			{inserted("s", "-", null), events(Created, Started)},
			{updated("-", "-", null), 0},
			{updated("s", "-", null), 0},
		},
		"finish cleared, set again with the same stamp": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{updated("s", "-", null), 0},
			{updated("s", "s", text("x")), events(Changed)},
		},
		"finish cleared, set again with another stamp": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{updated("s", "-", null), 0},
			{updated("s", "s", text("y")), events(Changed)},
			{updated("s", "s", text("y")), 0},
		},
		"stamp X, NULL, X while finished": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{updated("s", "s", null), 0},
			{updated("s", "s", text("x")), 0},
		},
		"stamp X, NULL, Y while finished": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{updated("s", "s", null), 0},
			{updated("s", "s", text("y")), events(Changed)},
		},
		"the stamp follows a finish without one": {
			{inserted("s", "s", null), events(Created, Started, Completed)},
			{updated("s", "s", text("x")), 0},
			{updated("s", "s", text("y")), events(Changed)},
		},
		"the stamp moves while not finished": {
			{inserted("s", "-", text("x")), events(Created, Started)},
			{updated("s", "-", text("y")), 0},
			{updated("s", "s", text("y")), events(Completed)},
			{updated("s", "-", text("z")), 0},
			{updated("s", "s", text("z")), events(Changed)},
		},
		"a status without a stamp": {
			{inserted("-", "-", null), events(Created)},
			{updated("s", "s", null), events(Started, Completed)},
			{updated("s", "s", null), 0},
			{updated("s", "-", null), 0},
			{updated("s", "s", null), events(Changed)},
		},
		"a row never seen counts as inserted": {
			{updated("s", "-", null), events(Created, Started)},
			{updated("s", "s", text("x")), events(Completed)},
		},
		"a row never seen, of which nothing was sent": {
			{updated("?", "?", unchanged), events(Created)},
			{updated("s", "s", text("x")), events(Started, Completed)},
		},
		"deleted and inserted again": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{deleted, 0},
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
		},
		"truncated": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{truncated, 0},
			{inserted("-", "-", null), events(Created)},
		},
		"an insert under a key whose end was not seen": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{inserted("s", "-", null), events(Created, Started)},
		},
		"deleted though never seen": {
			{deleted, 0},
			{inserted("-", "-", null), events(Created)},
		},
		"started is not sent": {
			{inserted("s", "-", null), events(Created, Started)},
			{updated("?", "s", text("x")), events(Completed)},
			{updated("-", "s", text("x")), 0},
			{updated("?", "s", text("x")), 0},
		},
		"finished is not sent": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{updated("s", "?", text("x")), 0},
			{updated("s", "?", text("y")), events(Changed)},
			{updated("s", "-", null), 0},
			{updated("s", "?", text("z")), 0},
		},
		"the stamp is not sent": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{updated("s", "s", unchanged), 0},
			{updated("s", "-", unchanged), 0},
			{updated("s", "s", unchanged), events(Changed)},
			{updated("s", "s", text("x")), 0},
			{updated("s", "s", text("y")), 0}, // the stamp of the second finish
			{updated("s", "s", text("z")), events(Changed)},
		},
		"reopened with its stamp, and the new stamp follows the finish": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{updated("s", "-", text("x")), 0},
			{updated("s", "s", text("x")), events(Changed)},
			{updated("s", "s", text("y")), 0},
			{updated("s", "s", text("z")), events(Changed)},
			{updated("s", "-", text("z")), 0},
			{updated("s", "s", text("z")), events(Changed)},
			{updated("s", "s", text("z")), 0},
			{updated("s", "s", text("x")), 0},
			{updated("s", "s", text("y")), events(Changed)},
		},
		"reopened with its stamp, and the new stamp comes before the finish": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{updated("s", "-", text("x")), 0},
			{updated("s", "-", text("y")), 0},
			{updated("s", "s", text("y")), events(Changed)},
			{updated("s", "s", text("z")), events(Changed)},
		},
		"reopened with its stamp, and the new stamp comes with the finish": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{updated("s", "-", text("x")), 0},
			{updated("s", "s", text("y")), events(Changed)},
			{updated("s", "s", text("z")), events(Changed)},
		},
		"reopened twice before a stamp follows": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{updated("s", "-", text("x")), 0},
			{updated("s", "s", text("x")), events(Changed)},
			{updated("s", "-", text("x")), 0},
			{updated("s", "s", text("x")), events(Changed)},
			{updated("s", "s", text("y")), 0},
			{updated("s", "s", text("z")), events(Changed)},
		},
		"reopened without a stamp, and a new one follows the finish": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{updated("s", "-", null), 0},
			{updated("s", "s", null), events(Changed)},
			{updated("s", "s", text("y")), 0},
			{updated("s", "s", text("z")), events(Changed)},
		},
		"reopened without a stamp, and the former one follows the finish": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{updated("s", "-", null), 0},
			{updated("s", "s", null), events(Changed)},
			{updated("s", "s", text("x")), 0},
			{updated("s", "s", text("y")), events(Changed)},
		},
		"reopened with its stamp, which is cleared and written again after the finish": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{updated("s", "-", text("x")), 0},
			{updated("s", "s", text("x")), events(Changed)},
			{updated("s", "s", null), 0},
			{updated("s", "s", text("x")), 0},
			{updated("s", "s", text("y")), events(Changed)},
		},
		"the marker is its own stamp, and is set to what it was": {
			{inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{updated("s", "-", null), 0},
			{updated("s", "s", text("x")), events(Changed)},
			{updated("s", "s", text("y")), events(Changed)},
		},
		"an unknown kind of change": {
			{inserted("s", "-", null), events(Created, Started)},
			{Change{Kind: 9, New: image("s", "s", text("x"))}, 0},
			{updated("s", "s", text("x")), events(Completed)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var state *State
			for i, s := range life {
				var fired EventSet
				if state, fired = Classify(state, s.change); fired != s.fires {
					t.Fatalf("step %d fires %v, not %v", i+1, fired.Types(), s.fires.Types())
				}
			}
		})
	}
}

func TestEventsComeInTheOrderOfALife(t *testing.T) {
	t.Parallel()
	for fired, want := range map[EventSet]string{
		0:                                   "",
		events(Completed, Started, Created): "response.created response.started response.completed ",
		events(Changed, Started):            "response.started response.changed ",
	} {
		got := ""
		for _, event := range fired.Types() {
			got += event.String() + " "
		}
		if got != want {
			t.Errorf("%b are %q and not %q", fired, got, want)
		}
	}
}

func TestClassifyKeepsIdsThatAreNotSent(t *testing.T) {
	t.Parallel()
	before := &State{AssessmentID: new("a1"), OrganizationID: new("o1")}
	row := image("-", "-", null)

	row.Assessment, row.Organization = unchanged, unchanged
	next, fired := Classify(before, Change{Kind: Update, New: row})
	if fired != 0 || !next.Equal(*before) {
		t.Errorf("not sent: %+v fires %v", next, fired.Types())
	}
	row.Assessment, row.Organization = text("a2"), text("o2")
	next, fired = Classify(before, Change{Kind: Update, New: row})
	if fired != 0 || !next.Equal(State{AssessmentID: new("a2"), OrganizationID: new("o2")}) {
		t.Errorf("changed: %+v fires %v", next, fired.Types())
	}
	row.Assessment, row.Organization = null, null
	next, fired = Classify(before, Change{Kind: Update, New: row})
	if fired != 0 || next.AssessmentID != nil || next.OrganizationID != nil {
		t.Errorf("NULL: %+v fires %v", next, fired.Types())
	}
	if *before.AssessmentID != "a1" || *before.OrganizationID != "o1" {
		t.Errorf("the state before was changed to %+v", before)
	}
}

func TestExistingRowsFireOnlyWhatComesAfter(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		existing Row
		then     Change
		fires    EventSet
	}{
		"nothing moves":           {image("s", "s", text("x")), updated("s", "s", text("x")), 0},
		"finished again":          {image("s", "s", text("x")), updated("s", "s", text("y")), events(Changed)},
		"started, then finished":  {image("s", "-", null), updated("s", "s", text("x")), events(Completed)},
		"new, then all at once":   {image("-", "-", null), updated("s", "s", text("x")), events(Started, Completed)},
		"finished without stamp":  {image("s", "s", null), updated("s", "s", text("x")), 0},
		"finished, then reopened": {image("s", "s", text("x")), updated("s", "-", null), 0},
	} {
		state := InitialState(tt.existing)
		if _, fired := Classify(&state, tt.then); fired != tt.fires {
			t.Errorf("%s: fires %v, not %v", name, fired.Types(), tt.fires.Types())
		}
	}
}

func TestMissedFiresTheDifference(t *testing.T) {
	t.Parallel()
	recorded := InitialState(image("s", "-", null))
	for name, tt := range map[string]struct {
		recorded *State
		row      Row
		fires    EventSet
	}{
		"unknown":        {nil, image("s", "s", text("x")), events(Created, Started, Completed)},
		"as recorded":    {&recorded, image("s", "-", null), 0},
		"finished since": {&recorded, image("s", "s", text("x")), events(Completed)},
	} {
		state, fired := Missed(tt.recorded, tt.row)
		if fired != tt.fires {
			t.Errorf("%s: fires %v, not %v", name, fired.Types(), tt.fires.Types())
		}
		if _, again := Missed(&state, tt.row); again != 0 {
			t.Errorf("%s: compared once more it fires %v", name, again.Types())
		}
	}
}

// pastRow is a row as it was, and the events that it fired.
type pastRow struct {
	excluded, started, finished bool
	stamp                       string // empty: NULL
}

// naive derives the events of a row from its complete history by section 2 of the contract. Each finish has one
// stamp: the one that is there already, if no earlier finish has it, or else the first one that follows. An excluded
// row fires nothing, and one that is no longer excluded is a new response.
func naive(history []pastRow, row pastRow) (fired EventSet) {
	startedBefore, finished, completed, excluded := false, false, false, true
	stamped := "" // the stamp of the last finish, as long as it stands
	waits := false
	for i, now := range append(slices.Clone(history), row) {
		fires := EventType(0)
		news := now.stamp != "" && now.stamp != stamped
		switch {
		case !now.finished:
			waits = false
		case !finished || !completed:
			fires, waits = Completed, !news
			if completed {
				fires = Changed
			}
			completed = true
		case news && waits:
			waits = false
		case news:
			fires = Changed
		}
		if now.finished && news {
			stamped = now.stamp
		}
		if now.stamp == "" && (!now.finished || waits) {
			stamped = ""
		}
		finished = now.finished
		enters := excluded && !now.excluded
		excluded = now.excluded
		if enters {
			startedBefore, completed = false, now.finished
			if fires = 0; completed {
				fires = Completed
			}
		}
		if i == len(history) && !excluded {
			if enters {
				fired.add(Created)
			}
			if now.started && !startedBefore {
				fired.add(Started)
			}
			if fires != 0 {
				fired.add(fires)
			}
		}
		startedBefore = startedBefore || now.started
	}
	return fired
}

// drawImage returns a row image as the server may send it: unchanged values may be omitted if they are TOASTed. A
// stamp that arrived while nothing was finished is sent again with the finish, or else a short one would be
// forgotten.
func drawImage(t *rapid.T, history []pastRow, row pastRow, kind Kind) Change {
	mark := func(now, before bool, name string) Mark {
		switch {
		case kind == Update && len(history) > 0 && now == before && rapid.Bool().Draw(t, name+" not sent"):
			return MarkUnchanged
		case now:
			return MarkSet
		default:
			return MarkUnset
		}
	}
	var before pastRow
	if len(history) > 0 {
		before = history[len(history)-1]
	}
	c := Change{Kind: kind, New: Row{ID: "7", Assessment: text("a"), Organization: null}}
	c.New.Excluded = mark(row.excluded, before.excluded, "excluded")
	c.New.Started = mark(row.started, before.started, "started")
	c.New.Finished = mark(row.finished, before.finished, "finished")
	switch {
	case kind == Update && before.finished && row.stamp == before.stamp && row.stamp != "" && rapid.Bool().Draw(t, "stamp not sent"):
		c.New.Stamps = stampsOf(unchanged)
	case row.stamp != "":
		c.New.Stamps = stampsOf(text(row.stamp))
	}
	return c
}

func TestClassifyAgreesWithTheWholeHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var state *State
		var history []pastRow
		count := map[EventType]int{}
		for range rapid.IntRange(1, 30).Draw(t, "changes") {
			kind := rapid.SampledFrom([]Kind{Insert, Update, Update, Update, Update, Update, Update, Delete, Truncate}).
				Draw(t, "kind")
			if kind == Delete || kind == Truncate {
				next, fired := Classify(state, Change{Kind: kind, New: Row{ID: "7"}})
				if next != nil || fired != 0 {
					t.Fatalf("a delete leaves %+v and fires %v", next, fired.Types())
				}
				state, history = nil, nil
				clear(count)
				continue
			}
			if kind == Insert {
				history = nil
				clear(count)
			}
			row := pastRow{
				excluded: rapid.IntRange(0, 3).Draw(t, "excluded") == 0,
				started:  rapid.Bool().Draw(t, "started"),
				finished: rapid.Bool().Draw(t, "finished"),
				stamp:    rapid.SampledFrom([]string{"", "x", "y", "z"}).Draw(t, "stamp"),
			}
			if len(history) > 0 && rapid.Bool().Draw(t, "the same again") {
				row = history[len(history)-1]
			}
			same := len(history) > 0 && row == history[len(history)-1]

			next, fired := Classify(state, drawImage(t, history, row, kind))
			if want := naive(history, row); fired != want {
				t.Fatalf("after %+v the row %+v fires %v, not %v", history, row, fired.Types(), want.Types())
			}
			if same && fired != 0 {
				t.Fatalf("nothing moved and %v fires", fired.Types())
			}
			if fired.Has(Created) {
				clear(count)
			}
			for _, event := range fired.Types() {
				if count[event]++; event != Changed && count[event] > 1 {
					t.Fatalf("%v fires a second time", event)
				}
			}
			if fired.Has(Completed) && fired.Has(Changed) {
				t.Fatal("completed and changed at once")
			}
			history = append(history, row)
			state = next
		}
	})
}

// anyState draws a state with random flags and ids, including combinations that Classify never returns.
func anyState(t *rapid.T) State {
	s := State{
		Started: rapid.Bool().Draw(t, "started"), Completed: rapid.Bool().Draw(t, "completed"),
		StartedNow: rapid.Bool().Draw(t, "started now"), FinishedNow: rapid.Bool().Draw(t, "finished now"),
		AwaitsStamp: rapid.Bool().Draw(t, "awaits a stamp"), Excluded: rapid.Bool().Draw(t, "excluded"),
		Stamp: rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "stamp"),
	}
	if rapid.Bool().Draw(t, "has assessment") {
		s.AssessmentID = new(rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "assessment"))
	}
	if rapid.Bool().Draw(t, "has organization") {
		organization := rapid.SampledFrom([]string{"", "o", "p"}).Draw(t, "organization")
		s.OrganizationID = &organization
	}
	return s
}

func TestClassifyTakesAnyState(t *testing.T) {
	t.Parallel()
	texts := rapid.SampledFrom([]Text{unchanged, null, text(""), text("x"), text("y")})
	rapid.Check(t, func(t *rapid.T) {
		before := anyState(t)
		kept := before
		c := Change{
			Kind: Kind(rapid.IntRange(0, 5).Draw(t, "kind")),
			New: Row{
				Assessment: texts.Draw(
					t, "assessment",
				), Organization: texts.Draw(t, "organization"), Stamps: stampsOf(texts.Draw(t, "stamp")),
				Excluded: Mark(rapid.IntRange(0, 2).Draw(t, "excluded")),
				Started: Mark(
					rapid.IntRange(0, 2).Draw(t, "started"),
				), Finished: Mark(rapid.IntRange(0, 2).Draw(t, "finished")),
			},
		}
		next, fired := Classify(&before, c)
		Missed(&before, c.New)
		if !before.Equal(kept) {
			t.Fatalf("the state before was changed from %+v to %+v", kept, before)
		}
		if same := next == &before; c.Kind == Update && same != next.Equal(kept) || same && fired != 0 {
			t.Fatalf("the state before is returned: %t, for %+v, which fires %v", same, next, fired.Types())
		}
		if next == nil {
			return
		}
		if c.Kind == Update && !next.FinishedNow && next.AwaitsStamp {
			t.Fatalf("an unfinished response awaits a stamp: %+v", next)
		}
		if next.Excluded && fired != 0 {
			t.Fatalf("an excluded row fires %v", fired.Types())
		}
		if c.Kind == Update && !before.Excluded && (before.Started && !next.Started || before.Completed && !next.Completed) {
			t.Fatalf("%+v forgets what had fired: %+v", before, next)
		}
		if fired != 0 && c.Kind == Update {
			once, again := Classify(next, c)
			if again != 0 || !once.Equal(*next) {
				t.Fatalf("the same update fires %v once more and leads from %+v to %+v", again.Types(), next, once)
			}
		}
	})
}

// States that this version never records are taken as they most likely were meant: a finish that fired nothing fires with
// the next update, and the first stamp after a finish without one belongs to it.
func TestClassifyCompletesAState(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		state State
		row   Change
		fires EventSet
	}{
		"finished, but not completed":         {State{FinishedNow: true}, updated("-", "s", unchanged), events(Completed)},
		"completed without a stamp":           {State{Completed: true, FinishedNow: true}, updated("-", "s", text("x")), 0},
		"completed with another stamp before": {State{Completed: true, FinishedNow: true, Stamp: "y"}, updated("-", "s", text("x")), events(Changed)},
	} {
		next, fired := Classify(&c.state, c.row)
		if fired != c.fires || !next.Completed {
			t.Errorf("%s: fires %v and leads to %+v", name, fired.Types(), next)
		}
		if _, again := Classify(next, c.row); again != 0 {
			t.Errorf("%s: fires %v once more", name, again.Types())
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	state := InitialState(image("s", "s", text("2026-03-18 18:44:09+00")))
	c := updated("s", "s", text("2026-03-18 18:44:09+00"))
	b.ReportAllocs()
	for b.Loop() {
		if _, fired := Classify(&state, c); fired != 0 {
			b.Fatal("an uneventful update fires")
		}
	}
}

// A response that was reopened before walhook saw it keeps its stamp. Its next finish is one, though the new stamp follows
// later.
func TestReopenedBeforeItWasSeen(t *testing.T) {
	t.Parallel()
	reopened := image("s", "-", text("x"))
	missed, fired := Missed(nil, reopened)
	if fired != events(Created, Started) {
		t.Errorf("a comparison fires %v", fired.Types())
	}
	known, fired := Missed(&State{Started: true, StartedNow: true}, reopened)
	if fired != 0 {
		t.Errorf("a comparison of a known response fires %v", fired.Types())
	}
	for name, seen := range map[string]State{"attach": InitialState(reopened), "comparison": missed, "comparison of a known response": known} {
		state := &seen
		for _, step := range []struct {
			does  string
			then  Change
			fires EventSet
		}{
			{"nothing", updated("s", "-", text("x")), 0},
			{"finish", updated("s", "s", text("x")), events(Completed)},
			{"its stamp", updated("s", "s", text("y")), 0},
			{"a further finish", updated("s", "s", text("z")), events(Changed)},
		} {
			var fired EventSet
			if state, fired = Classify(state, step.then); fired != step.fires {
				t.Errorf("%s: %s fires %v, not %v", name, step.does, fired.Types(), step.fires.Types())
			}
		}
		seen = InitialState(reopened)
		if _, fired := Classify(&seen, updated("s", "s", text("y"))); fired != events(Completed) {
			t.Errorf("%s: marker and stamp at once fire %v", name, fired.Types())
		}
	}
}

// A row that begins to be a response fires what a row inserted with its values would, also for values that the WAL omits.
func TestRowsEnterAndLeave(t *testing.T) {
	t.Parallel()
	mark := map[string]Mark{"in": MarkUnset, "out": MarkSet, "?": MarkUnchanged}
	for name, life := range map[string][]struct {
		row    string
		change Change
		fires  EventSet
	}{
		"finished outside, all values omitted": {
			{"out", inserted("s", "s", text("x")), 0},
			{"in", updated("?", "?", unchanged), events(Created, Started, Completed)},
			{"in", updated("s", "s", text("x")), 0},
			{"in", updated("s", "s", text("y")), events(Changed)},
		},
		"started and finished once, but not when it enters": {
			{"out", inserted("s", "s", text("x")), 0},
			{"out", updated("-", "-", text("x")), 0},
			{"in", updated("-", "-", text("x")), events(Created)},
			{"in", updated("s", "s", text("x")), events(Started, Completed)},
			{"in", updated("s", "s", text("y")), 0}, // its stamp
			{"in", updated("s", "s", text("z")), events(Changed)},
		},
		"finished outside, its stamp follows inside": {
			{"out", inserted("-", "s", null), 0},
			{"in", updated("-", "s", null), events(Created, Completed)},
			{"in", updated("-", "s", text("x")), 0},
		},
		"leaves and comes back": {
			{"in", inserted("s", "s", text("x")), events(Created, Started, Completed)},
			{"out", updated("s", "s", text("y")), 0},
			{"out", updated("s", "s", text("z")), 0},
			{"in", updated("?", "?", unchanged), events(Created, Started, Completed)},
			{"in", updated("s", "s", text("z")), 0},
		},
		"unknown": {
			{"in", inserted("-", "-", null), events(Created)},
			{"?", updated("s", "-", null), events(Started)},
			{"out", updated("s", "-", null), 0},
			{"?", updated("s", "s", text("x")), 0},
			{"in", updated("s", "s", text("x")), events(Created, Started, Completed)},
		},
		"never seen, and unknown": {
			{"?", updated("s", "s", text("x")), 0},
			{"in", updated("s", "s", text("x")), events(Created, Started, Completed)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var state *State
			for i, s := range life {
				var fired EventSet
				s.change.New.Excluded = mark[s.row]
				if state, fired = Classify(state, s.change); fired != s.fires {
					t.Fatalf("step %d fires %v, not %v", i+1, fired.Types(), s.fires.Types())
				}
			}
		})
	}
	row := image("s", "s", text("x"))
	row.Excluded = MarkSet
	for name, state := range map[string]State{"attach": InitialState(row), "comparison": missedOf(row)} {
		row.Excluded = MarkUnset
		if _, fired := Missed(&state, row); !state.Excluded || fired != events(Created, Started, Completed) {
			t.Errorf("seen first by %s: %+v, then fires %v", name, state, fired.Types())
		}
	}
}

func missedOf(row Row) State {
	state, _ := Missed(nil, row)
	return state
}

// Moving to another mapping fires nothing for what the rows show, and forgets nothing that has happened.
func TestRemapped(t *testing.T) {
	t.Parallel()
	excluded := func(r Row) Row {
		r.Excluded = MarkSet
		return r
	}
	now := image("s", "s", text("2"))
	for name, c := range map[string]struct {
		before *State
		shows  Row        // under the new mapping
		then   []Row      // later changes
		fires  []EventSet // by each
	}{
		"finished as before": {
			&State{Started: true, StartedNow: true, Completed: true, FinishedNow: true, Stamp: "1"}, now,
			[]Row{now, image("s", "s", text("3"))},
			[]EventSet{0, events(Changed)},
		},
		"finished before, not under the new mapping": {
			&State{Started: true, Completed: true, FinishedNow: true, Stamp: "1"}, image("-", "-", null),
			[]Row{image("s", "-", null), image("s", "s", text("3"))},
			[]EventSet{0, events(Changed)},
		},
		"finished under the new mapping alone": {
			&State{}, now, []Row{image("s", "-", text("2")), image("s", "s", text("3"))}, []EventSet{0, events(Changed)},
		},
		"neither started nor finished": {
			&State{}, image("-", "-", null), []Row{now}, []EventSet{events(Started, Completed)},
		},
		"no response before": {
			&State{Excluded: true, Started: true, Completed: true}, image("-", "-", null), []Row{now}, []EventSet{events(Started, Completed)},
		},
		"no response now": {
			&State{Started: true, Completed: true}, excluded(now), []Row{now}, []EventSet{events(Created, Started, Completed)},
		},
		"its stamp is still to come": {
			&State{Completed: true, FinishedNow: true, AwaitsStamp: true, Stamp: "2"}, now,
			[]Row{image("s", "s", text("3")), image("s", "s", text("4"))},
			[]EventSet{0, events(Changed)},
		},
		"unknown": {nil, now, []Row{now}, []EventSet{0}},
	} {
		state := new(Remapped(c.before, c.shows))
		for i := range c.then {
			var fired EventSet
			if state, fired = Classify(state, Change{Kind: Update, Table: Respondent, New: c.then[i]}); fired != c.fires[i] {
				t.Errorf("%s: change %d fires %v, want %v", name, i+1, fired.Types(), c.fires[i].Types())
			}
		}
	}
	if state := Remapped(&State{FirstID: new("1")}, now); *state.FirstID != "1" {
		t.Error("the first key is lost")
	}
}
