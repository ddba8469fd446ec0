package sql

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"walhook/cdc"
	"walhook/testenv"
)

// The server reads each value of a row unchanged, NULL if there is none.
func TestRowsArriveAsTheyWereMeant(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, installed(t))
	if err := RegisterTypes(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	at := time.Date(1999, 12, 31, 23, 59, 59, 123456789, time.UTC)
	nothing := eventIn{ResponseID: "nothing"}
	var events Rows[eventIn]
	for _, id := range []string{"", "ünï'\"\\\t\n☃", strings.Repeat("x", 100_000)} {
		events = append(events, eventIn{
			ResponseID: id, AssessmentID: &id, OrganizationID: new(id + "!"), EventType: -3, LSN: 0xFEDCBA98_76543210, Ordinal: -1 << 63,
			XID: 1 << 40, CommittedAt: at, Kind: 1<<15 - 1, FirstID: new("first"),
		})
	}
	events = append(events, nothing)
	const show = `select coalesce(string_agg(concat_ws('|', md5(u.response_id), coalesce(md5(u.assessment_id), '-'), coalesce(md5(u.organization_id), '-'),
		u.event_type, coalesce(u.lsn::text, '-'), u.ordinal, coalesce(u.xid::text, '-'), coalesce((extract(epoch from u.committed_at) * 1000000)::bigint::text, '-'), u.kind, coalesce(u.first_id, '-')), E'\n' order by u.ordinality), '')
		from unnest($1::walhook.event_in[]) with ordinality as u`
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

	var results Rows[resultIn]
	for _, succeeded := range []bool{true, false} {
		results = append(results, resultIn{7, -1 << 31, succeeded, 200, "no", 1, 2, 3, !succeeded})
	}
	if err := conn.QueryRow(t.Context(), "select string_agg(u::text, ' ') from unnest($1::walhook.result_in[]) as u", results).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if got != "(7,-2147483648,t,200,no,1,2,3,f) (7,-2147483648,f,200,no,1,2,3,t)" {
		t.Errorf("the server read %s", got)
	}

	if err := testenv.Connect(t, conn.Config().ConnString()).QueryRow(t.Context(), "select $1::walhook.result_in[]", results).Scan(&got); err == nil || !strings.Contains(err.Error(), "encode 2 rows") {
		t.Errorf("without known types, sending two rows returns %v", err)
	}

	if err := conn.QueryRow(t.Context(), "select 'none: ' || cardinality($1::walhook.event_in[])", Rows[eventIn]{}).Scan(&got); err != nil || got != "none: 0" {
		t.Errorf("no rows are %q, %v", got, err)
	}

	for _, wrong := range []any{Rows[struct{}]{}, Rows[LoadRequest]{}} {
		if err := conn.QueryRow(t.Context(), "select cardinality($1::walhook.result_in[])", wrong).Scan(&got); err == nil || !strings.Contains(err.Error(), "has no field for walhook.result_in.") {
			t.Errorf("sending %T as results ends with %v", wrong, err)
		}
	}
}

// SQL and Go describe the events in one place each.
func TestEventNames(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, installed(t))
	var names []string
	if err := conn.QueryRow(t.Context(), "select walhook.event_names()").Scan(&names); err != nil {
		t.Fatal(err)
	}
	var want []string
	for event := range cdc.EventTypes {
		want = append(want, event.String())
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("walhook.event_names (-cdc.EventTypes +got):\n%s", diff)
	}
	for i, name := range names {
		var same bool
		if err := conn.QueryRow(t.Context(), "select walhook.event_name($1) = $2 and walhook.event_number($2) = $1", i+1, name).Scan(&same); err != nil || !same {
			t.Errorf("event %d is not %s and back: %v", i+1, name, err)
		}
	}
}
