package cdc

import "testing"

// Ids that SQL considers equal are stored as the same text.
func TestIDsWithoutTheirSpelling(t *testing.T) {
	t.Parallel()
	const int8, float8, numeric, text, bpchar, varchar, uuid = 20, 701, 1700, 25, 1042, 1043, 2950
	for _, c := range []struct {
		oid        uint32
		text, want string
	}{
		{int8, "170", "170"},
		{numeric, "170", "170"},
		{numeric, "17.00", "17"},
		{numeric, "-17.50", "-17.5"},
		{numeric, "0.00", "0"},
		{numeric, "NaN", "NaN"},
		{float8, "1e+20", "100000000000000000000"},
		{float8, "1.5e-07", "0.00000015"},
		{float8, "17", "17"},
		{float8, "-0", "0"},
		{float8, "Infinity", "Infinity"},
		{bpchar, "ab  ", "ab"},
		{bpchar, "    ", ""},
		{varchar, "ab  ", "ab  "},
		{text, " 17.00", " 17.00"},
		{uuid, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{70000, "17.00", "17.00"},
	} {
		if got := (ColumnType{c.oid, -1}).CanonicalID(c.text); got != c.want {
			t.Errorf("type %d: %q is stored as %q, not %q", c.oid, c.text, got, c.want)
		}
	}
}
