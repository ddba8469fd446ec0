package schedule

import "time"

// state is whether this process may send to an endpoint, and whether the endpoint's memory matches the store:
//
//	           claim            loadWanted          loadBegun           foundAll
//	notOwned --------> claimed ------------> queued ----------> loading ----------> complete
//	    ^                 |                    ^                   |                 |    ^
//	    | disown,         |                    |                   | moreStored      |    |
//	    | from any        |                    |                   v                 |    |
//	    |                 |                    |               reloading             |    |
//	releasing             |                    |                   |                 |    |
//	    ^                 |         loadWanted |         foundAll, |      moreStored |    |
//	    | release,        |                    |         foundPart v                 |    |
//	    | from any        |                    +----- incomplete <-------------------+    |
//	    | on the right    |                    +----- deferred: after loadPostponed       |
//	                      |                              nothingPending                   |
//	                      +---------------------------------------------------------------+
//
// Not drawn: foundPart leads from loading to incomplete, as invalidated does from loading, reloading, claimed and
// complete. Deliveries are sent in all states but notOwned and releasing. Only complete takes deliveries from the stream
// directly (tryHold), since nothing in the store can come before them.
type state uint8

const (
	notOwned   state = iota // another daemon may send to it
	releasing               // owned, but nothing more is sent; released once nothing is active
	claimed                 // owned; nothing was asked of the store yet
	incomplete              // the store may have never-tried deliveries that are not held; loaded when there is room
	queued                  // waits for a loader
	loading                 // a load is under way
	reloading               // a load is under way that may miss something, so another one follows
	deferred                // waits for DueAt with the next load: the last one failed, or memory did not match the store
	complete                // each never-tried delivery is held, or lies behind an earlier one about the same response
)

func (s state) owned() bool { return s != notOwned }

// sends reports whether this process may start attempts.
func (s state) sends() bool { return s > releasing }

// event is something that may change the state of an endpoint.
type event uint8

const (
	claim          event = iota
	release              // it is another daemon's from now on
	resume               // it is this daemon's again, before it was released
	disown               // it was released, or the lease has expired
	nothingPending       // the store has nothing for it
	moreStored           // the store may have something that is not held
	loadWanted           // it has to be loaded
	loadWhenRoom         // the same, but memory is full
	loadBegun
	foundAll      // a load has found all that was there
	foundPart     // a load has found as much as there was room for
	loadPostponed // a load failed, or memory does not match the store
	invalidated   // what was held is no longer valid
)

// transitions has the state that follows. An event that is not listed for a state leaves it as it is. Nothing else
// changes a state.
var transitions = [...]map[state]state{
	claim: {notOwned: claimed},
	release: {
		claimed: releasing, incomplete: releasing, queued: releasing, loading: releasing, reloading: releasing,
		deferred: releasing, complete: releasing,
	},
	resume: {releasing: incomplete},
	disown: {
		releasing: notOwned, claimed: notOwned, incomplete: notOwned, queued: notOwned, loading: notOwned,
		reloading: notOwned, deferred: notOwned, complete: notOwned,
	},
	nothingPending: {claimed: complete},
	moreStored:     {claimed: incomplete, complete: incomplete, loading: reloading},
	loadWanted:     {claimed: queued, incomplete: queued, deferred: queued, complete: queued, loading: reloading},
	loadWhenRoom:   {claimed: incomplete, deferred: incomplete, complete: incomplete, loading: reloading},
	loadBegun:      {queued: loading},
	foundAll:       {loading: complete, reloading: incomplete},
	foundPart:      {loading: incomplete, reloading: incomplete},
	loadPostponed: {
		claimed: deferred, incomplete: deferred, loading: deferred, reloading: deferred, complete: deferred,
	},
	invalidated: {claimed: incomplete, loading: incomplete, reloading: incomplete, complete: incomplete},
}

// on changes the state after an event, and reports whether it is another one now. What a load under way finds is
// ignored once the state is neither loading nor reloading.
func (e *Endpoint) on(ev event) bool {
	to, listed := transitions[ev][e.state]
	if !listed {
		return false
	}
	e.state = to
	if to != loading && to != reloading {
		e.load = nil
	}
	return true
}

// deferLoad lets the next load wait a second, because the last one failed or was stale.
func (e *Endpoint) deferLoad(now time.Time) {
	if e.on(loadPostponed) {
		e.dueAt = now.Add(time.Second)
	}
}
