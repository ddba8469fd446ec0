package cdc

import "testing"

var testKey = &StampKey{1, 2, 3}

// encoded returns a value's stamp as it is stored.
func encoded(t ColumnType, value string) string {
	return NewStamp(text(value), t, testKey).Stored.Value
}

// stampFrom returns the image of a finished row with a stamp.
func stampFrom(t ColumnType, value string) Row {
	return Row{
		ID: "7", Finished: MarkSet, Started: MarkSet, Stamps: []Stamp{NewStamp(text(value), t, testKey)},
	}
}

// Stamps are compared by value across column types, and only a certain difference counts as a change.
func TestStampsAreComparedByValue(t *testing.T) {
	t.Parallel()
	of := func(oid uint32) ColumnType { return ColumnType{oid, -1} }
	limited := func(oid uint32, modifier int32) ColumnType { return ColumnType{oid, modifier} }
	numeric := func(precision, scale int32) ColumnType { return ColumnType{1700, precision<<16 + scale + 4} }
	const (
		boolean, int4, int8, float4, float8 = 16, 23, 20, 700, 701
		text, bpchar, varchar               = 25, 1042, 1043
		date, timestamp, timestamptz        = 1082, 1114, 1184
		jsonb, json, uuid, enum             = 3802, 114, 2950, 70000
	)
	for _, c := range []struct {
		before      ColumnType
		value       string
		now         ColumnType
		same, other string // values of now; other empty: nothing is certain
	}{
		{of(timestamp), "2026-03-18 18:44:09.5", of(timestamptz), "2026-03-18 17:44:09.5+00", "2026-03-18 17:44:10.5+00"},
		{of(timestamptz), "2026-03-18 18:44:09+00", of(timestamp), "2026-03-18 18:44:09", "2026-04-18 18:44:09"},
		{of(timestamptz), "2026-01-01 00:00:00+00", of(timestamp), "2026-01-01 05:45:00", "2026-01-02 05:45:00"},
		{of(date), "2026-03-18", of(timestamp), "2026-03-18 00:00:00", "2026-03-18 09:00:00"},
		{of(date), "2026-03-18", of(timestamptz), "2026-03-17 23:00:00+00", "2026-03-19 23:00:00+00"},
		{of(timestamp), "2026-03-18 18:44:09", of(date), "2026-03-18", ""},
		{of(timestamp), "2026-03-18 18:44:09.5", limited(timestamp, 0), "2026-03-18 18:44:10", ""},
		{limited(timestamptz, 0), "2026-03-18 18:44:09+00", of(timestamptz), "2026-03-18 18:44:09+00", "2026-03-18 18:44:09.1+00"},
		{of(timestamptz), "infinity", of(timestamp), "infinity", "2026-03-18 18:44:09"},
		{of(int4), "100", of(int8), "100", "101"},
		{of(int4), "100", numeric(12, 2), "100.00", "100.01"},
		{numeric(10, 0), "17", numeric(12, 2), "17.00", "18.00"},
		{numeric(12, 2), "17.50", of(1700), "17.50", "17.51"},
		{of(1700), "17.500", numeric(12, 2), "17.50", ""},
		{of(int4), "0", of(float8), "-0", "1"},
		{of(int8), "100000000000000000000", of(float8), "1e+20", "1e+21"},
		{of(float4), "0.1", of(float8), "0.10000000149011612", "0.2"},
		{of(float8), "0.1", of(float4), "0.1", ""},
		{of(int4), "17", of(text), "17", "18"},
		{numeric(12, 2), "17.50", of(text), "17.50", "17.51"},
		{of(text), "17", of(int4), "17", ""},
		{limited(varchar, 14), "a", of(text), "a", "b"},
		{limited(bpchar, 12), "a       ", of(text), "a", "b"},
		{of(text), "a", limited(bpchar, 12), "a       ", "b       "},
		{of(text), "", limited(varchar, 14), "", "b"},
		{of(enum), "done", of(text), "done", "over"},
		{of(text), "done", of(enum), "done", ""},
		{of(json), `{"a": 1.0, "b": ["x"]}`, of(jsonb), `{"b": ["x"], "a": 1}`, `{"b": ["1"], "a": 1}`},
		{of(uuid), "6f9619ff-8b86-d011-b42d-00cf4fc964ff", of(text), "6f9619ff-8b86-d011-b42d-00cf4fc964ff", "x"},
		{of(text), "6F9619FF-8B86-D011-B42D-00CF4FC964FF", of(uuid), "6f9619ff-8b86-d011-b42d-00cf4fc964ff", ""},
		{of(boolean), "t", of(int4), "1", "0"},
		{of(boolean), "t", of(text), "true", "false"},
		{of(int4), "1", of(boolean), "t", ""},
	} {
		before := InitialState(stampFrom(c.before, c.value))
		for _, value := range []string{c.same, c.other} {
			next, fired := Classify(&before, Change{Kind: Update, New: stampFrom(c.now, value)})
			if want := value == c.other && value != c.same && c.other != ""; fired.Has(Changed) != want {
				t.Errorf("%v %q became %v %q: fires %v, not %v", c.before, c.value, c.now, value, fired.Types(), want)
			}
			if want := encoded(c.now, value); next.Stamp != want {
				t.Errorf(
					"%v %q became %v %q: the stamp is %q, not %q", c.before, c.value, c.now, value, next.Stamp, want,
				)
			}
			if value == "" {
				break
			}
			// From here on every change counts.
			if _, fired := Classify(next, Change{Kind: Update, New: stampFrom(c.now, value+"9")}); !fired.Has(Changed) {
				t.Errorf("%v %q became %v %q: a change afterwards does not fire", c.before, c.value, c.now, value)
			}
		}
	}
}

// Within one type, only another value is a change, not another spelling of the same value.
func TestSpellingsOfOneValue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		oid         uint32
		same, other []string
	}{
		{1700, []string{"17", "17.0", "17.00"}, []string{"170", "1.7", "-17", "NaN", "Infinity"}},
		{701, []string{"0", "-0"}, []string{"1e-07"}},
		{1042, []string{"a", "a  "}, []string{" a", "b"}},
		{25, []string{"a"}, []string{"a ", "A", ""}},
		{3802, []string{`{"a": 1, "b": 2}`}, []string{`{"a": 2, "b": 1}`, `{"a": "1", "b": 2}`, `{"a": "#1e0", "b": 2}`}},
		{114, []string{`{"a": 1, "b": 2}`, `{"b":2.0,"a":1}`}, []string{`[]`}},
	} {
		kind := ColumnType{c.oid, -1}
		first := encoded(kind, c.same[0])
		for _, value := range c.same {
			if encoded(kind, value) != first {
				t.Errorf("type %d: %q is not %q", c.oid, value, c.same[0])
			}
		}
		for _, value := range c.other {
			if encoded(kind, value) == first {
				t.Errorf("type %d: %q is %q", c.oid, value, c.same[0])
			}
		}
	}
}

// Stamps that were stored without a type are compared as far as possible.
func TestStampsWithoutTypes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text  string
		now   ColumnType
		value string
		fires bool
	}{
		{"2026-03-18 18:44:09+00", ColumnType{1184, -1}, "2026-03-18 18:44:09+00", false},
		{"2026-03-18 18:44:09+00", ColumnType{1184, -1}, "2026-03-18 18:44:10+00", true},
		{"2026-03-18 18:44:09", ColumnType{1184, -1}, "2026-03-18 17:44:09+00", false},
		{"2026-03-18 18:44:09+00", ColumnType{1114, -1}, "2026-03-18 20:44:09", false},
		{"17", ColumnType{20, -1}, "17", false},
		{"17", ColumnType{20, -1}, "18", true},
	} {
		before := InitialState(stampFrom(c.now, "x"))
		before.Stamp = legacyType + ":" + testKey.hash(c.text)
		if _, fired := Classify(&before, Change{Kind: Update, New: stampFrom(c.now, c.value)}); fired.Has(
			Changed,
		) != c.fires {
			t.Errorf("%q became %v %q: fires %v, not %v", c.text, c.now, c.value, fired.Types(), c.fires)
		}
	}
}
