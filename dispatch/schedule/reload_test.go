package schedule

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// What another daemon has queued is loaded if it is for an endpoint of ours.
func TestQueuedElsewhere(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		tell func(*clocked)
		want []int64
	}{
		"ours":             {func(c *clocked) { c.QueuedElsewhere([]int64{10}) }, []int64{10}},
		"ours and others'": {func(c *clocked) { c.QueuedElsewhere([]int64{99, 20, 10}) }, []int64{10}},
		"others'":          {func(c *clocked) { c.QueuedElsewhere([]int64{20}) }, nil},
		"all":              {func(c *clocked) { c.QueueLoadAll() }, []int64{10, 30}},
		"truncated":        {func(c *clocked) { c.InvalidateAll() }, []int64{10, 30}},
	} {
		c := newClocked(t, edited(1, 10, 1), edited(2, 20, 2), edited(3, 30, 3))
		c.MarkClaimed(0, 30, 0, 0)
		tt.tell(c)
		var got []int64
		for id, e := range c.endpoints {
			if e.state == queued {
				got = append(got, id)
			}
		}
		if slices.Sort(got); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v are loaded, not %v", name, got, tt.want)
		}
	}
	c := newClocked(t, edited(1, 10, 1), edited(2, 20, 2))
	c.requestLoad(20)
	if !drain(c.NotificationPending) || !slices.Equal(c.TakeQueuedForOthers(), []int64{20}) || len(c.TakeQueuedForOthers()) > 0 {
		t.Error("the owner of an endpoint is not notified once of what was queued for it")
	}
}

// Only endpoints whose deliveries depend on a change are invalidated. Only enabling a webhook resets failures.
func TestReload(t *testing.T) {
	t.Parallel()
	of := func(hooks ...*Webhook) *Webhooks {
		known := &Webhooks{ByID: map[int64]*Webhook{}, Enabled: true}
		for _, h := range hooks {
			known.ByID[h.ID] = h
		}
		return known
	}
	first, second := edited(1, 10, 1), edited(2, 20, 2)
	leaving, left := edited(1, 10, 1), edited(1, 10, 1)
	leaving.PreviousEndpoints, left.PreviousEndpoints = []int64{30, 40}, []int64{30}
	enabled := edited(1, 10, 3)
	enabled.Activation = 3
	disabled, unordered := edited(1, 10, 3), edited(1, 10, 3)
	disabled.Enabled, unordered.Ordered = !first.Enabled, !first.Ordered
	moved := edited(1, 20, 3)
	moved.Activation = 3
	for name, tt := range map[string]struct {
		before, after *Webhooks
		stale, reset  []int64
		hooks         map[int64]int
		gone          bool
	}{
		"nothing changed":                    {of(first, second), of(first, second), nil, nil, map[int64]int{}, false},
		"one is edited":                      {of(first, second), of(edited(1, 10, 3), second), nil, nil, map[int64]int{10: 1}, false},
		"one is disabled":                    {of(first, second), of(disabled, second), []int64{10}, nil, map[int64]int{10: 1}, false},
		"one gives its order up":             {of(first, second), of(unordered, second), []int64{10}, nil, map[int64]int{10: 1}, false},
		"one is enabled":                     {of(first, second), of(enabled, second), []int64{10}, []int64{10}, map[int64]int{10: 1}, false},
		"one moves":                          {of(first, second), of(moved, second), []int64{10, 20}, nil, map[int64]int{10: 0, 20: 2}, false},
		"one comes":                          {of(first), of(first, second), []int64{20}, nil, map[int64]int{20: 1}, false},
		"one goes":                           {of(first, second), of(first), []int64{20}, nil, map[int64]int{20: 0}, true},
		"one of its former URLs is let go":   {of(leaving), of(left), nil, nil, map[int64]int{10: 1}, false},
		"the last of its former URLs is too": {of(left), of(first), []int64{10}, nil, map[int64]int{10: 1}, false},
	} {
		d := diffWebhooks(tt.before, tt.after)
		stale, reset := map[int64]struct{}{}, map[int64]struct{}{}
		for _, id := range tt.stale {
			stale[id] = struct{}{}
		}
		for _, id := range tt.reset {
			reset[id] = struct{}{}
		}
		hooks := map[int64]int{}
		for id, list := range d.hooks {
			hooks[id] = len(list)
		}
		if fmt.Sprint(d.stale, d.reset, hooks, d.deleted) != fmt.Sprint(stale, reset, tt.hooks, tt.gone) {
			t.Errorf("%s: stale are %v, reset %v, with webhooks %v; gone: %t", name, d.stale, d.reset, hooks, d.deleted)
		}
	}
	c := newClocked(t, first, second)
	third := edited(3, 30, 3)
	third.PreviousEndpoints = []int64{10}
	if gone := c.ApplyWebhooks(of(first, third)); !gone || c.endpoints[30] == nil || len(c.endpoints[30].hooks) != 1 || len(c.endpoints[20].hooks) > 0 || c.e.state != complete {
		t.Errorf("webhooks are gone: %t; the endpoints are %v", gone, c.endpoints)
	}
	generation := c.e.generation
	if c.ApplyWebhooks(of(first, edited(3, 30, 4))); c.e.generation != generation || c.endpoints[30].generation == 0 {
		t.Error("an edit touches another endpoint, or not its own")
	}
	delete(c.endpoints, 20)
	if c.ApplyWebhooks(of(first)); c.endpoints[20] != nil {
		t.Error("an endpoint without webhooks is made")
	}
}

// Nothing starts while webhooks are switched off on the site, or the daemon stops.
func TestSiteSwitch(t *testing.T) {
	t.Parallel()
	hook := edited(1, 10, 1)
	c := newClocked(t, hook)
	used := *c.webhooks
	off := used
	off.Enabled = false
	c.ApplyWebhooks(&off)
	if n := c.offer(1); n != 0 {
		t.Errorf("%d attempts begin while webhooks are not used", n)
	}
	if c.ApplyWebhooks(&used); len(c.sent) != 1 {
		t.Errorf("%d attempts begin once webhooks are used, not one", len(c.sent))
	}
	c.e.limit, c.stopping = 8, true
	if n := c.offer(1); n != 0 {
		t.Errorf("%d attempts begin while the daemon stops", n)
	}
	queried := false
	c.actions.QuerySuccessor = func(*SuccessorQuery) { queried = true }
	c.requestSuccessor(c.e, &line{})
	if c.e.state = complete; queried {
		t.Error("a stopping daemon queries successors")
	}
	if c.queueLoad(c.e); c.e.state != complete {
		t.Error("a daemon that stops loads more")
	}
	c.stopping, c.e.state = false, releasing
	if c.queueLoad(c.e); c.e.state != releasing {
		t.Error("more is loaded of an endpoint that is left")
	}
	if c.requestSuccessor(c.e, &line{}); !queried {
		t.Error("no successor is queried")
	}
}

// A round trip loads few endpoints with much room, or many with little. If something happens meanwhile, it is repeated.
func TestLoads(t *testing.T) {
	t.Parallel()
	hooks := make([]*Webhook, 0, 300)
	for id := range int64(300) {
		hooks = append(hooks, edited(id+1, id+1, id+1))
	}
	for _, tt := range []struct{ held, busy, loads int }{{0, 0, 1}, {0, 8, maxLoadRoom / (crowdedAt / 8)}, {0, crowdedAt, maxLoadRoom / minWindow}, {crowdedAt, 0, maxLoadEndpoints}} {
		c := newClocked(t, edited(1000, 10, 1))
		c.e = nil
		c.learn(hooks...)
		c.memory.held, c.memory.holders = tt.held, tt.busy
		for _, h := range hooks {
			c.MarkClaimed(0, h.ID, 0, 0)
			c.queueLoad(c.endpoints[h.ID])
		}
		drain(c.LoadsPending)
		if loads := c.TakeLoads(); len(loads) != tt.loads || !drain(c.LoadsPending) {
			t.Errorf("with %d deliveries at %d endpoints one round trip asks for %d, not %d", tt.held, tt.busy, len(loads), tt.loads)
		}
	}
	for name, tt := range map[string]struct {
		prepare func(*clocked, *Load)
		err     error
		again   bool // at once
		later   bool
	}{
		"nothing came":         {prepare: func(*clocked, *Load) {}},
		"something was missed": {prepare: func(c *clocked, _ *Load) { c.queueLoad(c.e) }, again: true},
		"it was forgotten":     {prepare: func(c *clocked, _ *Load) { c.e.invalidate() }, again: true},
		"it was lost":          {prepare: func(c *clocked, _ *Load) { c.e.on(disown) }},
		"a webhook has come":   {prepare: func(_ *clocked, l *Load) { l.Stale = true }, later: true},
		"an edit was seen":     {prepare: func(_ *clocked, l *Load) { l.Due = []*Delivery{{ID: 1, WebhookID: 1, Version: 9, Attempts: 1}} }, later: true},
		"a webhook is gone":    {prepare: func(_ *clocked, l *Load) { l.Tests = []*Delivery{{ID: 1, WebhookID: 9, Kind: KindTest}} }, later: true},
		"it has moved": {prepare: func(_ *clocked, l *Load) {
			l.Tests = []*Delivery{{ID: 1, WebhookID: 2, Version: 2, Kind: KindTest}}
		}, later: true},
		"the store does not answer": {prepare: func(*clocked, *Load) {}, err: errors.New("away"), later: true},
	} {
		c := newClocked(t, edited(1, 10, 1), edited(2, 20, 2))
		in := c.armed()
		c.queueLoad(c.e)
		loads := c.TakeLoads()
		tt.prepare(c, loads[0])
		c.LoadsEnded(loads, tt.err)
		if (c.e.state == queued) != tt.again || (c.e.state == deferred) != tt.later || (*in >= 0) != tt.later || len(c.sent) > 0 {
			t.Errorf("%s: it is in state %d, and its timer fires in %s; %d attempts start", name, c.e.state, *in, len(c.sent))
		}
	}
	c := newClocked(t, edited(1, 10, 1))
	for id := range int64(maxWindow) {
		c.e.hold(&Delivery{ID: id + 1})
		c.e.due = append(c.e.due, &Delivery{ID: id + 1})
	}
	if c.queueLoad(c.e); c.e.state != incomplete {
		t.Error("a full endpoint forgets that the store has more, or loads though there is no room")
	}
}
