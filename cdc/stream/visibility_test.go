package stream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"walhook/cdc/catalog"
	"walhook/testenv"
)

func TestParseSnapshot(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		visible, hidden []int64
	}{
		"10:20:":                 {[]int64{1, 9, 10, 19}, []int64{20, 21}},
		"10:20:10,14,15":         {[]int64{9, 11, 13, 16, 19}, []int64{10, 14, 15, 20}},
		"10:10:":                 {[]int64{9}, []int64{10, 11}},
		"4294967295:4294967298:": {[]int64{4294967297}, []int64{4294967298}},
	} {
		s, err := parseSnapshot(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, xid := range want.visible {
			if !s.visible(xid) {
				t.Errorf("%s hides %d", text, xid)
			}
		}
		for _, xid := range want.hidden {
			if s.visible(xid) {
				t.Errorf("%s shows %d", text, xid)
			}
		}
	}
	for _, text := range []string{"", "10", "10:20", "10:20:30:40", "a:20:", "10:b:", "10:20:c", "10:20:11,", "10:20:,", " 10:20:", "99999999999999999999:1:"} {
		if s, err := parseSnapshot(text); err == nil {
			t.Errorf("%q is %+v", text, s)
		} else if !strings.Contains(err.Error(), "parse the snapshot") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestNothingIsVisibleBeforeTheFirstSnapshot(t *testing.T) {
	t.Parallel()
	h := NewHorizon(nil)
	if h.Visible(1) || h.Visible(math.MaxInt64) {
		t.Error("a transaction is visible")
	}
	if !h.Visible(0) {
		t.Error("what is known to be visible is not")
	}
}

// A dead session on the source is replaced, once and immediately. Reconnect replaces a live one, because the source
// may be another server.
func TestHorizonReplacesItsSession(t *testing.T) {
	t.Parallel()
	url := testenv.Database(t, testenv.Postgres(t), "")
	admin := testenv.Connect(t, url)
	opened, away := 0, false
	h := NewHorizon(func(ctx context.Context) (*pgx.Conn, error) {
		if away {
			return nil, errors.New("the source is away")
		}
		opened++
		return catalog.ConnectSource(ctx, url)
	})
	end := func() {
		t.Helper()
		if _, err := admin.Exec(t.Context(), "select pg_terminate_backend($1, 10000)", h.conn.PgConn().PID()); err != nil {
			t.Fatal(err)
		}
	}
	refresh := func(by func(context.Context) error, sessions int) {
		t.Helper()
		var xid int64
		if err := admin.QueryRow(t.Context(), "select pg_current_xact_id()::text::bigint").Scan(&xid); err != nil {
			t.Fatal(err)
		}
		if h.Visible(xid) {
			t.Fatalf("transaction %d is visible before anybody has asked", xid)
		}
		if err := by(t.Context()); err != nil || !h.Visible(xid) || opened != sessions {
			t.Fatalf("transaction %d is visible: %t; %d sessions were opened, not %d: %v", xid, h.Visible(xid), opened, sessions, err)
		}
	}
	refresh(h.Refresh, 1)
	refresh(h.Refresh, 1)
	end()
	refresh(h.Refresh, 2)
	refresh(h.Reconnect, 3)
	end()
	away = true
	if err := h.Refresh(t.Context()); err == nil {
		t.Error("a source that is away tells its snapshot")
	}
	away = false
	refresh(h.Refresh, 4)
	h.Close(t.Context())
	h.Close(t.Context())
	refresh(h.Refresh, 5)
	h.Close(t.Context())
}

func TestSnapshotsReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		xmin := rapid.Int64Range(3, 1<<40).Draw(t, "xmin")
		running := map[int64]bool{}
		var items []string
		xmax := xmin
		for range rapid.IntRange(0, 20).Draw(t, "transactions") {
			if rapid.Bool().Draw(t, "runs") {
				running[xmax] = true
				items = append(items, fmt.Sprint(xmax))
			}
			xmax++
		}
		s, err := parseSnapshot(fmt.Sprintf("%d:%d:%s", xmin, xmax, strings.Join(items, ",")))
		if err != nil {
			t.Fatal(err)
		}
		for xid := xmin - 3; xid < xmax+3; xid++ {
			if want := xid < xmax && !running[xid]; s.visible(xid) != want {
				t.Fatalf("%d: %v", xid, !want)
			}
		}
	})
}

func TestWidenFindsTheNearestEpoch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		xid        uint32
		near, want int64
	}{
		{0, 1 << 40, 0},
		{5, 10, 5},
		{10, 5, 10},
		{4294967290, 5, 4294967290}, // nothing lies before epoch 0
		{4294967290, 1<<32 + 5, 4294967290},
		{5, 1<<32 - 6, 1<<32 + 5},
		{3, 1 << 32, 1<<32 + 3},
		{4294967295, 1 << 32, 1<<32 - 1},
		{7, 0, 7},
		{4000000000, 0, 4000000000},
	} {
		if got := widen(tt.xid, tt.near); got != tt.want {
			t.Errorf("%d near %d is %d and not %d", tt.xid, tt.near, got, tt.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		near := rapid.OneOf(rapid.Int64Range(3, 1<<34), rapid.Int64Range(1<<32-100, 1<<32+100), rapid.Int64Range(1<<33-100, 1<<33+100)).Draw(t, "near")
		distance := rapid.OneOf(rapid.Int64Range(-1<<31, 1<<31-1), rapid.Int64Range(-200, 200)).Draw(t, "distance")
		wide := near + distance
		if wide < 3 || uint32(wide) < 3 {
			return // no transaction has such an id
		}
		if got := widen(uint32(wide), near); got != wide {
			t.Fatalf("%d near %d is %d", wide, near, got)
		}
	})
}
