package sql

import (
	"fmt"
	"testing"

	"walhook/testenv"
)

// A test of a response that cannot exist is refused with a sentence, and queues nothing.
func TestImpossibleResponsesAreRefused(t *testing.T) {
	t.Parallel()
	database := installed(t)
	testenv.Exec(t, database, `insert into walhook.attachment (phase, system_identifier, database, slot, publication, publish, mapping, respondent_oid, assessment_oid, numeric_id)
		values ('attached', '1', 'd', 's', 'p', 'all', '{}', 1, 0, true)`)
	testenv.Exec(t, database, "insert into walhook.webhook (url, event_type) values ('https://example.com/', 'response.created')")
	for _, c := range []struct {
		oid      int
		numeric  bool
		id, says string // "": accepted
	}{
		{20, true, "9223372036854775808", "cannot be a key"},
		{20, true, "9999999999999999999", "cannot be a key"},
		{21, true, "40000", "cannot be a key"},
		{23, true, "2147483648", "cannot be a key"},
		{20, true, "1.5", "is not an integer"},
		{20, true, "", "is not an integer"},
		{20, true, "9223372036854775807", ""},
		{2950, false, "nonsense", "cannot be a key"},
		{2950, false, "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", ""},
		{1043, false, "longer than six", "cannot be a key"},
		{25, false, "anything", ""},
	} {
		testenv.Exec(t, database, fmt.Sprintf(`update walhook.attachment set numeric_id = %t,
			column_types = jsonb_build_object('key', jsonb_build_object('oid', %d, 'modifier', case when %[2]d = 1043 then 10 else -1 end))`, c.numeric, c.oid))
		call := fmt.Sprintf("select walhook.test_webhook(1, '%s')", c.id)
		if c.says != "" {
			refused(t, database, refusal{call, c.says})
		} else {
			testenv.Psql(t, database, call)
		}
	}
	if n := testenv.Psql(t, database, "select count(*) from walhook.queue"); n != "3" {
		t.Errorf("%s deliveries are queued, not 3", n)
	}
}

// An id that somebody writes becomes the one that its column compares as equal, or none.
func TestColumnIDs(t *testing.T) {
	t.Parallel()
	database := installed(t)
	if got := testenv.Psql(t, database, "select walhook.column_id('assessment', ' any ')"); got != " any " {
		t.Errorf("with nothing attached an id became %q", got)
	}
	testenv.Exec(t, database, `insert into walhook.attachment (phase, system_identifier, database, slot, publication, publish, mapping, respondent_oid, assessment_oid, numeric_id)
		values ('attached', '1', 'd', 's', 'p', 'all', '{}', 1, 0, true)`)
	const none = "none"
	numeric := func(precision, scale int) int { return precision<<16 + scale&2047 + 4 }
	for _, c := range []struct {
		role          string
		oid, modifier int
		id, want      string
	}{
		{"assessment", 20, -1, " 017 ", "17"},
		{"assessment", 20, -1, "17.0", "17"},
		{"assessment", 20, -1, "17.5", none},
		{"assessment", 20, -1, "9223372036854775808", none},
		{"assessment", 21, -1, "40000", none},
		{"assessment", 23, -1, "-5", "-5"},
		{"assessment", 23, -1, "2147483648", none},
		{"assessment", 23, -1, "", none},
		{"assessment", 23, -1, "x", none},
		{"assessment", 26, -1, "4294967295", "4294967295"},
		{"assessment", 26, -1, "-1", none},
		{"assessment", 1700, -1, "17.500", "17.5"},
		{"assessment", 1700, numeric(10, 2), "17", "17"},
		{"assessment", 1700, numeric(10, 2), "17.001", none},
		{"assessment", 1700, numeric(4, 2), "100", none},
		{"assessment", 1700, numeric(4, 2), "99.99", "99.99"},
		{"assessment", 1700, numeric(4, -2), "1200", "1200"},
		{"assessment", 1700, numeric(4, -2), "1250", none},
		{"assessment", 701, -1, "1e20", "100000000000000000000"},
		{"assessment", 701, -1, "1e9999999", none},
		{"assessment", 2950, -1, "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{"assessment", 2950, -1, "17", none},
		{"assessment", 1042, 12, "ab  ", "ab"},
		{"assessment", 1042, 6, "abc", none},
		{"assessment", 1043, 6, "abc", none},
		{"assessment", 1043, 7, "ab ", "ab "},
		{"assessment", 25, -1, " 17 ", " 17 "},
		{"assessment", 70000, -1, " 17 ", " 17 "},
		{"key", 1700, numeric(10, 2), "17", "17.00"},
		{"key", 1042, 8, "ab", "ab  "},
		{"key", 20, -1, " 17", "17"},
		{"key", 1043, 12, "ab ", "ab "},
	} {
		got := testenv.Psql(t, database, fmt.Sprintf(`update walhook.attachment set column_types = jsonb_build_object('%s', jsonb_build_object('oid', %d, 'modifier', %d));
			select '[' || coalesce(walhook.column_id('%[1]s', '%[4]s'), '%s') || ']'`, c.role, c.oid, c.modifier, c.id, none))
		if got != "["+c.want+"]" {
			t.Errorf("%s of type %d, modifier %d: %q is %s, not %q", c.role, c.oid, c.modifier, c.id, got, c.want)
		}
	}
}
