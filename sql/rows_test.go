package sql

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"walhook/testenv"
)

// The server reads each value of a row as it was meant, NULL where there is none.
func TestRowsArriveAsTheyWereMeant(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, installed(t))
	if err := RegisterTypes(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	at := time.Date(1999, 12, 31, 23, 59, 59, 123456789, time.UTC)
	events := NewRows()
	defer events.Release()
	for _, id := range []string{"", "ünï'\"\\\t\n☃", strings.Repeat("x", 100_000)} {
		organization := id + "!"
		events.Row()
		events.Text(id)
		events.TextOrNull(id)
		events.NullableText(&organization)
		events.Int2(-3)
		events.LSNOrNull(0xFEDCBA98_76543210)
		events.Int8(-1 << 63)
		events.Int8OrNull(1 << 40)
		events.TimeOrNull(at)
		events.Int2(1<<15 - 1)
		events.NullableText(new("first"))
	}
	events.Row()
	events.Text("nothing")
	events.TextOrNull("")
	events.NullableText(nil)
	events.Int2(0)
	events.LSNOrNull(0)
	events.Int8(0)
	events.Int8OrNull(0)
	events.TimeOrNull(time.Time{})
	events.Int2(0)
	events.NullableText(nil)
	const show = `select coalesce(string_agg(concat_ws('|', md5(u.response_id), coalesce(md5(u.assessment_id), '-'), coalesce(md5(u.organization_id), '-'),
		u.event_type, coalesce(u.lsn::text, '-'), u.ordinal, coalesce(u.xid::text, '-'), coalesce((extract(epoch from u.committed_at) * 1000000)::bigint::text, '-'), u.kind, coalesce(u.first_id, '-')), E'\n' order by u.n), '')
		from unnest($1::walhook.event_in[]) with ordinality as u (response_id, assessment_id, organization_id, event_type, lsn, ordinal, xid, committed_at, kind, first_id, n)`
	var got, sum string
	if err := conn.QueryRow(t.Context(), show, events).Scan(&got); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, id := range []string{"", "ünï'\"\\\t\n☃", strings.Repeat("x", 100_000)} {
		line := ""
		for _, text := range []string{id, id, id + "!"} {
			if err := conn.QueryRow(t.Context(), "select md5($1::text)", text).Scan(&sum); err != nil {
				t.Fatal(err)
			}
			if text == "" && line != "" {
				sum = "-"
			}
			line += sum + "|"
		}
		want = append(want, line+fmt.Sprintf("-3|FEDCBA98/76543210|-9223372036854775808|1099511627776|%d|32767|first", at.UnixMicro()))
	}
	if err := conn.QueryRow(t.Context(), "select md5('nothing')").Scan(&sum); err != nil {
		t.Fatal(err)
	}
	want = append(want, sum+"|-|-|0|-|0|-|-|0|-")
	if diff := cmp.Diff(want, strings.Split(got, "\n")); diff != "" {
		t.Errorf("the server read (-want +got):\n%s", diff)
	}

	results := NewRows()
	defer results.Release()
	for _, succeeded := range []bool{true, false} {
		results.Row()
		results.Int8(7)
		results.Int4(-1 << 31)
		results.Bool(succeeded)
		results.Int4(200)
		results.Text("no")
		results.Int4(1)
		results.Int4(2)
		results.Int8(3)
		results.Bool(!succeeded)
	}
	if err := conn.QueryRow(t.Context(), "select string_agg(u::text, ' ') from unnest($1::walhook.result_in[]) as u", results).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if got != "(7,-2147483648,t,200,no,1,2,3,f) (7,-2147483648,f,200,no,1,2,3,t)" {
		t.Errorf("the server read %s", got)
	}

	if err := testenv.Connect(t, conn.Config().ConnString()).QueryRow(t.Context(), "select $1::walhook.result_in[]", results).Scan(&got); err == nil || !strings.Contains(err.Error(), "encode 2 rows") {
		t.Errorf("where the types are not known, sending two rows ends with %v", err)
	}

	if err := conn.QueryRow(t.Context(), "select 'none: ' || cardinality($1::walhook.state_in[])", NewRows()).Scan(&got); err != nil || got != "none: 0" {
		t.Errorf("no rows are %q, %v", got, err)
	}
}
