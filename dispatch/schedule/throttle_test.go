package schedule

import (
	"slices"
	"testing"
	"time"

	"walhook/dispatch/post"
)

// The last quarter of all attempts is reserved for endpoints that have none in flight and were tried before, and half
// for healthy ones.
func TestThrottleLimits(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	for _, tt := range []struct {
		of    int
		limit wait
		taken int
		room  bool
	}{
		{1, waitsForQuarter, 0, true},
		{1, waitsForHalf, 0, true},
		{1, waitsForHalf, 1, false},
		{2, waitsForQuarter, 0, true},
		{2, waitsForQuarter, 1, false},
		{3, waitsForHalf, 0, true},
		{3, waitsForHalf, 1, false},
		{16, waitsForQuarter, 11, true},
		{16, waitsForQuarter, 12, false},
		{16, waitsForHalf, 7, true},
		{16, waitsForHalf, 8, false},
	} {
		c.limits.Concurrency, c.inFlight, c.inFlightUnhealthy = tt.of, 0, 0
		if tt.limit == waitsForQuarter {
			c.inFlight = tt.taken
		} else {
			c.inFlightUnhealthy = tt.taken
		}
		if got := c.roomFor(tt.limit); got != tt.room {
			t.Errorf("of %d attempts %d are taken: limit %d leaves room: %t", tt.of, tt.taken, tt.limit, got)
		}
	}
	c.limits.Concurrency = 16
	tried := c.now.Add(-time.Minute)
	for name, tt := range map[string]struct {
		e                   Endpoint
		inFlight, unhealthy int
		want                wait
	}{
		"idle":                     {Endpoint{state: complete, lastAttempt: tried}, 15, 8, waitsForNothing},
		"busy":                     {Endpoint{state: complete, lastAttempt: tried, inFlight: 1, quietSince: c.now}, 12, 0, waitsForQuarter},
		"busy, and there is room":  {Endpoint{state: complete, lastAttempt: tried, inFlight: 1, quietSince: c.now}, 11, 8, waitsForNothing},
		"new":                      {Endpoint{state: complete}, 12, 0, waitsForQuarter},
		"new, and there is room":   {Endpoint{state: complete}, 11, 8, waitsForNothing},
		"fails":                    {Endpoint{state: complete, lastAttempt: tried, failures: 1}, 8, 8, waitsForHalf},
		"fails, and there is room": {Endpoint{state: complete, lastAttempt: tried, failures: 1}, 15, 7, waitsForNothing},
		"slow":                     {Endpoint{state: complete, lastAttempt: tried, inFlight: 1, quietSince: c.now.Add(-slowAfter - 1)}, 8, 8, waitsForHalf},
		"not yet slow":             {Endpoint{state: complete, lastAttempt: tried, inFlight: 1, quietSince: c.now.Add(-slowAfter)}, 8, 8, waitsForNothing},
		"another daemon's":         {Endpoint{state: notOwned}, 0, 0, waitsForOwnership},
		"being released":           {Endpoint{state: releasing}, 0, 0, waitsForOwnership},
		"asked to pause":           {Endpoint{state: complete, notBefore: c.now.Add(1)}, 0, 0, waitsForPause},
		"as busy as it may be":     {Endpoint{state: complete, inFlight: 2}, 12, 0, waitsForAnswer},
		"being probed":             {Endpoint{state: complete, failures: FailingAfter, inFlight: 1}, 1, 0, waitsForAnswer},
		"long idle":                {Endpoint{state: complete, lastAttempt: tried, quietSince: tried}, 8, 8, waitsForNothing},
	} {
		c.inFlight, c.inFlightUnhealthy = tt.inFlight, tt.unhealthy
		tt.e.limit = 2
		if got := c.waitOf(&tt.e, c.now); got != tt.want {
			t.Errorf("an endpoint that is %s waits for %d, not %d", name, got, tt.want)
		}
	}
}

// Throttled endpoints return to the ring a few with each answer, even if others are there.
func TestAnswersReleaseThrottled(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1), edited(2, 20, 2))
	c.limits.Concurrency = 4
	var away []*Endpoint
	for id := range int64(5) {
		e := newEndpoint(100+id, &c.memory)
		c.throttled[waitsForHalf].push(e)
		c.throttled[waitsForHalf].push(e)
		away = append(away, e)
	}
	if n := len(c.throttled[waitsForHalf].queue); n != 5 {
		t.Fatalf("5 endpoints wait in %d places", n)
	}
	c.e.failures = 1
	d := c.attempt()
	c.inFlight, c.inFlightUnhealthy = 4, 2
	c.ring.push(c.endpoints[20])
	c.stopping = true // so that nothing starts
	c.AttemptEnded(d, post.Outcome{Kind: post.Success, Started: c.now}, true)
	for i, e := range away {
		if first := i < throttledBatch; slices.Contains(c.ring.queue, e) != first {
			t.Errorf("endpoint %d has a turn: %t", i, !first)
		}
	}
	if !slices.Equal(c.throttled[waitsForHalf].queue, away[throttledBatch:]) {
		t.Errorf("%d endpoints wait for room", len(c.throttled[waitsForHalf].queue))
	}
}

// An attempt uses its webhook as it is known at that moment, or its last state if it was deleted.
func TestAttemptsUseCurrentWebhooks(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	older := c.webhooks.ByID[1]
	newer := *older
	newer.Secret = "another"
	d := &Delivery{ID: 1, WebhookID: 1, Hook: older, endpoint: c.e}
	c.webhooks = &Webhooks{ByID: map[int64]*Webhook{1: &newer}}
	c.startAttempt(d, c.now)
	if d.Hook != &newer {
		t.Error("the previous secret signs")
	}
	c.webhooks = &Webhooks{ByID: map[int64]*Webhook{}}
	d = &Delivery{ID: 2, WebhookID: 1, Hook: older, endpoint: c.e}
	c.startAttempt(d, c.now)
	if d.Hook != older {
		t.Error("an attempt for a webhook that is gone has none")
	}
}

// An endpoint with attempts in flight is slow if it has answered none for long, however many start meanwhile.
func TestSlowSinceTheLastAnswer(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	c.now = c.now.Add(time.Hour)
	began := c.now
	first := c.attempt()
	if c.now = began.Add(slowAfter); c.e.unhealthy(c.now) {
		t.Error("it is slow after its first second")
	}
	c.now = began.Add(slowAfter + 1)
	c.attempt()
	if !c.e.unhealthy(c.now) {
		t.Error("an attempt that begins makes it fast")
	}
	if c.ends(first, began, post.Outcome{Kind: post.Success}); c.e.unhealthy(c.now) {
		t.Error("it is slow after an answer")
	}
}

// Each outcome is reported once: failing, working again, and failures that are to be recorded.
func TestAnswersAreReported(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	answer := func(o post.Outcome) (was, is bool) {
		d := c.attempt()
		o.Started = c.now
		_, was, is = c.AttemptEnded(d, o, false)
		return was, is
	}
	written := func() bool {
		results, endpoints := c.TakeResults()
		c.ResultsRecorded(results)
		if again, others := c.TakeResults(); again != nil || others != nil {
			t.Errorf("%d results and %d endpoints are written twice", len(again), len(others))
		}
		return slices.ContainsFunc(endpoints, func(f EndpointFailures) bool { return f.EndpointID == c.e.id })
	}
	drain(c.ResultsPending)
	if was, is := answer(post.Outcome{Kind: post.Success}); was || is || written() {
		t.Error("a success is written as trouble")
	}
	if !drain(c.ResultsPending) {
		t.Error("a result wakes no recorder")
	}
	for n := range FailingAfter {
		if was, is := answer(post.Outcome{Kind: post.Retry, Error: "HTTP 500"}); was || is != (n == FailingAfter-1) {
			t.Errorf("after %d failures it failed before: %t, and does now: %t", n+1, was, is)
		}
	}
	if !written() || c.e.lastError != "HTTP 500" || c.e.failuresRecorded != FailingAfter {
		t.Errorf("failures are not written, or with %q", c.e.lastError)
	}
	if was, is := answer(post.Outcome{Kind: post.Success}); !was || is || !written() || c.e.failuresRecorded > 0 {
		t.Error("its recovery is not recorded")
	}
	if answer(post.Outcome{Kind: post.Success}); written() {
		t.Error("its recovery is recorded again and again")
	}
	drain(c.ResultsPending)
	d := c.attempt()
	r, was, is := c.AttemptEnded(d, post.Outcome{Kind: post.Aborted}, false)
	if r.Delivery != nil || was || is || drain(c.ResultsPending) || c.e.active != nil || c.e.inFlight != 0 || len(c.results) > 0 {
		t.Error("an attempt that was broken off has a result")
	}
}

// armed returns when the endpoint's timer fires; negative: never.
func (c *clocked) armed() *time.Duration {
	in := time.Duration(-1)
	c.actions.Arm = func(_ *Endpoint, after time.Duration) { in = after }
	return &in
}

// The timer is set once, to the first time at which something may start.
func TestTimers(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_800_000_000, 0)
	at := func(after time.Duration) time.Time { return start.Add(after) }
	for name, tt := range map[string]struct {
		e    Endpoint
		want time.Duration // -1: never
	}{
		"nothing waits":                   {Endpoint{}, -1},
		"a pause":                         {Endpoint{notBefore: at(time.Minute)}, time.Minute},
		"a pause that is over":            {Endpoint{notBefore: start}, -1},
		"something is due":                {Endpoint{dueAt: at(time.Minute)}, time.Minute},
		"something was due":               {Endpoint{dueAt: at(-time.Minute)}, 0},
		"due before the pause ends":       {Endpoint{dueAt: at(time.Second), notBefore: at(time.Minute)}, time.Second},
		"due after the pause":             {Endpoint{dueAt: at(time.Hour), notBefore: at(time.Minute)}, time.Minute},
		"it fails":                        {Endpoint{failures: FailingAfter, lastAttempt: start}, probeInterval},
		"it failed once":                  {Endpoint{failures: FailingAfter - 1, lastAttempt: start}, -1},
		"it fails, and pauses for longer": {Endpoint{failures: FailingAfter, lastAttempt: start, notBefore: at(time.Hour)}, probeInterval},
		"it fails, and something is due":  {Endpoint{failures: FailingAfter, lastAttempt: start, dueAt: at(time.Second)}, time.Second},
	} {
		c := newClocked(t, edited(1, 10, 1))
		in, calls := time.Duration(-1), 0
		c.actions.Arm = func(_ *Endpoint, after time.Duration) { in, calls = after, calls+1 }
		c.rearm(&tt.e)
		c.rearm(&tt.e)
		if in != tt.want || calls > 1 || calls == 0 && tt.want >= 0 {
			t.Errorf("%s: it fires in %s, set %d times", name, in, calls)
		}
		if c.stopping = true; calls == 1 {
			tt.e.timerAt = time.Time{}
			if c.rearm(&tt.e); in != -1 {
				t.Errorf("%s: it fires while the daemon stops", name)
			}
		}
	}
}

// Due deliveries are loaded at that time if few are held, and a moment later otherwise.
func TestDueTimer(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		in          time.Duration // until something is due
		held        int
		prepare     func(*clocked)
		loads, soon bool
	}{
		"it is due":     {in: 0, loads: true},
		"it was due":    {in: -time.Second, loads: true},
		"not yet":       {in: time.Second},
		"many are held": {held: maxWindow, soon: true},
		"many are held, and the load is deferred": {held: maxWindow, prepare: func(c *clocked) { c.e.state = deferred }, loads: true},
		"it is another's":                         {prepare: func(c *clocked) { c.e.on(disown) }},
		"the daemon stops":                        {prepare: func(c *clocked) { c.stopping = true }},
	} {
		c := newClocked(t, edited(1, 10, 1))
		c.e.notBefore = c.now.Add(time.Hour) // nothing starts
		for n := range tt.held {
			c.e.due = append(c.e.due, &Delivery{ID: int64(n)})
		}
		c.e.dueAt = c.now.Add(tt.in)
		before := c.e.dueAt
		if tt.prepare != nil {
			tt.prepare(c)
		}
		c.e.timerAt = c.now
		c.TimerFired(c.e)
		want := before
		switch {
		case tt.loads:
			want = time.Time{}
		case tt.soon:
			want = c.now.Add(dueRecheck)
		}
		if (c.e.state == queued || c.e.state == incomplete) != tt.loads || !c.e.dueAt.Equal(want) {
			t.Errorf("%s: it is loaded: %t, and the next is due at %s, not %s", name, tt.loads, c.e.dueAt, want)
		}
	}
	c := newClocked(t, edited(1, 10, 1))
	c.e.dueAt, c.e.fresh = time.Time{}, []*Delivery{{ID: 1, WebhookID: 1, Hook: c.webhooks.ByID[1], endpoint: c.e}}
	in := c.armed()
	if c.TimerFired(c.e); len(c.sent) != 1 || c.e.state != complete || *in >= 0 {
		t.Errorf("%d attempts start though nothing had to be loaded; state %d; the timer fires in %s", len(c.sent), c.e.state, *in)
	}
}

// The earliest retry decides when the endpoint loads again.
func TestEarliestRetry(t *testing.T) {
	t.Parallel()
	for _, delays := range [][]time.Duration{{time.Second, time.Minute}, {time.Minute, time.Second}} {
		c := newClocked(t, edited(1, 10, 1))
		at := c.now
		for _, delay := range delays {
			d := c.attempt()
			r := c.ends(d, at, post.Outcome{Kind: post.Retry})
			r.At, r.Delay = at, delay
			c.ResultsRecorded([]Result{r})
		}
		if !c.e.dueAt.Equal(at.Add(time.Second)) {
			t.Errorf("with retries in %v the next is due at %s", delays, c.e.dueAt.Sub(at))
		}
		d := c.attempt()
		c.ResultsRecorded([]Result{c.ends(d, at, post.Outcome{Kind: post.Success})})
		if !c.e.dueAt.Equal(at.Add(time.Second)) {
			t.Errorf("a success has moved the next retry to %s", c.e.dueAt.Sub(at))
		}
	}
}

// A queued delivery is held if nothing can come before it, and loaded from the store otherwise.
func TestTryHold(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*clocked){
		"":                          func(*clocked) {},
		"it was loaded":             func(c *clocked) { c.e.cursor = c.id + 1 },
		"its webhook is disabled":   func(c *clocked) { c.webhooks.ByID[1].Enabled = false },
		"another webhook has come":  func(c *clocked) { c.e.hooks[0].PreviousEndpoints = []int64{20} },
		"a result waits for a lock": func(c *clocked) { put(&c.e.lockedResults, 2, 1) },
		"the store has more":        func(c *clocked) { c.e.on(moreStored) },
		"it is being loaded":        func(c *clocked) { c.queueLoad(c.e) },
		"a retry waits":             func(c *clocked) { c.e.retrying = 1 },
		"something will be due":     func(c *clocked) { c.e.dueAt = c.now.Add(time.Hour) },
		"there is no room": func(c *clocked) {
			c.memory.window = 0
			c.memory.holders = crowdedAt
			c.e.failures = FailingAfter
			put(&c.e.held, 900, struct{}{})
			put(&c.e.held, 901, struct{}{})
		},
		"it is another's":                func(c *clocked) { c.MarkReleased(0, []int64{10}) },
		"it is to be another's":          func(c *clocked) { c.Rebalance(func(int64) bool { return false }) },
		"its webhook is not known":       func(c *clocked) { c.e.version++ },
		"the webhook is known to nobody": func(c *clocked) { c.webhooks = &Webhooks{Enabled: true} },
	} {
		c := newClocked(t, edited(1, 10, 1))
		version := c.e.version
		drain(c.RefreshWanted)
		prepare(c)
		d := &Delivery{ID: c.id + 1, WebhookID: 1, ResponseID: "7"}
		c.HandOver([]*Delivery{d}, nil, map[int64]int64{10: version})
		if _, held := c.e.held[d.ID]; held != (name == "") || held && (c.e.cursor != d.ID || len(c.RefreshWanted) > 0 || c.e.state != complete) {
			t.Errorf("if %s: it is held: %t; the cursor is %d", name, held, c.e.cursor)
		}
	}
	// A smaller id than one that was held is too late, and does not move the cursor back.
	c := newClocked(t, edited(1, 10, 1))
	for _, id := range []int64{5, 3} {
		c.HandOver([]*Delivery{{ID: id, WebhookID: 1, ResponseID: "7"}}, nil, map[int64]int64{10: c.e.version})
		if c.e.cursor != 5 {
			t.Errorf("after delivery %d the cursor is %d", id, c.e.cursor)
		}
	}
}
