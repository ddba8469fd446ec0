package cdc

import (
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"

	"walhook/cdc/condition"
)

// markOf returns the mark of a marker with one column for a value of that column.
func markOf(t *testing.T, m Marker, value Text, typeOID uint32) Mark {
	t.Helper()
	bound, err := m.Bind(map[string]condition.Type{m.Column: {OID: typeOID}})
	if err != nil {
		t.Fatal(err)
	}
	truth, err := bound.Eval(func(int) condition.Text { return condition.Text(value) })
	if err != nil {
		t.Fatal(err)
	}
	return MarkOf(truth)
}

func TestMarkerWithoutValues(t *testing.T) {
	t.Parallel()
	const enumOID = 16400
	for _, tt := range []struct {
		name       string
		typeOID    uint32
		set, unset []string
	}{
		{"boolean", pgtype.BoolOID, []string{"t"}, []string{"f"}},
		{"smallint", pgtype.Int2OID, []string{"1", "-1", "10"}, []string{"0"}},
		{"integer", pgtype.Int4OID, []string{"1", "100"}, []string{"0", "-0"}},
		{"bigint", pgtype.Int8OID, []string{"9223372036854775807"}, []string{"0"}},
		{"oid", pgtype.OIDOID, []string{"1"}, []string{"0"}},
		{"real", pgtype.Float4OID, []string{"0.1", "1e-45", "NaN", "Infinity", "-Infinity"}, []string{"0", "-0"}},
		{"double precision", pgtype.Float8OID, []string{"5e-324", "NaN"}, []string{"0", "-0", "0e10"}},
		{"numeric", pgtype.NumericOID, []string{"0.001", "-0.1", "NaN", "Infinity"}, []string{"0", "0.00", "0.0000000000", "0E-10"}},
		{"money", condition.MoneyOID, []string{"$0.01", "-$1.00", "kr1,00", "Esc 0.01"}, []string{"$0.00", "kr0,00", "0,00 kr", "CHF 0.00", "Esc 0.00", "Rs.0.00", "0,00 €", "0"}},
		{"bits", pgtype.BitOID, []string{"1", "010"}, []string{"0", "000"}},
		{"varying bits", pgtype.VarbitOID, []string{"1", "001"}, []string{"", "0", "00"}},
		{"date", pgtype.DateOID, []string{"2026-03-18", "infinity", "2000-01-01"}, nil},
		{"timestamp", pgtype.TimestampOID, []string{"2000-01-01 00:00:00", "-infinity"}, nil},
		{"timestamptz", pgtype.TimestamptzOID, []string{"1970-01-01 00:00:00+00"}, nil},
		{"midnight", pgtype.TimeOID, []string{"00:00:00"}, nil},
		{"midnight with zone", pgtype.TimetzOID, []string{"00:00:00+00"}, nil},
		{"uuid", pgtype.UUIDOID, []string{"00000000-0000-0000-0000-000000000000"}, nil},
		{"interval", pgtype.IntervalOID, []string{"00:00:01", "1 day", "-1 mons", "infinity"}, []string{"00:00:00"}},
		{"text", pgtype.TextOID, []string{"x", "f", "no", " ", "0.0", "true"}, []string{"", "false", "0"}},
		{"document in text", pgtype.TextOID, []string{`{"a":1}`, "{", "}", "[x]", "{]"}, []string{"{}", "[]", "[\n]"}},
		{"array", pgtype.TextArrayOID, []string{"{a}", "{{}}", `{""}`}, []string{"{}"}},
		{"varchar", pgtype.VarcharOID, []string{"done"}, []string{"", "false", "0"}},
		{"blank-padded", pgtype.BPCharOID, []string{"x   ", " x"}, []string{"", "    ", "0   ", "false "}},
		{"bytea", pgtype.ByteaOID, []string{`\x00`}, []string{`\x`}},
		{"json", pgtype.JSONOID, []string{"[0]", `{"":0}`, `"x"`, "1", "-0.5", "true", ` {"a":0} `}, []string{"null", "false", `""`, "0", "-0.0", "0e5", " 0 ", "{}", "[]", " { } "}},
		{"jsonb", pgtype.JSONBOID, []string{"[0]", `"0"`, "true", `["{}"]`}, []string{"null", "false", `""`, "0", "0.00", "{}", "[]"}},
		{"enum", enumOID, []string{"done"}, []string{"false"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := Marker{Column: "c"}
			for _, value := range tt.set {
				if markOf(t, m, text(value), tt.typeOID) != MarkSet {
					t.Errorf("%q is not set", value)
				}
			}
			for _, value := range tt.unset {
				if markOf(t, m, text(value), tt.typeOID) != MarkUnset {
					t.Errorf("%q is set", value)
				}
			}
			if markOf(t, m, null, tt.typeOID) != MarkUnset {
				t.Error("NULL is set")
			}
			if markOf(t, m, unchanged, tt.typeOID) != MarkUnchanged {
				t.Error("a value that was not sent is taken for one")
			}
		})
	}
}

func TestMarkerWithValues(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		marker  string
		typeOID uint32
		value   string
		want    Mark
	}{
		{"status=done", pgtype.TextOID, "done", MarkSet},
		{"status=done|closed", pgtype.TextOID, "closed", MarkSet},
		{"status=done|closed", pgtype.TextOID, "open", MarkUnset},
		{"status=done", pgtype.TextOID, "DONE", MarkUnset},
		{"status=done", pgtype.TextOID, "done ", MarkUnset},
		{"status=done", pgtype.TextOID, "", MarkUnset},
		{"status=done", pgtype.BPCharOID, "done      ", MarkSet},
		{"status=done |closed", pgtype.BPCharOID, "done      ", MarkSet},
		{"status=done", pgtype.BPCharOID, " done     ", MarkUnset},
		{"status=done |closed", pgtype.TextOID, "done", MarkSet}, // blanks around a value are none of it
		{"status=0|false", pgtype.TextOID, "0", MarkSet},         // named values are not judged
		{"status=0|false", pgtype.Int4OID, "0", MarkSet},
		{"status=2|3", pgtype.Int4OID, "3", MarkSet},
		{"status=2|3", pgtype.Int4OID, "1", MarkUnset},
		{"finished=true", pgtype.BoolOID, "t", MarkSet},
		{"finished=t", pgtype.BoolOID, "t", MarkSet},
		{"finished=true", pgtype.BoolOID, "f", MarkUnset},
		{"open=false", pgtype.BoolOID, "f", MarkSet},
		{"open=f", pgtype.BoolOID, "f", MarkSet},
		{"open=f", pgtype.BoolOID, "t", MarkUnset},
		{"open=false", pgtype.BoolOID, "t", MarkUnset},
		{"word=true", pgtype.TextOID, "t", MarkUnset},
	} {
		m, err := condition.Parse(tt.marker)
		if err != nil {
			t.Fatal(err)
		}
		if got := markOf(t, m, text(tt.value), tt.typeOID); got != tt.want {
			t.Errorf("%s with %q of type %d: %d", tt.marker, tt.value, tt.typeOID, got)
		}
		if markOf(t, m, null, tt.typeOID) != MarkUnset || markOf(t, m, unchanged, tt.typeOID) != MarkUnchanged {
			t.Errorf("%s: NULL or a value that was not sent is misread", tt.marker)
		}
	}
}

func TestAlwaysSetTypesAreSet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		typeOID, value := rapid.Uint32Range(0, 5000).Draw(t, "type"), rapid.String().Draw(t, "value")
		if condition.AlwaysSet(typeOID) && !condition.IsSet(value, typeOID) {
			t.Fatalf("type %d is always set, and %q is not", typeOID, value)
		}
	})
}
