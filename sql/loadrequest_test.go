package sql

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"walhook/testenv"
)

// One load covers several URLs. Each gets the pending deliveries of its own webhooks, in order and no more than it has
// room for, as if it had been loaded alone.
func TestLookAtSeveralURLs(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, installed(t))
	if err := RegisterTypes(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if err := ByIndex(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		// Webhooks 1 and 2 share a URL, 3 is unordered, 4 has nothing, 5 is disabled and has only tests.
		"insert into walhook.webhook (event_type, url) select 'response.created', 'https://example.com/' || g from generate_series(1, 5) g",
		`insert into walhook.queue (delivery_id, webhook_id, response_id, event_type, committed_at, attempts, next_attempt_at, kind) values
			(1, 1, 'a', 1, now(), 0, null, 0), (2, 2, 'a', 1, now(), 0, null, 0), (3, 3, 'a', 1, now(), 0, null, 0), (4, 3, 'a', 1, now(), 0, null, 0),
			(5, 1, 'b', 1, now(), 0, null, 0), (6, 2, 'c', 1, now(), 1, now() - interval '2 min', 0), (7, 1, 'd', 1, now(), 1, now() - interval '3 min', 0),
			(8, 2, 'd', 1, now(), 1, now() - interval '4 min', 0), (9, 3, 'd', 1, now(), 3, now() + interval '10 min', 0), (10, 5, 'e', 1, now(), 0, now(), 2),
			(11, 5, 'e', 1, now(), 0, null, 0), (12, 3, 'e', 1, now(), 1, now() - interval '1 min', 0), (13, 1, 'e', 1, now(), 0, now() - interval '1 min', 2), (14, 1, 'd', 1, now(), 0, null, 0)`,
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	var asked Rows[LoadRequest]
	asked = append(asked, request(LoadRequest{Tests: []int64{1, 2}, Enabled: []int64{1, 2}, Ordered: []int64{1, 2}, Room: 100, RoomDue: 100}))
	asked = append(asked, request(LoadRequest{Tests: []int64{3}, Enabled: []int64{3}, Held: []int64{12}, After: 3, Room: 100, RoomDue: 100}))
	asked = append(asked, request(LoadRequest{Tests: []int64{4}, Enabled: []int64{4}, Ordered: []int64{4}, Room: 100, RoomDue: 100}))
	asked = append(asked, request(LoadRequest{Tests: []int64{5}, Room: 100, RoomDue: 100}))
	asked = append(asked, request(LoadRequest{Tests: []int64{1, 2}, Enabled: []int64{1, 2}, Ordered: []int64{1, 2}, Held: []int64{13}, Room: 2, RoomDue: 1}))
	asked = append(asked, request(LoadRequest{Tests: []int64{1, 2}, Enabled: []int64{1, 2}, Ordered: []int64{1, 2}, After: 5, Room: 100}))
	asked = append(asked, request(LoadRequest{Enabled: []int64{1, 2}, Ordered: []int64{1, 2}, After: 7, Room: 100, RoomDue: 100}))
	asked = append(asked, request(LoadRequest{Enabled: []int64{1, 2}, Ordered: []int64{1, 2, 101, 102, 103, 104, 105, 106, 107}, After: 7, Room: 100, RoomDue: 100}))
	asked = append(asked, request(LoadRequest{Enabled: []int64{1}, Ordered: []int64{1, 2}, Moving: []int64{2}, Room: 100, RoomDue: 100}))
	asked = append(asked, request(LoadRequest{Enabled: []int64{1}, Ordered: []int64{1, 2, 101, 102, 103, 104, 105, 106, 107}, Moving: []int64{2}, Room: 100}))
	for _, c := range []struct {
		query Query
		show  func(pgx.CollectableRow) (string, error)
		want  []string
	}{
		{FetchFresh, func(row pgx.CollectableRow) (text string, err error) {
			var id, look int64
			var keeps bool
			var others []int64
			err = row.Scan(&id, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, &look, &keeps, &others)
			slices.Sort(others)
			return fmt.Sprintf("%d: %d %t %d", look, id, keeps, others), err
		}, []string{
			"1: 1 true []", "1: 2 true []", "1: 5 true []", "1: 14 true [7 8]", "2: 4 false []", "5: 1 true []", "5: 2 true []",
			"6: 14 true [7 8]", "7: 14 true [7 8]", "8: 14 true [7 8]",
			"9: 1 true [2]", "9: 5 true []", "9: 14 true [7 8]", "10: 1 true [2]", "10: 5 true []", "10: 14 true [7 8]",
		}},
		{FetchDue, idAndLook, []string{"1: 7", "1: 6", "5: 7", "7: 7", "7: 6", "8: 7", "8: 6", "9: 7"}},
		{FetchTests, idAndLook, []string{"1: 13", "4: 10"}},
		{WaitingSummary, func(row pgx.CollectableRow) (text string, err error) {
			var look, waiting int64
			var in *time.Duration
			err = row.Scan(&look, &waiting, &in, nil)
			if in == nil {
				return fmt.Sprintf("%d: %d", look, waiting), err
			}
			return fmt.Sprintf("%d: %d due in %s", look, waiting, in.Round(time.Minute)), err
		}, []string{"1: 3 due in -4m0s", "2: 2 due in 10m0s", "3: 0", "4: 0 due in 0s", "5: 3 due in -4m0s", "6: 3 due in -4m0s", "7: 3", "8: 3", "9: 1", "10: 1"}},
	} {
		args := Args{"requests": asked}
		if c.query.Name == WaitingSummary.Name {
			args["endpoint_ids"] = make([]int64, len(asked))
		}
		rows, err := conn.Query(t.Context(), c.query.SQL, c.query.Bind(args)...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, c.show)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.query.Name, diff)
		}
	}
}

// Whatever changes about a URL's webhooks, its version, which Enqueue returns, changes as well.
func TestVersionTellsWebhooksFromOthers(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, installed(t))
	if err := RegisterTypes(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	exec := func(statement string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	// Everything is queued for webhook 1.
	exec(`insert into walhook.webhook (event_type, url, assessment_id) values ('response.created', 'https://example.com/1', '1');
		insert into walhook.webhook (event_type, url) values ('response.completed', 'https://example.com/2')`)
	seen := map[int64]string{}
	for _, change := range []string{
		"select 1",
		"insert into walhook.webhook (event_type, url) values ('response.completed', 'https://example.com/1')",
		"update walhook.webhook set description = 'b' where id = 1",
		"update walhook.webhook set description = 'c' where id = 3",
		"update walhook.webhook set url = 'https://example.com/1' where id = 2",
		"delete from walhook.webhook where id = 3",
		"begin; delete from walhook.webhook where id = 2; insert into walhook.webhook (event_type, url) values ('response.completed', 'https://example.com/1'); commit",
		"update walhook.webhook set enabled = false where id = 4",
		"update walhook.webhook set url = 'https://example.com/3' where id = 4",
	} {
		exec(change)
		rows, err := conn.Query(t.Context(), Enqueue.SQL, enqueueArgs(0, nil)...)
		if err != nil {
			t.Fatal(err)
		}
		versions := map[int64]int64{}
		var url, version pgtype.Int8
		if _, err := pgx.ForEachRow(rows, []any{nil, nil, nil, nil, nil, nil, &url, &version}, func() error {
			if url.Valid {
				versions[url.Int64] = version.Int64
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if before, twice := seen[versions[1]]; twice || len(versions) != 1 {
			t.Errorf("after %q the versions are %v, as after %q", change, versions, before)
		}
		seen[versions[1]] = change
	}
}

// A look, or the look-up of a successor, is stale where a webhook that it does not know keeps the order at the URL and has something pending
// that may come first, and otherwise it is not, whatever else was edited.
func TestLookIsStale(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit             string
		looked, followed bool
	}{
		"nothing":                        {edit: "select 1"},
		"description":                    {edit: "update walhook.webhook set description = 'b'"},
		"a new webhook":                  {edit: "insert into walhook.webhook (event_type, url) values ('response.created', 'https://example.com/1')"},
		"an earlier delivery moved here": {"update walhook.webhook set url = 'https://example.com/1' where id = 2", true, true},
		"a later delivery moved here":    {"update walhook.webhook set url = 'https://example.com/1' where id = 3", true, false},
		"of another response":            {"update walhook.webhook set url = 'https://example.com/1' where id = 4", true, false},
		"enabled":                        {"update walhook.webhook set enabled = true where id = 5", true, true},
		"ordered":                        {"update walhook.webhook set ordered = true where id = 6", true, true},
		"moved without order":            {edit: "update walhook.webhook set url = 'https://example.com/1', ordered = false where id = 2"},
		"disabled":                       {edit: "update walhook.webhook set enabled = false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := testenv.Connect(t, installed(t))
			if err := RegisterTypes(t.Context(), conn); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(t.Context(), `
				insert into walhook.webhook (event_type, url, enabled, ordered) select 'response.created', 'https://example.com/' || url, enabled, ordered
				  from (values (1, true, true), (2, true, true), (3, true, true), (4, true, true), (1, false, true), (1, true, false)) as w (url, enabled, ordered);
				insert into walhook.queue (delivery_id, webhook_id, response_id, event_type, committed_at, next_attempt_at)
				values (1, 2, 'a', 1, now(), null), (2, 5, 'a', 1, now(), null), (3, 6, 'a', 1, now(), now()), (4, 4, 'b', 1, now(), null), (5, 1, 'a', 1, now(), null),
				       (6, 3, 'a', 1, now(), null);
				`+c.edit); err != nil {
				t.Fatal(err)
			}
			var asked Rows[LoadRequest]
			asked = append(asked, request(LoadRequest{Tests: []int64{1, 5, 6}, Enabled: []int64{1, 6}, Ordered: []int64{1}}))
			var looked, followed bool
			if err := conn.QueryRow(t.Context(), WaitingSummary.SQL, WaitingSummary.Bind(Args{"requests": asked, "endpoint_ids": []int64{1}})...).Scan(nil, nil, nil, &looked); err != nil {
				t.Fatal(err)
			}
			found := make([]any, 15)
			found[14] = &followed
			if err := conn.QueryRow(t.Context(), FetchSuccessor.SQL, FetchSuccessor.Bind(Args{"endpoint_id": int64(1), "response_id": "a", "ordered_ids": []int64{1}})...).Scan(found...); err != nil {
				t.Fatal(err)
			}
			if looked != c.looked || followed != c.followed {
				t.Errorf("a look is stale: %t, and a look-up: %t", looked, followed)
			}
		})
	}
}

func idAndLook(row pgx.CollectableRow) (string, error) {
	var id, look int64
	err := row.Scan(&id, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, &look)
	return fmt.Sprintf("%d: %d", look, id), err
}

// looks asks what is pending at one URL.
func requests(enabled, ordered []int64, after int64, room int32, held []int64) Rows[LoadRequest] {
	return Rows[LoadRequest]{request(LoadRequest{Tests: enabled, Enabled: enabled, Ordered: ordered, Held: held, After: after, Room: room, RoomDue: room})}
}

// look asks about webhooks that keep the order where they are among those that do.
func request(l LoadRequest) LoadRequest {
	for _, id := range l.Enabled {
		l.Keeps = append(l.Keeps, slices.Contains(l.Ordered, id))
	}
	return l
}
