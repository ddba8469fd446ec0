package stream

import (
	"strconv"
	"testing"

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
