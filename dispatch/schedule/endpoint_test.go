package schedule

import (
	"slices"
	"strings"
	"testing"
	"time"

	"walhook/dispatch/post"
)

// clocked is a schedule with one endpoint of its own, 10, and a clock that the test sets.
type clocked struct {
	*Schedule
	t    *testing.T
	now  time.Time
	e    *Endpoint
	sent []*Delivery
	id   int64
}

func newClocked(t *testing.T, hooks ...*Webhook) *clocked {
	c := &clocked{t: t, now: time.Unix(1_800_000_000, 0)}
	c.Schedule = New(Limits{Concurrency: 64, EndpointConcurrency: 8, MaxAttempts: 3, Backoff: post.Backoff{Base: time.Second, Cap: time.Hour}}, Actions{
		Now:            func() time.Time { return c.now },
		Visible:        func(int64) bool { return true },
		Send:           func(d *Delivery, _ bool) { c.sent = append(c.sent, d) },
		QuerySuccessor: func(*SuccessorQuery) {},
		Arm:            func(*Endpoint, time.Duration) {},
	})
	c.learn(hooks...)
	c.AllowStartsUntil(c.now.Add(1000 * time.Hour))
	c.MarkClaimed(0, 10, 0, 0)
	c.e = c.endpoints[10]
	c.e.on(nothingPending)
	return c
}

func (c *clocked) learn(hooks ...*Webhook) {
	known := &Webhooks{ByID: map[int64]*Webhook{}, Enabled: true}
	for _, h := range hooks {
		known.ByID[h.ID] = h
	}
	c.ApplyWebhooks(known)
	if c.e != nil && c.e.state.owned() {
		c.e.state = complete
	}
}

// attempt starts an attempt, whatever the state of the endpoint.
func (c *clocked) attempt() *Delivery {
	c.id++
	d := &Delivery{ID: c.id, WebhookID: 1, Hook: c.webhooks.ByID[1], endpoint: c.e, generation: c.e.generation}
	c.e.hold(d)
	c.startAttempt(d, c.now)
	c.now = c.now.Add(time.Millisecond)
	return d
}

// ends ends an attempt that started at that time.
func (c *clocked) ends(d *Delivery, began time.Time, o post.Outcome) Result {
	o.Started = began
	r, _, _ := c.AttemptEnded(d, o, false)
	return r
}

// does makes an attempt that ends at once.
func (c *clocked) does(o post.Outcome) Result { return c.ends(c.attempt(), c.now, o) }

// offer hands over never-tried deliveries, and returns how many attempts start.
func (c *clocked) offer(n int) int {
	before := len(c.sent)
	c.e.state = complete
	for range n {
		c.id++
		c.HandOver([]*Delivery{{ID: c.id, WebhookID: 1, ResponseID: time.Duration(c.id).String()}}, nil, map[int64]int64{10: c.e.version})
	}
	return len(c.sent) - before
}

func (c *clocked) expect(failures, limit int) {
	c.t.Helper()
	if c.e.failures != failures || c.e.limit != limit {
		c.t.Errorf("%d failures in a row and %d attempts allowed, not %d and %d", c.e.failures, c.e.limit, failures, limit)
	}
}

func TestFailuresInARow(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	for range 4 {
		c.does(post.Outcome{Kind: post.Success})
	}
	c.expect(0, 8)
	for n := range FailingAfter - 1 {
		c.does(post.Outcome{Kind: post.Retry})
		c.expect(n+1, 8)
	}
	generation := c.e.generation
	c.does(post.Outcome{Kind: post.Gone})
	c.expect(FailingAfter, 1)
	if c.e.generation == generation {
		t.Error("the deliveries that would only wait are still held")
	}
	c.does(post.Outcome{Kind: post.Success})
	c.expect(0, 2)
	c.does(post.Outcome{Kind: post.Success})
	c.expect(0, 4)
	c.does(post.Outcome{Kind: post.Retry})
	c.expect(1, 4)
	c.does(post.Outcome{Kind: post.Success})
	c.expect(0, 2) // slow start begins again
	c.does(post.Outcome{Kind: post.Retry, SlowEndpoint: true})
	c.expect(1, 1)
}

// Failures count in the order in which the attempts started.
func TestFailuresOfOverlappingAttempts(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	began := c.now
	older := c.attempt()
	c.now = c.now.Add(time.Second)
	c.does(post.Outcome{Kind: post.Success})
	c.ends(older, began, post.Outcome{Kind: post.Retry})
	c.expect(0, 2)

	began = c.now
	older = c.attempt()
	c.now = c.now.Add(time.Second)
	for range FailingAfter {
		c.does(post.Outcome{Kind: post.Retry})
	}
	c.ends(older, began, post.Outcome{Kind: post.Success})
	c.expect(FailingAfter, 1)
}

// A pause that the receiver asks for can only get longer. Only enabling the webhook ends it.
func TestPauses(t *testing.T) {
	t.Parallel()
	hook := edited(1, 10, 1)
	c := newClocked(t, hook)
	c.does(post.Outcome{Kind: post.Success})
	began := c.now
	older := c.attempt()
	c.does(post.Outcome{Kind: post.Retry, RetryAfter: time.Hour})
	c.does(post.Outcome{Kind: post.Retry, RetryAfter: time.Minute})
	c.ends(older, began, post.Outcome{Kind: post.Success})
	c.now = c.now.Add(59 * time.Minute)
	if n := c.offer(1); n != 0 {
		t.Fatalf("%d attempts started during the pause", n)
	}

	again := *hook
	again.Version++
	c.learn(&again)
	if n := c.offer(1); n != 0 {
		t.Errorf("%d attempts started after an edit of something else, during the pause", n)
	}
	other := edited(2, 10, 7)
	c.learn(&again, other)
	if n := c.offer(1); n != 0 {
		t.Errorf("%d attempts started after another webhook had come, during the pause", n)
	}
	began = c.now
	inFlight := c.attempt()
	clear(c.endpointsToRecord)
	enabled := again
	enabled.Version, enabled.Activation = enabled.Version+1, 1
	c.learn(&enabled, other)
	c.expect(0, c.e.limit)
	if _, is := c.endpointsToRecord[c.e]; !is {
		t.Error("the reset of the endpoint's failures is not recorded")
	}
	c.now = c.now.Add(time.Millisecond)
	c.ends(inFlight, began, post.Outcome{Kind: post.Retry})
	c.expect(0, c.e.limit)
	c.e.limit = 8
	if n := c.offer(1); n != 1 {
		t.Errorf("%d attempts started after the webhook was enabled", n)
	}
	c.now = c.now.Add(2 * time.Hour)
	if n := c.offer(1); n != 1 {
		t.Errorf("%d attempts started after the pause", n)
	}
}

// The next owner of an endpoint starts with the failures that the last one recorded, and only the owner writes them.
func TestClaimedEndpointKeepsItsFailures(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	c.does(post.Outcome{Kind: post.Success})
	c.does(post.Outcome{Kind: post.Success})
	c.ResultsRecorded(c.results)
	c.MarkReleased(0, []int64{10})
	clear(c.endpointsToRecord)
	enabled := *edited(1, 10, 2)
	enabled.Activation = 1
	c.learn(&enabled)
	if len(c.endpointsToRecord) > 0 {
		t.Error("the failures of an endpoint that another daemon owns would be overwritten")
	}
	c.MarkClaimed(0, 10, FailingAfter, time.Hour)
	c.expect(FailingAfter, 1)
	if n := c.offer(2); n != 0 {
		t.Errorf("%d attempts started during the pause", n)
	}
	before := len(c.sent)
	c.now = c.now.Add(2 * time.Hour)
	c.TimerFired(c.e)
	if n := len(c.sent) - before; n != 1 {
		t.Fatalf("%d attempts started after the pause, not one", n)
	}
	clear(c.endpointsToRecord)
	c.ends(c.sent[len(c.sent)-1], c.now, post.Outcome{Kind: post.Success})
	if _, is := c.endpointsToRecord[c.e]; !is {
		t.Error("the recovery of the endpoint is not recorded")
	}
}

// Deliveries that were tried serve as probes while an endpoint is failing. Others are tried only if there are few
// probes, or now and then.
func TestProbes(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	for range FailingAfter {
		c.does(post.Outcome{Kind: post.Retry})
	}
	c.e.retrying = 8
	fresh := &Delivery{ID: 1000, WebhookID: 1, Hook: c.webhooks.ByID[1], endpoint: c.e}
	c.e.fresh = []*Delivery{fresh}
	c.e.inFlight = 0
	if c.e.pick(c.now, 8) != nil {
		t.Error("something that was never tried is sent beside enough probes")
	}
	if d := c.e.pick(c.now.Add(probeInterval), 8); d != fresh {
		t.Error("nothing is sent though the last probe is long ago")
	}
	c.e.fresh, c.e.retrying = []*Delivery{fresh}, 7
	if d := c.e.pick(c.now, 8); d != fresh {
		t.Error("nothing is sent though there are few probes")
	}
	c.e.limit, c.e.inFlight = 8, 1
	if w := c.waitOf(c.e, c.now); w != waitsForAnswer {
		t.Errorf("a failing endpoint with an attempt in flight waits for %d", w)
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	l := Limits{MaxAttempts: 3, Backoff: post.Backoff{Base: time.Second, Cap: time.Hour}}
	for name, c := range map[string]struct {
		before int
		o      post.Outcome
		final  bool
		least  time.Duration
	}{
		"success":                 {o: post.Outcome{Kind: post.Success}, final: true},
		"failure":                 {o: post.Outcome{Kind: post.Retry}, least: 800 * time.Millisecond},
		"failure with a pause":    {o: post.Outcome{Kind: post.Retry, RetryAfter: time.Minute}, least: time.Minute},
		"a pause that is shorter": {before: 1, o: post.Outcome{Kind: post.Retry, RetryAfter: time.Second}, least: 1600 * time.Millisecond},
		"gone":                    {o: post.Outcome{Kind: post.Gone}, final: true},
		"the last failure":        {before: 2, o: post.Outcome{Kind: post.Retry}, final: true},
	} {
		r := l.decide(&Delivery{Attempts: c.before, Hook: &Webhook{Activation: 4}}, c.o, time.Time{})
		if r.Final != c.final || r.Delay < c.least || r.Final && r.Delay != 0 || r.Activation != 4 {
			t.Errorf("%s: final %t, the next attempt in %s, activation %d", name, r.Final, r.Delay, r.Activation)
		}
	}
}

// No attempt starts that could outlast the lease, or while too many results are unrecorded.
func TestNoAttemptStarts(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	c.AllowStartsUntil(c.now.Add(-time.Second))
	if n := c.offer(1); n != 0 {
		t.Errorf("%d attempts started after the lease", n)
	}
	c.AllowStartsUntil(c.now.Add(time.Hour))
	if len(c.sent) != 1 {
		t.Errorf("%d attempts started with a new lease, not one", len(c.sent))
	}
	c.ends(c.sent[0], c.now, post.Outcome{Kind: post.Success})
	c.unrecorded = unrecordedLimit
	if n := c.offer(1); n != 0 {
		t.Errorf("%d attempts started while too much is unrecorded", n)
	}
}

// Tests go first, then retries, then manual redeliveries; never-tried deliveries alternate with all of these. At a
// failing endpoint they come last, and while it is not to be probed, only tests and retries are attempted.
func TestPickOrder(t *testing.T) {
	t.Parallel()
	names := map[int64]string{1: "fresh 1", 2: "manual 1", 3: "retry 1", 4: "test", 5: "fresh 2", 6: "manual 2", 7: "retry 2"}
	for _, tt := range []struct {
		name              string
		failures, retried int
		want              []string
	}{
		{"healthy", 0, 0, []string{"test", "fresh 1", "retry 1", "fresh 2", "retry 2", "manual 1", "manual 2"}},
		{"failing", FailingAfter, 0, []string{"test", "retry 1", "retry 2", "manual 1", "manual 2", "fresh 1", "fresh 2"}},
		{"failing and busy with retries", FailingAfter, 8, []string{"test", "retry 1", "retry 2"}},
	} {
		c := newClocked(t, edited(1, 10, 1))
		c.e.failures, c.e.retrying, c.e.lastAttempt = tt.failures, tt.retried, c.now
		for id := range int64(len(names)) {
			d := &Delivery{ID: id + 1}
			switch name := names[d.ID]; {
			case name == "test":
				d.Kind = KindTest
			case strings.HasPrefix(name, "manual"):
				d.Kind = KindManual
			case strings.HasPrefix(name, "retry"):
				d.Attempts = 1
			}
			c.e.makeReady(d)
		}
		var got []string
		for d := c.e.pick(c.now, 8); d != nil; d = c.e.pick(c.now, 8) {
			got = append(got, names[d.ID])
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: picked in the order %q", tt.name, got)
		}
	}
}

// A webhook is blocked until its last locked result is recorded.
func TestLastLockedResultUnblocks(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	c.e.lockedResults = map[int64]int{1: 3}
	for left := 2; left >= 0; left-- {
		if last := c.e.lockedResultRecorded(1); last != (left == 0) || c.e.blocked(c.webhooks.ByID[1]) != (left > 0) {
			t.Errorf("with %d locked results left, the last was recorded: %t", left, last)
		}
	}
}

// Only enabled webhooks that keep the order have to be asked for earlier deliveries.
func TestOrderedWebhooks(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1), edited(2, 10, 1), edited(3, 10, 1), edited(4, 10, 1))
	for id, h := range c.webhooks.ByID {
		h.Ordered, h.Enabled = id != 2, id != 3
	}
	if ids := slices.Sorted(slices.Values(c.e.ordered())); !slices.Equal(ids, []int64{1, 4}) {
		t.Errorf("webhooks %v keep the order", ids)
	}
}

// Once stopped, no attempt starts.
func TestStoppedScheduleStartsNothing(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	c.Stop()
	if n := c.offer(2); n != 0 {
		t.Errorf("%d attempts started after the stop", n)
	}
}

// A webhook without a failed attempt does not fail, whether it has had other attempts or none.
func TestFailingNeedsAFailure(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_800_000_000, 0)
	var none *latestAttempts
	for name, tt := range map[string]struct {
		of   *latestAttempts
		want bool
	}{
		"no attempt":                       {none, false},
		"none that has ended":              {&latestAttempts{}, false},
		"a success":                        {&latestAttempts{succeeded: at}, false},
		"a failure":                        {&latestAttempts{failed: at}, true},
		"a failure, then a success":        {&latestAttempts{failed: at, succeeded: at.Add(1)}, false},
		"a success, then a failure":        {&latestAttempts{failed: at.Add(1), succeeded: at}, true},
		"both, which began simultaneously": {&latestAttempts{failed: at, succeeded: at}, true},
	} {
		if got := tt.of.failing(); got != tt.want {
			t.Errorf("%s: failing: %t", name, got)
		}
	}
}

// If memory does not match the store, the endpoint is loaded soon, and webhooks are refreshed before.
func TestMismatchIsLoadedLater(t *testing.T) {
	t.Parallel()
	c := newClocked(t, edited(1, 10, 1))
	armed := time.Duration(-1)
	c.actions.Arm = func(_ *Endpoint, after time.Duration) { armed = after }
	c.e.state = loading
	if c.awaitRefresh(c.e); c.e.state != deferred || armed != time.Second {
		t.Errorf("in state %d the next load is due after %s", c.e.state, armed)
	}
	select {
	case <-c.RefreshWanted:
	default:
		t.Error("no refresh is requested")
	}
}
