package schedule

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
	active := map[int64]*Delivery{1: {ID: 1, WebhookID: 1, Hook: edited(1, 10, 1)}}
	for name, tt := range map[string]struct {
		e        Endpoint
		hooks    bool
		mine     bool
		stopping bool
		want     string
	}{
		"ours, and free":                     {hooks: true, mine: true, want: claim},
		"ours already":                       {e: Endpoint{state: complete}, hooks: true, mine: true, want: nothing},
		"ours, and was to be another's":      {e: Endpoint{state: releasing}, hooks: true, mine: true, want: stay},
		"another's":                          {hooks: true, want: nothing},
		"another's now":                      {e: Endpoint{state: complete}, hooks: true, want: release},
		"another's now, and in flight":       {e: Endpoint{state: complete, active: active}, hooks: true, want: wait},
		"another's, and still in flight":     {e: Endpoint{state: releasing, active: active}, hooks: true, want: wait},
		"another's, and nothing flies now":   {e: Endpoint{state: releasing}, hooks: true, want: release},
		"another's, and a result is locked":  {e: Endpoint{state: complete, lockedResults: map[int64]int{1: 1}, active: active}, hooks: true, want: nothing},
		"another's, and was locked once":     {e: Endpoint{lockedResults: map[int64]int{1: 1}}, hooks: true, want: nothing},
		"without webhooks":                   {mine: true, want: forget},
		"without webhooks, and owned":        {e: Endpoint{state: complete}, mine: true, want: release},
		"without webhooks, and in flight":    {e: Endpoint{active: active}, mine: true, want: nothing},
		"ours, while the daemon stops":       {hooks: true, mine: true, stopping: true, want: nothing},
		"ours already, as the daemon stops":  {e: Endpoint{state: complete}, hooks: true, mine: true, stopping: true, want: release},
		"in flight as the daemon stops":      {e: Endpoint{state: complete, active: active}, hooks: true, mine: true, stopping: true, want: wait},
		"locked as the daemon stops":         {e: Endpoint{state: complete, lockedResults: map[int64]int{1: 1}}, hooks: true, mine: true, stopping: true, want: nothing},
		"another's, in flight for the first": {e: Endpoint{active: active}, hooks: true, want: nothing},
	} {
		c := newClocked(t, edited(1, 10, 1))
		e := tt.e
		e.id, e.memory, e.limit = 10, &c.memory, 1
		if tt.hooks {
			e.hooks = c.e.hooks
		}
		c.endpoints = map[int64]*Endpoint{10: &e}
		c.stopping = tt.stopping
		claimed, released := c.Rebalance(func(int64) bool { return tt.mine })
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
		active map[int64]*Delivery
		ended  bool
	}{
		"nothing is in flight":      {10, true, nil, true},
		"another's is in flight":    {10, true, map[int64]*Delivery{7: {ID: 7, WebhookID: 1}}, true},
		"its own is in flight":      {10, true, map[int64]*Delivery{7: {ID: 7, WebhookID: 2}}, false},
		"another daemon has it":     {10, false, nil, false},
		"nobody here knows the URL": {30, true, nil, false},
	} {
		moved := edited(2, 20, 2)
		moved.PreviousEndpoints = []int64{tt.left}
		c := newClocked(t, edited(1, 10, 1), moved)
		if c.e.active = tt.active; !tt.owned {
			c.e.on(disown)
		}
		hooks, urls := c.SettledMoves()
		if ended := slices.Equal(hooks, []int64{2}) && slices.Equal(urls, []int64{10}); ended != tt.ended || !ended && len(hooks)+len(urls) > 0 {
			t.Errorf("%s: the moves of %v from %v have ended", name, hooks, urls)
		}
	}
}

// A daemon owns endpoints under its id. If its lease expires, it registers under another id and owns nothing.
func TestEndpointsAreOwnedUnderAnID(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	c.MarkReleased(0, []int64{10, 999})
	if c.e.state != notOwned {
		t.Fatal("it is still owned")
	}
	drain(c.RefreshWanted)
	if c.Register(7); c.Registered() != 7 || !drain(c.RefreshWanted) {
		t.Errorf("the daemon has number %d, and nobody looks for its share", c.Registered())
	}
	c.MarkClaimed(6, 10, 0, 0)
	c.MarkClaimed(7, 999, 0, 0)
	if c.e.state.owned() {
		t.Fatal("an endpoint was claimed under a number of before")
	}
	in := c.armed()
	c.MarkClaimed(7, 10, 2, time.Minute)
	if c.e.state != claimed || c.e.failures != 2 || c.e.failuresRecorded != 2 || c.e.limit != 1 || *in != time.Minute {
		t.Errorf("claimed, it is %+v, and its timer fires in %s", c.e, *in)
	}
	generation := c.e.generation
	if c.MarkClaimed(7, 10, 0, 0); c.e.failures != 2 || c.e.generation != generation {
		t.Error("an endpoint was claimed twice")
	}
	if c.MarkReleased(6, []int64{10}); !c.e.state.owned() {
		t.Error("an endpoint was given back under a number of before")
	}
	c.e.on(release)
	c.DisownAll()
	if c.e.state != notOwned || c.Registered() != 0 || c.e.generation == generation || !c.startsUntil.IsZero() {
		t.Errorf("a daemon that lost everything has number %d, lives until %s, and %+v", c.Registered(), c.startsUntil, c.e)
	}
	// The limit that slow start has reached stays if nothing fails.
	c.e.limit = 8
	c.Register(8)
	if c.MarkClaimed(8, 10, 0, 0); c.e.limit != 8 || c.e.failuresRecorded > 0 {
		t.Errorf("claimed without failures, %d attempts are allowed", c.e.limit)
	}
}

// A renewed lease allows attempts to start, and ForbidStartsAfter never extends that time.
func TestAttemptsStartWithinTheLease(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	until := c.now.Add(time.Minute)
	c.AllowStartsUntil(until)
	if c.ForbidStartsAfter(until.Add(time.Second)); !c.startsUntil.Equal(until) {
		t.Errorf("the lease was lengthened to %s", c.startsUntil)
	}
	sooner := until.Add(-time.Second)
	if c.ForbidStartsAfter(sooner); !c.startsUntil.Equal(sooner) {
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
	if c.IsStopping() {
		t.Error("a daemon that continues drains")
	}
	if c.stopping = true; !c.IsStopping() {
		t.Error("a daemon that stops does not drain")
	}
}

// The store is asked about endpoints that seem to have nothing to do, and those with something pending are loaded.
func TestIdleEndpoints(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		prepare        func(*Endpoint)
		asked, loading bool
	}{
		"idle":                    {func(*Endpoint) {}, true, false},
		"just claimed":            {func(e *Endpoint) { e.state = claimed }, true, false},
		"has more":                {func(e *Endpoint) { e.on(moreStored) }, false, true},
		"was not loaded":          {func(e *Endpoint) { e.on(loadPostponed) }, false, true},
		"another's":               {func(e *Endpoint) { e.on(disown) }, false, false},
		"is left":                 {func(e *Endpoint) { e.on(release) }, false, false},
		"is to be loaded already": {func(e *Endpoint) { e.on(loadWanted) }, false, true},
		"full": {func(e *Endpoint) {
			for id := range int64(maxWindow) {
				e.hold(&Delivery{ID: id + 1})
				e.due = append(e.due, &Delivery{ID: id + 1})
			}
		}, false, false},
	} {
		c := newClocked(t, edited(1, 10, 1), edited(2, 10, 2))
		c.e.cursor = 77
		tt.prepare(c.e)
		asked, ids, cursors := c.IdleEndpoints()
		generation, is := asked[c.e]
		slices.Sort(ids)
		if is != tt.asked || is && (generation != c.e.generation || !slices.Equal(ids, []int64{1, 2}) || !slices.Equal(cursors, []int64{77, 77})) || !is && len(ids) > 0 || (c.e.state == queued) != tt.loading {
			t.Errorf("%s: asked about %v from %v, generation %d; state %d", name, ids, cursors, generation, c.e.state)
		}
	}
	// A load that is under way may have asked before something came.
	c := newClocked(t, edited(1, 10, 1))
	c.queueLoad(c.e)
	c.TakeLoads()
	if c.IdleEndpoints(); c.e.state != reloading {
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
			c.MarkReleased(0, []int64{10})
			c.MarkClaimed(0, 10, 0, 0)
		}, claimed},
		"it is being loaded": {nil, func(c *clocked) { c.queueLoad(c.e) }, queued},
	} {
		c := newClocked(t, edited(1, 10, 1))
		c.e.state = claimed
		asked := map[*Endpoint]int{c.e: c.e.generation}
		tt.prepare(c)
		if c.WorkFound(asked, tt.pending); c.e.state != tt.want {
			t.Errorf("%s: state %d, not %d", name, c.e.state, tt.want)
		}
	}
}

// The successor of an ended head is sent at once, unless it is not due, is blocked, or another delivery may come first.
func TestSuccessor(t *testing.T) {
	t.Parallel()
	next := Delivery{ID: 50, WebhookID: 1, Version: 1, ResponseID: "7", Attempts: 1}
	newer, unknown, moved := next, next, next
	newer.Version, unknown.WebhookID, moved.WebhookID, moved.Version = 9, 99, 3, 3
	for name, tt := range map[string]struct {
		next       *Delivery
		due, stale bool
		prepare    func(*clocked, *SuccessorQuery)
		want       string // sent, dropped (the line has ended), again (another query), loaded (the endpoint is invalidated), ignored
	}{
		"it is due":                       {next: &next, due: true, want: "sent"},
		"nothing is there":                {want: "dropped"},
		"it is not due":                   {next: &next, want: "dropped"},
		"something was let go since":      {prepare: func(_ *clocked, q *SuccessorQuery) { q.line.othersInStore = true }, want: "again"},
		"one that is unknown comes first": {next: &next, due: true, stale: true, want: "loaded"},
		"nothing, and one is unknown":     {stale: true, want: "loaded"},
		"its webhook was edited":          {next: &newer, due: true, want: "loaded"},
		"its webhook is unknown":          {next: &unknown, due: true, want: "loaded"},
		"its webhook has moved":           {next: &moved, due: true, want: "loaded"},
		"its webhook waits for a lock":    {next: &next, due: true, prepare: func(c *clocked, _ *SuccessorQuery) { put(&c.e.lockedResults, 1, 1) }, want: "dropped"},
		"its webhook has come just now":   {next: &next, due: true, prepare: func(c *clocked, _ *SuccessorQuery) { c.webhooks.ByID[1].PreviousEndpoints = []int64{20} }, want: "dropped"},
		"everything is reloaded":          {next: &next, due: true, prepare: func(_ *clocked, q *SuccessorQuery) { q.generation-- }, want: "ignored"},
	} {
		c := newClocked(t, edited(1, 10, 1), edited(2, 10, 2), edited(3, 20, 3))
		again := false
		c.actions.QuerySuccessor = func(*SuccessorQuery) { again = true }
		l := &line{response: "7", successorInStore: true}
		put(&c.e.lines, "7", l)
		q := &SuccessorQuery{endpoint: c.e, line: l, Ordered: c.e.ordered(), generation: c.e.generation}
		if tt.prepare != nil {
			tt.prepare(c, q)
		}
		generation := c.e.generation
		drain(c.RefreshWanted)
		if tt.next != nil {
			copied := *tt.next
			tt.next = &copied
		}
		c.SuccessorFound(q, tt.next, tt.due, tt.stale)
		got := "ignored"
		switch {
		case len(c.sent) > 0:
			got = "sent"
		case c.e.generation != generation && c.e.state == deferred && drain(c.RefreshWanted):
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
		prepare                func(*clocked, *Result)
		refreshes, invalidates bool
		stillUnrecorded        int
	}{
		"nothing waits":        {prepare: func(*clocked, *Result) {}},
		"the endpoint is left": {prepare: func(c *clocked, _ *Result) { c.e.on(release) }, refreshes: true},
		"it is left, and more is in flight": {prepare: func(c *clocked, _ *Result) {
			c.e.on(release)
			c.attempt()
		}},
		"the webhook moves":                {prepare: func(c *clocked, _ *Result) { c.webhooks.ByID[1].PreviousEndpoints = []int64{20} }, refreshes: true},
		"the webhook is gone":              {prepare: func(c *clocked, _ *Result) { c.webhooks = &Webhooks{Enabled: true} }},
		"the store did not know it":        {prepare: func(_ *clocked, r *Result) { r.Missing = true }, invalidates: true},
		"it waited for a lock":             {prepare: func(c *clocked, r *Result) { r.wasLocked = true; put(&c.e.lockedResults, 1, 1) }, invalidates: true, stillUnrecorded: 1},
		"another waits for the lock still": {prepare: func(c *clocked, r *Result) { r.wasLocked = true; put(&c.e.lockedResults, 1, 2) }, stillUnrecorded: 1},
	} {
		c := newClocked(t, edited(1, 10, 1))
		r := c.does(post.Outcome{Kind: post.Success})
		drain(c.RefreshWanted)
		tt.prepare(c, &r)
		generation := c.e.generation
		c.ResultsRecorded([]Result{r})
		if refreshed := drain(c.RefreshWanted); refreshed != tt.refreshes {
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
	c.MarkClaimed(0, 20, 0, 0)
	other := c.endpoints[20]
	other.on(nothingPending)
	r := c.does(post.Outcome{Kind: post.Success})
	c.unrecorded = unrecordedLimit
	other.hold(&Delivery{ID: 90})
	other.fresh = []*Delivery{{ID: 90, WebhookID: 3, Hook: c.webhooks.ByID[3], endpoint: other}}
	c.ring.push(other)
	if c.startAttempts(); len(c.sent) != 1 {
		t.Fatal("an attempt begins though too much is unrecorded")
	}
	results := []Result{r}
	if ids := c.DeferLocked(results); !slices.Equal(ids, []int64{1}) || len(c.sent) != 2 || !c.e.blocked(c.webhooks.ByID[1]) || c.e.blocked(c.webhooks.ByID[2]) {
		t.Errorf("webhooks %v begin to wait, and %d attempts have begun", ids, len(c.sent))
	}
	if ids := c.DeferLocked(results); ids != nil || c.unrecorded != unrecordedLimit-1 || c.e.lockedResults[1] != 1 {
		t.Errorf("webhooks %v begin to wait again; %d results are unrecorded", ids, c.unrecorded)
	}
}

// Deliveries wait until the source shows their transactions. An invalidated one is dropped.
func TestVisibility(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	visible := int64(0)
	c.actions.Visible = func(xid int64) bool { return xid <= visible }
	for id := range int64(3) {
		c.HandOver([]*Delivery{{ID: id + 1, WebhookID: 1, ResponseID: fmt.Sprint(id), XID: id + 1}}, nil, map[int64]int64{10: c.e.version})
	}
	if len(c.sent) > 0 || !drain(c.VisibilityPending) {
		t.Fatalf("%d attempts begin before their transactions are visible", len(c.sent))
	}
	c.e.limit = 8
	for visible = range int64(4) {
		if left, passed := c.RecheckVisibility(); left != int(3-visible) || passed != min(int(visible), 1) || len(c.sent) != int(visible) {
			t.Fatalf("with %d transactions visible %d deliveries wait, %d pass, and %d are sent", visible, left, passed, len(c.sent))
		}
	}
	c.HandOver([]*Delivery{{ID: 9, WebhookID: 1, ResponseID: "9", XID: 9}}, nil, map[int64]int64{10: c.e.version})
	c.e.invalidate()
	visible = 9
	if left, passed := c.RecheckVisibility(); left != 0 || passed != 0 || len(c.sent) != 3 {
		t.Errorf("%d deliveries wait and %d pass that were forgotten", left, passed)
	}
}
