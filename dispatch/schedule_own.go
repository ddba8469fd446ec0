package dispatch

import (
	"maps"
	"slices"
	"time"
)

// allowStartsUntil lets attempts start until then, because the lease outlives an attempt that starts in time.
func (s *schedule) allowStartsUntil(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startsUntil = until
	s.startAttempts()
}

// forbidStartsAfter shortens the time in which attempts may start. It never extends it.
func (s *schedule) forbidStartsAfter(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startsUntil = earlier(s.startsUntil, until)
}

// isStopping reports whether the daemon is stopping and starts no more attempts.
func (s *schedule) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// register sets the daemon's id, under which it claims endpoints from now on.
func (s *schedule) register(id int64) {
	s.mu.Lock()
	s.daemon = id
	s.mu.Unlock()
	s.requestRefresh()
}

// registered returns the daemon's id, or 0.
func (s *schedule) registered() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.daemon
}

// knownWebhooks returns the webhooks in memory.
func (s *schedule) knownWebhooks() *webhooks {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.webhooks
}

// webhookDiff is the difference between the webhooks in memory and those loaded.
type webhookDiff struct {
	hooks   map[int64][]*webhook // of the endpoints of changed webhooks: all that they have now
	stale   map[int64]struct{}   // endpoints whose deliveries depend on a change
	reset   map[int64]struct{}   // endpoints at which a webhook was enabled again, which clears their failures
	deleted bool                 // webhooks were deleted
}

func diffWebhooks(before, loaded *webhooks) *webhookDiff {
	d := &webhookDiff{hooks: map[int64][]*webhook{}, stale: map[int64]struct{}{}, reset: map[int64]struct{}{}}
	for id, w := range loaded.byID {
		old := before.byID[id]
		if w == old {
			continue
		}
		d.hooks[w.endpointID] = nil
		if old != nil {
			d.hooks[old.endpointID] = nil
		}
		if w.equivalent(old) {
			continue
		}
		d.stale[w.endpointID] = struct{}{}
		if old == nil {
			continue
		}
		d.stale[old.endpointID] = struct{}{}
		if old.endpointID == w.endpointID && old.activation != w.activation {
			d.reset[w.endpointID] = struct{}{}
		}
	}
	for id, old := range before.byID {
		if loaded.byID[id] == nil {
			d.hooks[old.endpointID] = nil
			d.stale[old.endpointID] = struct{}{}
			d.deleted = true
		}
	}
	for _, w := range loaded.byID {
		if list, changed := d.hooks[w.endpointID]; changed {
			d.hooks[w.endpointID] = append(list, w)
		}
	}
	return d
}

// applyWebhooks replaces the webhooks by reloaded ones, and invalidates endpoints if their deliveries depend on a
// change. It reports whether webhooks were deleted. Only one goroutine calls it, so the comparison needs no mutex.
func (s *schedule) applyWebhooks(loaded *webhooks) (deleted bool) {
	before := s.knownWebhooks()
	d := diffWebhooks(before, loaded)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.webhooks = loaded
	for id, list := range d.hooks {
		e := s.endpoints[id]
		if e == nil {
			if len(list) == 0 {
				continue
			}
			e = newEndpoint(id, &s.memory)
			s.endpoints[id] = e
		}
		e.hooks, e.version = list, versionOf(list)
		s.ring.push(e)
	}
	for id := range d.stale {
		e := s.endpoints[id]
		if e == nil {
			continue
		}
		if _, enabled := d.reset[id]; enabled && e.state.owned() {
			e.reset(s.now())
			s.endpointsToRecord[e] = struct{}{}
			s.resultsPending.signal()
		}
		e.invalidate()
		s.queueLoad(e)
	}
	if loaded.enabled != before.enabled {
		for _, e := range s.endpoints {
			s.ring.push(e)
		}
	}
	s.startAttempts()
	return d.deleted
}

// settledMoves returns moves that are over, as pairs of a webhook and a previous endpoint: this daemon owns the
// endpoint, and nothing is active there for the webhook.
func (s *schedule) settledMoves() (webhookIDs, endpointIDs []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.webhooks.byID {
		for _, id := range w.previousEndpoints {
			if e := s.endpoints[id]; e != nil && e.state.owned() && !e.hasActive(w.id) {
				webhookIDs, endpointIDs = append(webhookIDs, w.id), append(endpointIDs, id)
			}
		}
	}
	return webhookIDs, endpointIDs
}

// rebalance returns which endpoints to claim, and which to release. An endpoint that is to be released is sent nothing
// more, and is returned once nothing is active.
func (s *schedule) rebalance(owns func(endpoint int64) bool) (toClaim, toRelease []int64) {
	s.mu.Lock()
	ids := slices.Collect(maps.Keys(s.endpoints))
	s.mu.Unlock()
	// Hashing needs no mutex: only the goroutine that calls this adds and removes endpoints.
	wanted := make(map[int64]bool, len(ids))
	for _, id := range ids {
		wanted[id] = owns(id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, e := range s.endpoints {
		// No other daemon could send to it while results wait for a lock.
		owned := e.state.owned()
		want := !s.stopping && len(e.hooks) > 0 && wanted[id] || owned && len(e.lockedResults) > 0
		switch {
		case want && !owned:
			toClaim = append(toClaim, id)
		case want && e.on(resume):
			s.queueLoad(e)
		case !want && owned:
			if e.on(release) {
				e.invalidate()
			}
			if len(e.active) == 0 {
				toRelease = append(toRelease, id)
			}
		case !want && len(e.hooks) == 0 && len(e.active) == 0:
			delete(s.endpoints, id)
		}
	}
	return toClaim, toRelease
}

// markReleased disowns the endpoints that the daemon of that id has released.
func (s *schedule) markReleased(daemon int64, ids []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if daemon != s.daemon {
		return
	}
	for _, id := range ids {
		if e := s.endpoints[id]; e != nil && e.on(disown) {
			e.invalidate()
		}
	}
}

// markClaimed makes an endpoint owned that the daemon of that id has claimed, with the failures and the pause that its
// last owner recorded. If this daemon has lost that id since, it does not own the endpoint.
func (s *schedule) markClaimed(daemon, id int64, failures int, pause time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.endpoints[id]
	if e == nil || e.state.owned() || daemon != s.daemon {
		return
	}
	e.invalidate()
	e.on(claim)
	e.failures, e.failuresRecorded = failures, failures
	e.notBefore = s.now().Add(pause)
	if e.failures > 0 {
		e.limit = 1
	}
	s.rearm(e)
}

// disownAll gives up all endpoints at once: the lease has expired, and others may own them.
func (s *schedule) disownAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startsUntil, s.daemon = time.Time{}, 0
	for _, e := range s.endpoints {
		e.on(disown)
		e.invalidate()
	}
}

// idleEndpoints returns the endpoints that seem to have nothing to do, with their generations, and their webhooks with
// the cursors of their endpoints. FindWork then asks the store whether something is pending.
func (s *schedule) idleEndpoints() (asked map[*endpoint]int, ids, cursors []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked = map[*endpoint]int{}
	for _, e := range s.endpoints {
		if e.state != claimed && e.state != complete {
			s.queueLoad(e) // also if a load is under way: it may have been too early for what is pending now
			continue
		}
		if e.full() {
			continue
		}
		for _, w := range e.hooks {
			ids = append(ids, w.id)
			cursors = append(cursors, e.cursor)
		}
		asked[e] = e.generation
	}
	return asked, ids, cursors
}

// workFound takes the answer: the webhooks that have something pending.
func (s *schedule) workFound(asked map[*endpoint]int, pending []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	busy := map[*endpoint]struct{}{}
	for _, id := range pending {
		if w := s.webhooks.byID[id]; w != nil {
			if e := s.endpoints[w.endpointID]; e != nil {
				busy[e] = struct{}{}
				s.queueLoad(e)
			}
		}
	}
	for e, generation := range asked {
		if _, has := busy[e]; !has && e.generation == generation {
			e.on(nothingPending)
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
