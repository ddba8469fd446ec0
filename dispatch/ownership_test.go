package dispatch

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"walhook/dispatch/post"
)

// A daemon claims its part of the endpoints, releases others once nothing is active, and deletes those without
// webhooks.
func TestRebalance(t *testing.T) {
	t.Parallel()
	const (
		nothing = "nothing"
		claim   = "claim"
		release = "release"
		wait    = "wait" // send nothing more, and release it later
		stay    = "stay" // ours again: keep it
		forget  = "forget"
	)
	active := map[int64]*delivery{1: {id: 1, webhookID: 1, hook: edited(1, 10, 1)}}
	for name, tt := range map[string]struct {
		e        endpoint
		hooks    bool
		mine     bool
		stopping bool
		want     string
	}{
		"ours, and free":                     {hooks: true, mine: true, want: claim},
		"ours already":                       {e: endpoint{state: complete}, hooks: true, mine: true, want: nothing},
		"ours, and was to be another's":      {e: endpoint{state: releasing}, hooks: true, mine: true, want: stay},
		"another's":                          {hooks: true, want: nothing},
		"another's now":                      {e: endpoint{state: complete}, hooks: true, want: release},
		"another's now, and in flight":       {e: endpoint{state: complete, active: active}, hooks: true, want: wait},
		"another's, and still in flight":     {e: endpoint{state: releasing, active: active}, hooks: true, want: wait},
		"another's, and nothing flies now":   {e: endpoint{state: releasing}, hooks: true, want: release},
		"another's, and a result is locked":  {e: endpoint{state: complete, lockedResults: map[int64]int{1: 1}, active: active}, hooks: true, want: nothing},
		"another's, and was locked once":     {e: endpoint{lockedResults: map[int64]int{1: 1}}, hooks: true, want: nothing},
		"without webhooks":                   {mine: true, want: forget},
		"without webhooks, and owned":        {e: endpoint{state: complete}, mine: true, want: release},
		"without webhooks, and in flight":    {e: endpoint{active: active}, mine: true, want: nothing},
		"ours, while the daemon stops":       {hooks: true, mine: true, stopping: true, want: nothing},
		"ours already, as the daemon stops":  {e: endpoint{state: complete}, hooks: true, mine: true, stopping: true, want: release},
		"in flight as the daemon stops":      {e: endpoint{state: complete, active: active}, hooks: true, mine: true, stopping: true, want: wait},
		"locked as the daemon stops":         {e: endpoint{state: complete, lockedResults: map[int64]int{1: 1}}, hooks: true, mine: true, stopping: true, want: nothing},
		"another's, in flight for the first": {e: endpoint{active: active}, hooks: true, want: nothing},
	} {
		c := newClocked(t, edited(1, 10, 1))
		e := tt.e
		e.id, e.memory, e.limit = 10, &c.memory, 1
		if tt.hooks {
			e.hooks = c.e.hooks
		}
		c.endpoints = map[int64]*endpoint{10: &e}
		c.stopping = tt.stopping
		claimed, released := c.rebalance(func(int64) bool { return tt.mine })
		got := nothing
		switch {
		case len(claimed) > 0:
			got = claim
		case len(released) > 0:
			got = release
		case c.endpoints[10] == nil:
			got = forget
		case e.state == releasing:
			got = wait
		case tt.e.state == releasing && e.state == queued:
			got = stay
		}
		if got != tt.want {
			t.Errorf("%s: %s, not %s", name, got, tt.want)
		}
		if invalidates := (got == release || got == wait) && tt.e.state != releasing; invalidates != (e.generation != tt.e.generation) {
			t.Errorf("%s: the endpoint is invalidated: %t", name, !invalidates)
		}
	}
}

// A move is settled at the previous endpoint if that is ours and nothing of the webhook is active there.
func TestMovesAreSettled(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		left   int64
		owned  bool
		active map[int64]*delivery
		ended  bool
	}{
		"nothing is in flight":      {10, true, nil, true},
		"another's is in flight":    {10, true, map[int64]*delivery{7: {id: 7, webhookID: 1}}, true},
		"its own is in flight":      {10, true, map[int64]*delivery{7: {id: 7, webhookID: 2}}, false},
		"another daemon has it":     {10, false, nil, false},
		"nobody here knows the URL": {30, true, nil, false},
	} {
		moved := edited(2, 20, 2)
		moved.previousEndpoints = []int64{tt.left}
		c := newClocked(t, edited(1, 10, 1), moved)
		if c.e.active = tt.active; !tt.owned {
			c.e.on(disown)
		}
		hooks, urls := c.settledMoves()
		if ended := slices.Equal(hooks, []int64{2}) && slices.Equal(urls, []int64{10}); ended != tt.ended || !ended && len(hooks)+len(urls) > 0 {
			t.Errorf("%s: the moves of %v from %v have ended", name, hooks, urls)
		}
	}
}

// A daemon owns endpoints under its id. If its lease expires, it registers under another id and owns nothing.
func TestEndpointsAreOwnedUnderAnID(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	c.markReleased(0, []int64{10, 999})
	if c.e.state != notOwned {
		t.Fatal("it is still owned")
	}
	drain(c.refreshWanted)
	if c.register(7); c.registered() != 7 || !drain(c.refreshWanted) {
		t.Errorf("the daemon has number %d, and nobody looks for its share", c.registered())
	}
	c.markClaimed(6, 10, 0, 0)
	c.markClaimed(7, 999, 0, 0)
	if c.e.state.owned() {
		t.Fatal("an endpoint was claimed under a number of before")
	}
	in := c.armed()
	c.markClaimed(7, 10, 2, time.Minute)
	if c.e.state != claimed || c.e.failures != 2 || c.e.failuresRecorded != 2 || c.e.limit != 1 || *in != time.Minute {
		t.Errorf("claimed, it is %+v, and its timer fires in %s", c.e, *in)
	}
	generation := c.e.generation
	if c.markClaimed(7, 10, 0, 0); c.e.failures != 2 || c.e.generation != generation {
		t.Error("an endpoint was claimed twice")
	}
	if c.markReleased(6, []int64{10}); !c.e.state.owned() {
		t.Error("an endpoint was given back under a number of before")
	}
	c.e.on(release)
	c.disownAll()
	if c.e.state != notOwned || c.registered() != 0 || c.e.generation == generation || !c.startsUntil.IsZero() {
		t.Errorf("a daemon that lost everything has number %d, lives until %s, and %+v", c.registered(), c.startsUntil, c.e)
	}
	// The limit that slow start has reached stays if nothing fails.
	c.e.limit = 8
	c.register(8)
	if c.markClaimed(8, 10, 0, 0); c.e.limit != 8 || c.e.failuresRecorded > 0 {
		t.Errorf("claimed without failures, %d attempts are allowed", c.e.limit)
	}
}

// A renewed lease allows attempts to start, and forbidStartsAfter never extends that time.
func TestAttemptsStartWithinTheLease(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	until := c.now.Add(time.Minute)
	c.allowStartsUntil(until)
	if c.forbidStartsAfter(until.Add(time.Second)); !c.startsUntil.Equal(until) {
		t.Errorf("the lease was lengthened to %s", c.startsUntil)
	}
	sooner := until.Add(-time.Second)
	if c.forbidStartsAfter(sooner); !c.startsUntil.Equal(sooner) {
		t.Errorf("the lease ends at %s, not at %s", c.startsUntil, sooner)
	}
	c.now = sooner
	if c.offer(1) != 1 {
		t.Error("nothing begins in the last moment of the lease")
	}
	c.now = sooner.Add(1)
	if c.offer(1) != 0 {
		t.Error("an attempt begins after the lease")
	}
	if c.isStopping() {
		t.Error("a daemon that goes on drains")
	}
	if c.stopping = true; !c.isStopping() {
		t.Error("a daemon that stops does not drain")
	}
}

// The store is asked about endpoints that seem to have nothing to do, and those with something pending are loaded.
func TestIdleEndpoints(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		prepare        func(*endpoint)
		asked, loading bool
	}{
		"idle":                    {func(*endpoint) {}, true, false},
		"just claimed":            {func(e *endpoint) { e.state = claimed }, true, false},
		"has more":                {func(e *endpoint) { e.on(moreStored) }, false, true},
		"was not loaded":          {func(e *endpoint) { e.on(loadPostponed) }, false, true},
		"another's":               {func(e *endpoint) { e.on(disown) }, false, false},
		"is left":                 {func(e *endpoint) { e.on(release) }, false, false},
		"is to be loaded already": {func(e *endpoint) { e.on(loadWanted) }, false, true},
		"full": {func(e *endpoint) {
			for id := range int64(maxWindow) {
				e.hold(&delivery{id: id + 1})
				e.due = append(e.due, &delivery{id: id + 1})
			}
		}, false, false},
	} {
		c := newClocked(t, edited(1, 10, 1), edited(2, 10, 2))
		c.e.cursor = 77
		tt.prepare(c.e)
		asked, ids, cursors := c.idleEndpoints()
		generation, is := asked[c.e]
		slices.Sort(ids)
		if is != tt.asked || is && (generation != c.e.generation || !slices.Equal(ids, []int64{1, 2}) || !slices.Equal(cursors, []int64{77, 77})) || !is && len(ids) > 0 || (c.e.state == queued) != tt.loading {
			t.Errorf("%s: asked about %v from %v, generation %d; state %d", name, ids, cursors, generation, c.e.state)
		}
	}
	// A load that is under way may have asked before something came.
	c := newClocked(t, edited(1, 10, 1))
	c.queueLoad(c.e)
	c.takeLoads()
	if c.idleEndpoints(); c.e.state != reloading {
		t.Errorf("while a load is under way, the state becomes %d", c.e.state)
	}
	for name, tt := range map[string]struct {
		pending []int64
		prepare func(*clocked)
		want    state
	}{
		"something is pending":         {[]int64{1}, func(*clocked) {}, queued},
		"of webhooks that are unknown": {[]int64{99}, func(*clocked) {}, complete},
		"nothing is pending":           {nil, func(*clocked) {}, complete},
		"something came meanwhile":     {nil, func(c *clocked) { c.e.on(moreStored) }, incomplete},
		"it was invalidated":           {nil, func(c *clocked) { c.e.invalidate() }, incomplete},
		"it was lost meanwhile":        {nil, func(c *clocked) { c.e.on(disown) }, notOwned},
		"it was lost and claimed again": {nil, func(c *clocked) {
			c.markReleased(0, []int64{10})
			c.markClaimed(0, 10, 0, 0)
		}, claimed},
		"it is being loaded": {nil, func(c *clocked) { c.queueLoad(c.e) }, queued},
	} {
		c := newClocked(t, edited(1, 10, 1))
		c.e.state = claimed
		asked := map[*endpoint]int{c.e: c.e.generation}
		tt.prepare(c)
		if c.workFound(asked, tt.pending); c.e.state != tt.want {
			t.Errorf("%s: state %d, not %d", name, c.e.state, tt.want)
		}
	}
}

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

// The successor of an ended head is sent at once, unless it is not due, is blocked, or another delivery may come first.
func TestSuccessor(t *testing.T) {
	t.Parallel()
	next := delivery{id: 50, webhookID: 1, version: 1, responseID: "7", attempts: 1}
	newer, unknown, moved := next, next, next
	newer.version, unknown.webhookID, moved.webhookID, moved.version = 9, 99, 3, 3
	for name, tt := range map[string]struct {
		next       *delivery
		due, stale bool
		prepare    func(*clocked, *successorQuery)
		want       string // sent, dropped (the line has ended), again (another query), loaded (the endpoint is invalidated), ignored
	}{
		"it is due":                       {next: &next, due: true, want: "sent"},
		"nothing is there":                {want: "dropped"},
		"it is not due":                   {next: &next, want: "dropped"},
		"something was let go since":      {prepare: func(_ *clocked, q *successorQuery) { q.line.othersInStore = true }, want: "again"},
		"one that is unknown comes first": {next: &next, due: true, stale: true, want: "loaded"},
		"nothing, and one is unknown":     {stale: true, want: "loaded"},
		"its webhook was edited":          {next: &newer, due: true, want: "loaded"},
		"its webhook is unknown":          {next: &unknown, due: true, want: "loaded"},
		"its webhook has moved":           {next: &moved, due: true, want: "loaded"},
		"its webhook waits for a lock":    {next: &next, due: true, prepare: func(c *clocked, _ *successorQuery) { put(&c.e.lockedResults, 1, 1) }, want: "dropped"},
		"its webhook has come just now":   {next: &next, due: true, prepare: func(c *clocked, _ *successorQuery) { c.webhooks.byID[1].previousEndpoints = []int64{20} }, want: "dropped"},
		"all is loaded anew":              {next: &next, due: true, prepare: func(_ *clocked, q *successorQuery) { q.generation-- }, want: "ignored"},
	} {
		c := newClocked(t, edited(1, 10, 1), edited(2, 10, 2), edited(3, 20, 3))
		again := false
		c.querySuccessor = func(*successorQuery) { again = true }
		l := &line{response: "7", successorInStore: true}
		put(&c.e.lines, "7", l)
		q := &successorQuery{endpoint: c.e, line: l, ordered: c.e.ordered(), generation: c.e.generation}
		if tt.prepare != nil {
			tt.prepare(c, q)
		}
		generation := c.e.generation
		drain(c.refreshWanted)
		if tt.next != nil {
			copied := *tt.next
			tt.next = &copied
		}
		c.successorFound(q, tt.next, tt.due, tt.stale)
		got := "ignored"
		switch {
		case len(c.sent) > 0:
			got = "sent"
		case c.e.generation != generation && c.e.state == deferred && drain(c.refreshWanted):
			got = "loaded"
		case again:
			got = "again"
		case c.e.lines == nil:
			got = "dropped"
		}
		if got != tt.want || (got == "sent") != (c.inFlight == 1) {
			t.Errorf("%s: %s, not %s", name, got, tt.want)
		}
	}
}

// A recorded result requests a refresh if a release or a move waited for it, and a load if its webhook was blocked.
func TestRecordedResultsUnblock(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		prepare                func(*clocked, *result)
		refreshes, invalidates bool
		stillUnrecorded        int
	}{
		"nothing waits":        {prepare: func(*clocked, *result) {}},
		"the endpoint is left": {prepare: func(c *clocked, _ *result) { c.e.on(release) }, refreshes: true},
		"it is left, and more is in flight": {prepare: func(c *clocked, _ *result) {
			c.e.on(release)
			c.attempt()
		}},
		"the webhook moves":                {prepare: func(c *clocked, _ *result) { c.webhooks.byID[1].previousEndpoints = []int64{20} }, refreshes: true},
		"the webhook is gone":              {prepare: func(c *clocked, _ *result) { c.webhooks = &webhooks{enabled: true} }},
		"the store did not know it":        {prepare: func(_ *clocked, r *result) { r.missing = true }, invalidates: true},
		"it waited for a lock":             {prepare: func(c *clocked, r *result) { r.wasLocked = true; put(&c.e.lockedResults, 1, 1) }, invalidates: true, stillUnrecorded: 1},
		"another waits for the lock still": {prepare: func(c *clocked, r *result) { r.wasLocked = true; put(&c.e.lockedResults, 1, 2) }, stillUnrecorded: 1},
	} {
		c := newClocked(t, edited(1, 10, 1))
		r := c.does(post.Outcome{Kind: post.Success})
		drain(c.refreshWanted)
		tt.prepare(c, &r)
		generation := c.e.generation
		c.resultsRecorded([]result{r})
		if refreshed := drain(c.refreshWanted); refreshed != tt.refreshes {
			t.Errorf("%s: a refresh is requested: %t", name, refreshed)
		}
		if invalidates := c.e.generation != generation; invalidates != tt.invalidates || invalidates != (c.e.state == queued) || c.unrecorded != tt.stillUnrecorded {
			t.Errorf("%s: the endpoint is invalidated: %t, and loaded: %t; %d results are unrecorded", name, invalidates, c.e.state == queued, c.unrecorded)
		}
	}
}

// Deferred results make room for others. The deliveries of their webhooks are blocked until they are recorded.
func TestLockedResultsAreDeferred(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1), edited(2, 10, 2), edited(3, 20, 3))
	c.markClaimed(0, 20, 0, 0)
	other := c.endpoints[20]
	other.on(nothingPending)
	r := c.does(post.Outcome{Kind: post.Success})
	c.unrecorded = unrecordedLimit
	other.hold(&delivery{id: 90})
	other.fresh = []*delivery{{id: 90, webhookID: 3, hook: c.webhooks.byID[3], endpoint: other}}
	c.ring.push(other)
	if c.startAttempts(); len(c.sent) != 1 {
		t.Fatal("an attempt begins though too much is unrecorded")
	}
	results := []result{r}
	if ids := c.deferLocked(results); !slices.Equal(ids, []int64{1}) || len(c.sent) != 2 || !c.e.blocked(c.webhooks.byID[1]) || c.e.blocked(c.webhooks.byID[2]) {
		t.Errorf("webhooks %v begin to wait, and %d attempts have begun", ids, len(c.sent))
	}
	if ids := c.deferLocked(results); ids != nil || c.unrecorded != unrecordedLimit-1 || c.e.lockedResults[1] != 1 {
		t.Errorf("webhooks %v begin to wait again; %d results are unrecorded", ids, c.unrecorded)
	}
}

// Deliveries wait until the source shows their transactions. An invalidated one is dropped.
func TestVisibility(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	visible := int64(0)
	c.visible = func(xid int64) bool { return xid <= visible }
	for id := range int64(3) {
		c.handOver([]*delivery{{id: id + 1, webhookID: 1, responseID: fmt.Sprint(id), xid: id + 1}}, nil, map[int64]int64{10: c.e.version})
	}
	if len(c.sent) > 0 || !drain(c.visibilityPending) {
		t.Fatalf("%d attempts begin before their transactions are visible", len(c.sent))
	}
	c.e.limit = 8
	for visible = range int64(4) {
		if left, passed := c.recheckVisibility(); left != int(3-visible) || passed != min(int(visible), 1) || len(c.sent) != int(visible) {
			t.Fatalf("with %d transactions visible %d deliveries wait, %d pass, and %d are sent", visible, left, passed, len(c.sent))
		}
	}
	c.handOver([]*delivery{{id: 9, webhookID: 1, responseID: "9", xid: 9}}, nil, map[int64]int64{10: c.e.version})
	c.e.invalidate()
	visible = 9
	if left, passed := c.recheckVisibility(); left != 0 || passed != 0 || len(c.sent) != 3 {
		t.Errorf("%d deliveries wait and %d pass that were forgotten", left, passed)
	}
}
