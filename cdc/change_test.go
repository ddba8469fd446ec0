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
