package stream

import (
	"strconv"
	"testing"
	"time"

	"walhook/cdc"
)

// The cache never returns a stale state, keeps the states that were used last, and never exceeds two halves.
func TestStateCacheKeepsWhatWasUsedLast(t *testing.T) {
	t.Parallel()
	c := newStateCache()
	hot, last := "hot", map[string]*cdc.State{}
	for i := range 5 * cachedStates {
		id := strconv.Itoa(i % (3 * cachedStates))
		last[id] = &cdc.State{Stamp: strconv.Itoa(i)}
		c.put(id, last[id])
		if i%cachedStates == 0 {
			last[hot] = &cdc.State{Stamp: strconv.Itoa(i)}
			c.put(hot, last[hot])
		}
		if state, cached := c.get(hot); !cached || state != last[hot] {
			t.Fatalf("after %d states the hot one is %v, cached: %v", i, state, cached)
		}
		if n := len(c.recent) + len(c.older); n > 2*cachedStates {
			t.Fatalf("it holds %d states", n)
		}
	}
	kept := 0
	for id, want := range last {
		if state, cached := c.get(id); cached {
			kept++
			if state != want {
				t.Fatalf("the state of %s is %v and not %v", id, state, want)
			}
		}
	}
	if kept < cachedStates {
		t.Errorf("%d states are kept", kept)
	}
	c.put("gone", nil)
	if state, cached := c.get("gone"); state != nil || !cached {
		t.Errorf("a response without a state is %v, cached: %v", state, cached)
	}
	c.purge()
	if _, cached := c.get(hot); cached {
		t.Error("something is left after purge")
	}
}

// The history has each event that fired, and whether its last occurrence was silenced.
func TestHistoryOfEvents(t *testing.T) {
	t.Parallel()
	set := func(types ...cdc.EventType) (events cdc.EventSet) {
		for _, of := range types {
			events |= 1 << of
		}
		return events
	}
	first, second := time.Unix(100, 0), time.Unix(200, 0)
	h := eventHistory{}.add(set(cdc.Created, cdc.Started), false, first)
	if want := (eventHistory{fired: 0b11, at: first}); h != want {
		t.Errorf("after created and started: %+v", h)
	}
	h = h.add(set(cdc.Completed), true, second)
	if want := (eventHistory{fired: 0b111, silenced: 0b100, at: second}); h != want {
		t.Errorf("after a silenced finish: %+v", h)
	}
	if again := h.add(0, true, first); again != h {
		t.Errorf("after a change that fires nothing: %+v", again)
	}
	if h = h.add(set(cdc.Completed), false, first); h.silenced != 0 || h.fired != 0b111 {
		t.Errorf("after a finish that is not silenced: %+v", h)
	}
}
