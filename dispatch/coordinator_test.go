package dispatch

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// All daemons pick the same owner, and a fair share each. A daemon that comes or goes moves no endpoint between the
// others.
func TestRendezvous(t *testing.T) {
	t.Parallel()
	const endpoints = 3000
	owners := func(live ...int64) []int64 {
		of := make([]int64, endpoints)
		for _, id := range live {
			l := &coordinator{id: id, liveDaemons: live}
			for e := range of {
				if !l.owns(int64(e + 1)) {
					continue
				}
				if of[e] != 0 {
					t.Fatalf("endpoint %d belongs to the daemons %d and %d", e+1, of[e], id)
				}
				of[e] = id
			}
		}
		return of
	}
	three, shuffled, two := owners(1, 2, 3), owners(3, 1, 2), owners(1, 3)
	share := map[int64]int{}
	for e, owner := range three {
		if owner == 0 || shuffled[e] != owner {
			t.Fatalf("endpoint %d belongs to daemon %d, or to %d in another order", e+1, owner, shuffled[e])
		}
		if owner != 2 && two[e] != owner {
			t.Fatalf("endpoint %d of daemon %d is daemon %d's once another has gone", e+1, owner, two[e])
		}
		share[owner]++
	}
	for id, n := range share {
		if n < endpoints/3*8/10 || n > endpoints/3*12/10 {
			t.Errorf("daemon %d has %d of %d endpoints", id, n, endpoints)
		}
	}
	if (&coordinator{id: 1}).owns(1) {
		t.Error("an endpoint is a daemon's that does not live")
	}
}

// Notifications leave enough time between refreshes, so that loads end before the next refresh invalidates them.
func TestRefreshesAfterNotifications(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_800_000_000, 0)
	for took, want := range map[time.Duration]time.Duration{0: notificationPause, notificationPause / 8: notificationPause, notificationPause: 4 * notificationPause} {
		l := &coordinator{lastNotified: at, refreshTook: took}
		if got := l.nextNotifiedRefresh().Sub(at); got != want {
			t.Errorf("after a refresh of %s the next one may follow %s later, not %s", took, got, want)
		}
	}
}

// Heartbeats are more frequent while the daemon is not ready or has no lock, so that it reports soon once that is over.
func TestHeartbeatInterval(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		unready, locked bool
		want            time.Duration
	}{{false, true, heartbeatInterval}, {true, true, heartbeatInterval / 5}, {false, false, heartbeatInterval / 5}} {
		if got := (&membership{reportedUnready: tt.unready, lockHeld: tt.locked}).interval(); got != tt.want {
			t.Errorf("unready: %t, locked: %t: the next heartbeat follows in %s", tt.unready, tt.locked, got)
		}
	}
}

// A notification names the endpoints that something was queued for, and none if there are too many.
func TestQueuedPayload(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{0: 0, 1: 1, notifyLimit: notifyLimit, notifyLimit + 1: 0} {
		if got := len(strings.Fields(queuedPayload(make([]int64, n)))); got != want {
			t.Errorf("of %d endpoints %d are named", n, got)
		}
	}
	for payload, want := range map[string][]int64{queuedPayload([]int64{10, 20}): {10, 20}, "99 x 20": {99, 20}, "x": nil} {
		if got := parseIDs(payload); !slices.Equal(got, want) {
			t.Errorf("%q names %d, not %d", payload, got, want)
		}
	}
}
