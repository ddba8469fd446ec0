package cdc

import "testing"

// A blank text is NULL, and one that the server did not send is not.
func TestTrimmed(t *testing.T) {
	t.Parallel()
	for from, want := range map[Text]Text{
		{}:                 {Null: true},
		text(" \t\n"):      {Null: true},
		text("\u00a0 x\n"): text("x"),
		null:               null,
		unchanged:          unchanged,
	} {
		if got := from.Trimmed(); got != want {
			t.Errorf("%+v becomes %+v", from, got)
		}
	}
}

// Only a value has a pointer to it.
func TestPointer(t *testing.T) {
	t.Parallel()
	for _, none := range []Text{null, unchanged} {
		if got := none.Pointer(); got != nil {
			t.Errorf("%+v has the value %q", none, *got)
		}
	}
	for _, value := range []string{"", "x"} {
		if got := text(value).Pointer(); got == nil || *got != value {
			t.Errorf("%q has the value %v", value, got)
		}
	}
}

// A change whose key changed concerns the row that had the old one, even if that is empty.
func TestPriorID(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]Change{
		"7": {New: Row{ID: "7"}, OldID: "5"}, "5": {New: Row{ID: "7"}, KeyChanged: true, OldID: "5"}, "": {New: Row{ID: "7"}, KeyChanged: true},
	} {
		if got := c.PriorID(); got != want {
			t.Errorf("%+v concerns %q", c, got)
		}
	}
}

// A row's markers are those of its recorded flags.
func TestRowFlags(t *testing.T) {
	t.Parallel()
	for flags, want := range map[int16]Row{
		0:               {},
		FlagExcluded:    {Excluded: MarkSet},
		FlagStartedNow:  {Started: MarkSet},
		FlagFinishedNow: {Finished: MarkSet},
		FlagStarted | FlagCompleted | FlagAwaitsStamp: {},
	} {
		got := Row{Excluded: MarkUnchanged, Started: MarkUnchanged, Finished: MarkUnchanged}
		if got.SetFlags(flags); got.Excluded != want.Excluded || got.Started != want.Started || got.Finished != want.Finished {
			t.Errorf("flags %b lead to %+v", flags, got)
		}
	}
}

// A row's stamps as they are stored lead back to the same stamps.
func TestSetStoredStamp(t *testing.T) {
	t.Parallel()
	var row Row
	row.SetStoredStamp("23:a,", 2)
	if len(row.Stamps) != 2 || row.Stamps[0].Stored != text("23:a") || row.Stamps[1].Stored != null {
		t.Errorf("the stamps are %+v", row.Stamps)
	}
	if stored := row.storedStamp(); stored != "23:a," {
		t.Errorf("they are stored as %q", stored)
	}
}
