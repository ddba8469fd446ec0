package dispatch

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A notification loads the endpoints that it names, if they are ours, or all if it names none.
func TestQueuedNotification(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string][]int64{"10": {10}, "99 x 20 10": {10}, "20": nil, "x": nil, "": {10, 30}} {
		c := newClocked(t, edited(1, 10, 1), edited(2, 20, 2), edited(3, 30, 3))
		c.markClaimed(0, 30, 0, 0)
		c.queuedNotification(payload)
		var got []int64
		for id, e := range c.endpoints {
			if e.state == queued {
				got = append(got, id)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%q: %v are loaded, not %v", payload, got, want)
		}
	}
	c := newClocked(t, edited(1, 10, 1), edited(2, 20, 2))
	c.requestLoad(20)
	if !drain(c.notificationPending) || c.takeQueuedForOthers() != "20" || c.takeQueuedForOthers() != "" {
		t.Error("the owner of an endpoint is not notified once of what was queued for it")
	}
	for _, n := range []int{notifyLimit, notifyLimit + 1} {
		for id := range n {
			c.queuedForOthers[int64(id)] = struct{}{}
		}
		want := n
		if n > notifyLimit {
			want = 0 // the payload is empty
		}
		if got := len(strings.Fields(c.takeQueuedForOthers())); got != want {
			t.Errorf("of %d endpoints %d are named", n, got)
		}
	}
}

// Only endpoints whose deliveries depend on a change are invalidated. Only enabling a webhook resets failures.
func TestReload(t *testing.T) {
	t.Parallel()
	of := func(hooks ...*webhook) *webhooks {
		known := &webhooks{byID: map[int64]*webhook{}, enabled: true}
		for _, h := range hooks {
			known.byID[h.id] = h
		}
		return known
	}
	first, second := edited(1, 10, 1), edited(2, 20, 2)
	leaving, left := edited(1, 10, 1), edited(1, 10, 1)
	leaving.previousEndpoints, left.previousEndpoints = []int64{30, 40}, []int64{30}
	enabled := edited(1, 10, 3)
	enabled.activation = 3
	moved := edited(1, 20, 3)
	moved.activation = 3
	for name, tt := range map[string]struct {
		before, after *webhooks
		stale, reset  []int64
		hooks         map[int64]int
		gone          bool
	}{
		"nothing changed":                    {of(first, second), of(first, second), nil, nil, map[int64]int{}, false},
		"one is edited":                      {of(first, second), of(edited(1, 10, 3), second), []int64{10}, nil, map[int64]int{10: 1}, false},
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
	third.previousEndpoints = []int64{10}
	if gone := c.applyWebhooks(of(first, third)); !gone || c.endpoints[30] == nil || len(c.endpoints[30].hooks) != 1 || len(c.endpoints[20].hooks) > 0 || c.e.state != complete {
		t.Errorf("webhooks are gone: %t; the endpoints are %v", gone, c.endpoints)
	}
	delete(c.endpoints, 20)
	if c.applyWebhooks(of(first)); c.endpoints[20] != nil {
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
	off.enabled = false
	c.applyWebhooks(&off)
	if n := c.offer(1); n != 0 {
		t.Errorf("%d attempts begin while webhooks are not used", n)
	}
	if c.applyWebhooks(&used); len(c.sent) != 1 {
		t.Errorf("%d attempts begin once webhooks are used, not one", len(c.sent))
	}
	c.e.limit, c.stopping = 8, true
	if n := c.offer(1); n != 0 {
		t.Errorf("%d attempts begin while the daemon stops", n)
	}
	queried := false
	c.querySuccessor = func(*successorQuery) { queried = true }
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
	hooks := make([]*webhook, 0, 300)
	for id := range int64(300) {
		hooks = append(hooks, edited(id+1, id+1, id+1))
	}
	for _, tt := range []struct{ held, busy, loads int }{{0, 0, 1}, {0, 8, maxLoadRoom / (crowdedAt / 8)}, {0, crowdedAt, maxLoadRoom / minWindow}, {crowdedAt, 0, maxLoadEndpoints}} {
		c := newClocked(t, edited(1000, 10, 1))
		c.e = nil
		c.learn(hooks...)
		c.memory.held, c.memory.holders = tt.held, tt.busy
		for _, h := range hooks {
			c.markClaimed(0, h.id, 0, 0)
			c.queueLoad(c.endpoints[h.id])
		}
		drain(c.loadsPending)
		if loads := c.takeLoads(); len(loads) != tt.loads || !drain(c.loadsPending) {
			t.Errorf("with %d deliveries at %d endpoints one round trip asks for %d, not %d", tt.held, tt.busy, len(loads), tt.loads)
		}
	}
	for name, tt := range map[string]struct {
		prepare func(*clocked, *endpointLoad)
		err     error
		again   bool // at once
		later   bool
	}{
		"nothing came":         {prepare: func(*clocked, *endpointLoad) {}},
		"something was missed": {prepare: func(c *clocked, _ *endpointLoad) { c.queueLoad(c.e) }, again: true},
		"it was forgotten":     {prepare: func(c *clocked, _ *endpointLoad) { c.e.invalidate() }, again: true},
		"it was lost":          {prepare: func(c *clocked, _ *endpointLoad) { c.e.on(disown) }},
		"a webhook has come":   {prepare: func(_ *clocked, l *endpointLoad) { l.stale = true }, later: true},
		"an edit was seen":     {prepare: func(_ *clocked, l *endpointLoad) { l.due = []*delivery{{id: 1, webhookID: 1, version: 9, attempts: 1}} }, later: true},
		"a webhook is gone":    {prepare: func(_ *clocked, l *endpointLoad) { l.tests = []*delivery{{id: 1, webhookID: 9, kind: kindTest}} }, later: true},
		"it has moved": {prepare: func(_ *clocked, l *endpointLoad) {
			l.tests = []*delivery{{id: 1, webhookID: 2, version: 2, kind: kindTest}}
		}, later: true},
		"the store does not answer": {prepare: func(*clocked, *endpointLoad) {}, err: errors.New("away"), later: true},
	} {
		c := newClocked(t, edited(1, 10, 1), edited(2, 20, 2))
		in := c.armed()
		c.queueLoad(c.e)
		loads := c.takeLoads()
		tt.prepare(c, loads[0])
		c.loadsEnded(loads, tt.err)
		if (c.e.state == queued) != tt.again || (c.e.state == deferred) != tt.later || (*in >= 0) != tt.later || len(c.sent) > 0 {
			t.Errorf("%s: it is in state %d, and its timer fires in %s; %d attempts start", name, c.e.state, *in, len(c.sent))
		}
	}
	c := newClocked(t, edited(1, 10, 1))
	for id := range int64(maxWindow) {
		c.e.hold(&delivery{id: id + 1})
		c.e.due = append(c.e.due, &delivery{id: id + 1})
	}
	if c.queueLoad(c.e); c.e.state != incomplete {
		t.Error("a full endpoint forgets that the store has more, or loads though there is no room")
	}
}
