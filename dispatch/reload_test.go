package dispatch

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Endpoints that are told of are looked at where they are this daemon's; where nobody says which, all are.
func TestQueuedFor(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string][]int64{"10": {10}, "99 x 20 10": {10}, "20": nil, "x": nil, "": {10, 30}} {
		c := newClocked(t, edited(1, 10, 1), edited(2, 20, 2), edited(3, 30, 3))
		c.claimed(0, 30, 0, 0)
		c.queuedFor(payload)
		var got []int64
		for id, e := range c.endpoints {
			if e.loading {
				got = append(got, id)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%q: %v are looked at, not %v", payload, got, want)
		}
	}
	c := newClocked(t, edited(1, 10, 1), edited(2, 20, 2))
	c.lacks(c.endpoints[20])
	if !drain(c.tell) || c.takeElsewhere() != "20" || c.takeElsewhere() != "" {
		t.Error("the owner of an endpoint is not told once of what was queued for it")
	}
	for _, n := range []int{tellLimit, tellLimit + 1} {
		for id := range n {
			c.elsewhere[int64(id)] = struct{}{}
		}
		want := n
		if n > tellLimit {
			want = 0 // all are meant
		}
		if got := len(strings.Fields(c.takeElsewhere())); got != want {
			t.Errorf("of %d endpoints %d are told of by name", n, got)
		}
	}
}

// Only endpoints at which something changed that their deliveries depend on are loaded anew, and only what a webhook's new URL or its enabling
// concerns begins without failures.
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
	leaving.leftAt, left.leftAt = []int64{30, 40}, []int64{30}
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
		d := differenceOf(tt.before, tt.after)
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
		if fmt.Sprint(d.stale, d.reset, hooks, d.gone) != fmt.Sprint(stale, reset, tt.hooks, tt.gone) {
			t.Errorf("%s: stale are %v, reset %v, with webhooks %v; gone: %t", name, d.stale, d.reset, hooks, d.gone)
		}
	}
	c := newClocked(t, first, second)
	third := edited(3, 30, 3)
	third.leftAt = []int64{10}
	if gone := c.apply(of(first, third)); !gone || c.endpoints[30] == nil || !c.endpoints[30].moving || len(c.endpoints[20].hooks) > 0 || c.e.loading {
		t.Errorf("webhooks are gone: %t; the endpoints are %v", gone, c.endpoints)
	}
	delete(c.endpoints, 20)
	if c.apply(of(first)); c.endpoints[20] != nil {
		t.Error("an endpoint without webhooks is made")
	}
}

// While webhooks are not used on the site, or the daemon stops, nothing begins; once they are used again everything goes on.
func TestSwitch(t *testing.T) {
	t.Parallel()
	hook := edited(1, 10, 1)
	c := newClocked(t, hook)
	used := *c.webhooks
	off := used
	off.enabled = false
	c.apply(&off)
	if n := c.offer(1); n != 0 {
		t.Errorf("%d attempts begin while webhooks are not used", n)
	}
	if c.apply(&used); len(c.sent) != 1 {
		t.Errorf("%d attempts begin once webhooks are used, not one", len(c.sent))
	}
	c.e.limit, c.stopping = 8, true
	if n := c.offer(1); n != 0 {
		t.Errorf("%d attempts begin while the daemon stops", n)
	}
	looked := false
	c.find = func(*successorQuery) { looked = true }
	c.lookUp(c.e, &line{})
	if c.e.loading = false; looked {
		t.Error("a daemon that stops looks for more")
	}
	if c.wantLoad(c.e); c.e.loading {
		t.Error("a daemon that stops loads more")
	}
	c.stopping, c.e.leaving = false, true
	if c.wantLoad(c.e); c.e.loading {
		t.Error("more is loaded of an endpoint that is left")
	}
	if c.lookUp(c.e, &line{}); !looked {
		t.Error("nothing is looked for")
	}
}

// A look asks about few endpoints with much room or many with little; what came in its way meanwhile lets it be made again.
func TestLooks(t *testing.T) {
	t.Parallel()
	hooks := make([]*webhook, 0, 300)
	for id := range int64(300) {
		hooks = append(hooks, edited(id+1, id+1, id+1))
	}
	for _, tt := range []struct{ held, busy, looks int }{{0, 0, 1}, {0, 8, lookRoom / (crowded / 8)}, {0, crowded, lookRoom / chunk}, {crowded, 0, lookAt}} {
		c := newClocked(t, edited(1000, 10, 1))
		c.e = nil
		c.learn(hooks...)
		c.memory.held, c.memory.busy = tt.held, tt.busy
		for _, h := range hooks {
			c.claimed(0, h.id, 0, 0)
			c.wantLoad(c.endpoints[h.id])
		}
		drain(c.loadable)
		if looks := c.takeLooks(); len(looks) != tt.looks || !drain(c.loadable) {
			t.Errorf("with %d deliveries at %d endpoints one look asks about %d, not %d", tt.held, tt.busy, len(looks), tt.looks)
		}
	}
	for name, tt := range map[string]struct {
		prepare func(*clocked, *look)
		err     error
		again   bool // at once
		later   bool
	}{
		"nothing came":              {prepare: func(*clocked, *look) {}},
		"something was missed":      {prepare: func(c *clocked, _ *look) { c.wantLoad(c.e) }, again: true},
		"it was forgotten":          {prepare: func(c *clocked, _ *look) { c.e.forget() }, again: true},
		"it was lost":               {prepare: func(c *clocked, _ *look) { c.e.owned = false }},
		"a webhook has come":        {prepare: func(_ *clocked, l *look) { l.stale = true }, later: true},
		"an edit was seen":          {prepare: func(_ *clocked, l *look) { l.due = []*delivery{{id: 1, webhookID: 1, edition: 9, attempts: 1}} }, later: true},
		"a webhook is gone":         {prepare: func(_ *clocked, l *look) { l.tests = []*delivery{{id: 1, webhookID: 9, kind: kindTest}} }, later: true},
		"it has moved":              {prepare: func(_ *clocked, l *look) { l.tests = []*delivery{{id: 1, webhookID: 2, edition: 2, kind: kindTest}} }, later: true},
		"the store does not answer": {prepare: func(*clocked, *look) {}, err: errors.New("away"), later: true},
	} {
		c := newClocked(t, edited(1, 10, 1), edited(2, 20, 2))
		in := c.armed()
		c.wantLoad(c.e)
		looks := c.takeLooks()
		tt.prepare(c, looks[0])
		c.loaded(looks, tt.err)
		if c.e.loading != tt.again || c.e.later != tt.later || (*in >= 0) != tt.later || len(c.sent) > 0 {
			t.Errorf("%s: it is looked at again: %t, or later: %t, in %s; %d attempts begin", name, c.e.loading, c.e.later, *in, len(c.sent))
		}
	}
	c := newClocked(t, edited(1, 10, 1))
	for id := range int64(window) {
		c.e.hold(&delivery{id: id + 1})
		c.e.due = append(c.e.due, &delivery{id: id + 1})
	}
	if c.wantLoad(c.e); c.e.loading || !c.e.more {
		t.Error("what a full endpoint lacks is forgotten, or loaded though there is no room")
	}
}
