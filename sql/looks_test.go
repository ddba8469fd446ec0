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

// One look asks about several URLs. Each gets what is pending for its own webhooks, in order and no more than it has room for, as if
// it had been asked about alone.
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
		// Webhooks 1 and 2 share a URL, 3 keeps no order, 4 has nothing, 5 is disabled and has tests alone.
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
	asked := NewRows()
	defer asked.Release()
	addLook(asked, Look{Tests: []int64{1, 2}, Enabled: []int64{1, 2}, Ordered: []int64{1, 2}, Room: 100, RoomDue: 100})
	addLook(asked, Look{Tests: []int64{3}, Enabled: []int64{3}, Held: []int64{12}, After: 3, Room: 100, RoomDue: 100})
	addLook(asked, Look{Tests: []int64{4}, Enabled: []int64{4}, Ordered: []int64{4}, Room: 100, RoomDue: 100})
	addLook(asked, Look{Tests: []int64{5}, Room: 100, RoomDue: 100})
	addLook(asked, Look{Tests: []int64{1, 2}, Enabled: []int64{1, 2}, Ordered: []int64{1, 2}, Held: []int64{13}, Room: 2, RoomDue: 1})
	addLook(asked, Look{Tests: []int64{1, 2}, Enabled: []int64{1, 2}, Ordered: []int64{1, 2}, After: 5, Room: 100})
	addLook(asked, Look{Enabled: []int64{1, 2}, Ordered: []int64{1, 2}, After: 7, Room: 100, RoomDue: 100})
	addLook(asked, Look{Enabled: []int64{1, 2}, Ordered: []int64{1, 2, 101, 102, 103, 104, 105, 106, 107}, After: 7, Room: 100, RoomDue: 100})
	addLook(asked, Look{Enabled: []int64{1}, Ordered: []int64{1, 2}, Moving: []int64{2}, Room: 100, RoomDue: 100})
	addLook(asked, Look{Enabled: []int64{1}, Ordered: []int64{1, 2, 101, 102, 103, 104, 105, 106, 107}, Moving: []int64{2}, Room: 100})
	for _, c := range []struct {
		query Query
		show  func(pgx.CollectableRow) (string, error)
		want  []string
	}{
		{FetchFresh, func(row pgx.CollectableRow) (text string, err error) {
			var id, look int64
			var keeps bool
			var others []int64
			err = row.Scan(&id, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, &look, &keeps, &others)
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
		args := Args{"looks": asked}
		if c.query.Name == WaitingSummary.Name {
			args["endpoint_ids"] = make([]int64, asked.Len())
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

// Whatever changes at a URL's webhooks, the edition tells it from what was before: of a look, of the look-up of a successor and of what
// is queued.
func TestEditionTellsWebhooksFromOthers(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, installed(t))
	if err := RegisterTypes(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	type told struct{ looked, succeeded, queued int64 }
	at := func() (edition told) {
		t.Helper()
		asked := NewRows()
		defer asked.Release()
		addLook(asked, Look{})
		addLook(asked, Look{})
		rows, err := conn.Query(t.Context(), WaitingSummary.SQL, WaitingSummary.Bind(Args{"looks": asked, "endpoint_ids": []int64{4711, 1}})...)
		if err != nil {
			t.Fatal(err)
		}
		both, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (edition int64, err error) {
			return edition, row.Scan(nil, nil, nil, &edition)
		})
		if err != nil {
			t.Fatal(err)
		}
		if both[0] != 0 {
			t.Errorf("there is no URL 4711, and its edition is %d", both[0])
		}
		edition.looked = both[1]
		found := make([]any, 13)
		found[12] = &edition.succeeded
		args := FetchSuccessor.Bind(Args{"endpoint_id": int64(1), "response_id": "a", "ordered_ids": []int64{1}})
		if err := conn.QueryRow(t.Context(), FetchSuccessor.SQL, args...).Scan(found...); err != nil {
			t.Fatal(err)
		}
		urls := map[int64]int64{}
		rows, err = conn.Query(t.Context(), Enqueue.SQL, enqueueArgs(0)...)
		if err != nil {
			t.Fatal(err)
		}
		var url, queued pgtype.Int8
		if _, err := pgx.ForEachRow(rows, []any{nil, nil, nil, nil, nil, &url, &queued}, func() error {
			if url.Valid {
				urls[url.Int64] = queued.Int64
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		edition.queued = urls[1]
		return edition
	}
	exec := func(statement string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	// Webhook 1 is the one that gets what is queued.
	exec(`insert into walhook.webhook (event_type, url, assessment_id) values ('response.created', 'https://example.com/1', '1');
		insert into walhook.webhook (event_type, url) values ('response.completed', 'https://example.com/2')`)
	exec("insert into walhook.queue (webhook_id, response_id, event_type, committed_at, kind) values (1, 'a', 1, now(), 0)")
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
		edition := at()
		if before, twice := seen[edition.looked]; twice || edition != (told{edition.looked, edition.looked, edition.looked}) {
			t.Errorf("after %q the edition is %+v, as after %q", change, edition, before)
		}
		seen[edition.looked] = change
	}
}

func idAndLook(row pgx.CollectableRow) (string, error) {
	var id, look int64
	err := row.Scan(&id, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, &look)
	return fmt.Sprintf("%d: %d", look, id), err
}

// looks asks what is pending at one URL.
func looks(enabled, ordered []int64, after int64, room int, held []int64) *Rows {
	rows := NewRows()
	addLook(rows, Look{Tests: enabled, Enabled: enabled, Ordered: ordered, Held: held, After: after, Room: room, RoomDue: room})
	return rows
}

// addLook adds a look at webhooks that keep the order where they are among those that do.
func addLook(to *Rows, l Look) {
	for _, id := range l.Enabled {
		l.Keeps = append(l.Keeps, slices.Contains(l.Ordered, id))
	}
	to.Look(&l)
}
