package cdc

import (
	"strings"
	"testing"
)

// Each column has its stamp, whatever the others are. A row whose columns are all NULL has none.
func TestStampsOfARow(t *testing.T) {
	t.Parallel()
	for name, values := range map[string][]Text{
		"the last": {null, text("x")}, "the first": {text("x"), null}, "not sent": {unchanged, null, text("x"), unchanged},
	} {
		stamps := NewStamps(len(values), &StampKey{}, func(i int) (Text, ColumnType) { return values[i], ColumnType{} })
		for i, value := range values {
			got := stamps[i].Stored
			if got.Null != value.Null || got.Unchanged != value.Unchanged || (got.Value != "") != (value.Value != "") {
				t.Errorf("%s: column %d is %+v", name, i+1, got)
			}
		}
	}
	if stamps := NewStamps(2, &StampKey{}, func(int) (Text, ColumnType) { return null, ColumnType{} }); stamps != nil {
		t.Errorf("columns that are all NULL have the stamps %+v", stamps)
	}
	none := Row{Stamps: []Stamp{{Stored: null}, {Stored: null}}}
	if stored := none.storedStamp(); stored != "" {
		t.Errorf("no stamp is stored as %q", stored)
	}
}

// A stamp of several columns is new if any of them has a new value.
func TestStampOfSeveralColumns(t *testing.T) {
	t.Parallel()
	type row struct {
		finished string
		a, b     Text
		fires    EventSet
	}
	for name, life := range map[string][]row{
		"one column after the other": {
			{"s", text("1"), null, events(Created, Completed)},
			{"s", text("1"), text("1"), events(Changed)}, // the first edit
			{"s", text("1"), text("2"), events(Changed)},
			{"s", unchanged, text("3"), events(Changed)},
			{"s", text("2"), unchanged, events(Changed)},
			{"s", text("2"), text("3"), 0},
			{"s", text("3"), text("4"), events(Changed)},
			{"s", unchanged, unchanged, 0},
		},
		"one is NULL for a while": {
			{"s", text("1"), text("1"), events(Created, Completed)},
			{"s", null, text("1"), 0},
			{"s", null, null, 0},
			{"s", text("1"), null, 0},
			{"s", null, text("2"), events(Changed)},
			{"s", text("1"), text("2"), 0},
		},
		"the stamp follows": {
			{"s", null, null, events(Created, Completed)},
			{"s", text("1"), null, 0},
			{"s", text("1"), text("1"), events(Changed)},
			{"-", text("1"), text("1"), 0},
			{"s", text("1"), text("1"), events(Changed)},
			{"s", text("1"), text("2"), 0},
			{"s", text("2"), text("2"), events(Changed)},
		},
		"reopened, and one is cleared": {
			{"s", text("1"), text("1"), events(Created, Completed)},
			{"-", null, text("1"), 0},
			{"s", text("1"), text("1"), events(Changed)},
			{"s", text("1"), text("2"), events(Changed)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var state *State
			for i, r := range life {
				c := updated("-", r.finished, null)
				c.New.Stamps = []Stamp{{Stored: r.a}, {Stored: r.b}}
				if r.a.Null && r.b.Null {
					c.New.Stamps = nil
				}
				var fired EventSet
				if state, fired = Classify(state, c); fired != r.fires {
					t.Fatalf("step %d fires %v, not %v", i+1, fired.Types(), r.fires.Types())
				}
			}
		})
	}
}

// Each column of a stamp has its own type, and may get another one.
func TestRetypedColumnOfAStamp(t *testing.T) {
	t.Parallel()
	row := func(a, b Stamp) Row { return Row{ID: "7", Finished: MarkSet, Stamps: []Stamp{a, b}} }
	of := func(oid uint32, value string) Stamp { return NewStamp(text(value), ColumnType{oid, -1}, testKey) }
	before := InitialState(row(of(23, "1"), of(25, "x")))
	for name, c := range map[string]struct {
		row   Row
		fires EventSet
	}{
		"the same":  {row(of(20, "1"), of(25, "x")), 0},
		"the first": {row(of(20, "2"), of(25, "x")), events(Changed)},
		"the other": {row(of(20, "1"), of(25, "y")), events(Changed)},
	} {
		next, fired := Classify(&before, Change{Kind: Update, New: c.row})
		if fired != c.fires || next.Stamp != c.row.storedStamp() {
			t.Errorf("%s: fires %v, state %+v", name, fired.Types(), next)
		}
	}
	moved := row(of(20, "2"), of(25, "y"))
	for all, want := range map[bool]string{true: "20:", false: "23:"} {
		state := before
		state.ReplaceRetypedStamps(&moved, all)
		if !strings.HasPrefix(state.Stamp, want) || !strings.HasSuffix(state.Stamp, of(25, "x").Stored.Value) {
			t.Errorf("all %v: %s", all, state.Stamp)
		}
	}
}

// Only a recorded stamp and a row's own of another type are replaced: all, or those that cannot be compared.
func TestReplaceRetypedStamps(t *testing.T) {
	t.Parallel()
	typed := func(oid uint32) Stamp { return NewStamp(text("x"), ColumnType{oid, -1}, testKey) }
	recorded, own := typed(23).Stored.Value, typed(20)
	for name, c := range map[string]struct {
		recorded string
		own      Stamp
		all      bool
		want     string
	}{
		"another type":                        {recorded, own, true, own.Stored.Value},
		"another type, which can be compared": {recorded, own, false, recorded},
		"another type, without its value":     {recorded, Stamp{Stored: own.Stored}, false, own.Stored.Value},
		"the same type":                       {recorded, typed(23), true, recorded},
		"none was recorded":                   {"", own, true, ""},
		"NULL now":                            {recorded, Stamp{Stored: null}, true, recorded},
		"not sent":                            {recorded, Stamp{Stored: unchanged}, true, recorded},
	} {
		state := State{Stamp: c.recorded}
		state.ReplaceRetypedStamps(&Row{Stamps: []Stamp{c.own}}, c.all)
		if state.Stamp != c.want {
			t.Errorf("%s: %q, not %q", name, state.Stamp, c.want)
		}
	}
	state := State{Stamp: recorded}
	if state.ReplaceRetypedStamps(&Row{}, true); state.Stamp != recorded {
		t.Errorf("a row without stamps leaves %q", state.Stamp)
	}
}

// Nobody can find a value by hashing guesses, or see that two installations have the same one.
func TestKeyedStampsDiffer(t *testing.T) {
	t.Parallel()
	kind := ColumnType{25, -1}
	one, other := NewStamp(text("yes"), kind, testKey).Stored.Value, NewStamp(text("yes"), kind, &StampKey{}).Stored.Value
	if one == other || strings.Contains(one, HashValue("yes")) || one != NewStamp(text("yes"), kind, testKey).Stored.Value {
		t.Errorf("with different keys %q and %q", one, other)
	}
	var key StampKey
	if err := key.UnmarshalText([]byte(`\x` + strings.Repeat("0a", 32))); err != nil || key[31] != 10 {
		t.Errorf("the key is %v, %v", key, err)
	}
	for _, bad := range []string{"", `\x`, strings.Repeat("0a", 33), `\x` + strings.Repeat("0g", 32)} {
		if err := key.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is a key", bad)
		}
	}
}
