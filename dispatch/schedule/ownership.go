package schedule

import (
	"maps"
	"slices"
	"time"
)

// AllowStartsUntil lets attempts start until then, because the lease outlives an attempt that starts in time.
func (s *Schedule) AllowStartsUntil(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startsUntil = until
	s.startAttempts()
}

// ForbidStartsAfter shortens the time in which attempts may start. It never extends it.
func (s *Schedule) ForbidStartsAfter(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if until.Before(s.startsUntil) {
		s.startsUntil = until
	}
}

// IsStopping reports whether the daemon is stopping and starts no more attempts.
func (s *Schedule) IsStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// Register sets the daemon's id, under which it claims endpoints from now on.
func (s *Schedule) Register(id int64) {
	s.mu.Lock()
	s.daemon = id
	s.mu.Unlock()
	s.RequestRefresh()
}

// Registered returns the daemon's id, or 0.
func (s *Schedule) Registered() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.daemon
}

// KnownWebhooks returns the webhooks in memory.
func (s *Schedule) KnownWebhooks() *Webhooks {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.webhooks
}

// webhookDiff is the difference between the webhooks in memory and those loaded.
type webhookDiff struct {
	hooks   map[int64][]*Webhook // of the endpoints of changed webhooks: all that they have now
	stale   map[int64]struct{}   // endpoints whose deliveries depend on a change
	reset   map[int64]struct{}   // endpoints at which a webhook was enabled again, which clears their failures
	deleted bool                 // webhooks were deleted
}

func diffWebhooks(before, loaded *Webhooks) *webhookDiff {
	d := &webhookDiff{hooks: map[int64][]*Webhook{}, stale: map[int64]struct{}{}, reset: map[int64]struct{}{}}
	for id, w := range loaded.ByID {
		old := before.ByID[id]
		if w == old {
			continue
		}
		d.hooks[w.EndpointID] = nil
		if old != nil {
			d.hooks[old.EndpointID] = nil
		}
		if w.equivalent(old) {
			continue
		}
		d.stale[w.EndpointID] = struct{}{}
		if old == nil {
			continue
		}
		d.stale[old.EndpointID] = struct{}{}
		if old.EndpointID == w.EndpointID && old.Activation != w.Activation {
			d.reset[w.EndpointID] = struct{}{}
		}
	}
	for id, old := range before.ByID {
		if loaded.ByID[id] == nil {
			d.hooks[old.EndpointID] = nil
			d.stale[old.EndpointID] = struct{}{}
			d.deleted = true
		}
	}
	for _, w := range loaded.ByID {
		if list, changed := d.hooks[w.EndpointID]; changed {
			d.hooks[w.EndpointID] = append(list, w)
		}
	}
	return d
}

// ApplyWebhooks replaces the webhooks by reloaded ones, and invalidates endpoints if their deliveries depend on a
// change. It reports whether webhooks were deleted. Only one goroutine calls it, so the comparison needs no mutex.
func (s *Schedule) ApplyWebhooks(loaded *Webhooks) (deleted bool) {
	before := s.KnownWebhooks()
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
			e.reset(s.actions.Now())
			s.endpointsToRecord[e] = struct{}{}
			s.ResultsPending.Signal()
		}
		e.invalidate()
		s.queueLoad(e)
	}
	if loaded.Enabled != before.Enabled {
		for _, e := range s.endpoints {
			s.ring.push(e)
		}
	}
	s.startAttempts()
	return d.deleted
}

// SettledMoves returns moves that are over, as pairs of a webhook and a previous endpoint: this daemon owns the
// endpoint, and nothing is active there for the webhook.
func (s *Schedule) SettledMoves() (webhookIDs, endpointIDs []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.webhooks.ByID {
		for _, id := range w.PreviousEndpoints {
			if e := s.endpoints[id]; e != nil && e.state.owned() && !e.hasActive(w.ID) {
				webhookIDs, endpointIDs = append(webhookIDs, w.ID), append(endpointIDs, id)
			}
		}
	}
	return webhookIDs, endpointIDs
}

// Rebalance returns which endpoints to claim, and which to release. An endpoint that is to be released is sent nothing
// more, and is returned once nothing is active.
func (s *Schedule) Rebalance(owns func(endpoint int64) bool) (toClaim, toRelease []int64) {
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
			s.actions.Arm(e, -1)
			delete(s.endpoints, id)
		}
	}
	return toClaim, toRelease
}

// MarkReleased disowns the endpoints that the daemon of that id has released.
func (s *Schedule) MarkReleased(daemon int64, ids []int64) {
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

// MarkClaimed makes an endpoint owned that the daemon of that id has claimed, with the failures and the pause that its
// last owner recorded. If this daemon has lost that id since, it does not own the endpoint.
func (s *Schedule) MarkClaimed(daemon, id int64, failures int, pause time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.endpoints[id]
	if e == nil || e.state.owned() || daemon != s.daemon {
		return
	}
	e.invalidate()
	e.on(claim)
	e.failures, e.failuresRecorded = failures, failures
	e.notBefore = s.actions.Now().Add(pause)
	if e.failures > 0 {
		e.limit = 1
	}
	s.rearm(e)
}

// DisownAll gives up all endpoints at once: the lease has expired, and others may own them.
func (s *Schedule) DisownAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startsUntil, s.daemon = time.Time{}, 0
	for _, e := range s.endpoints {
		e.on(disown)
		e.invalidate()
	}
}

// IdleEndpoints returns the endpoints that seem to have nothing to do, with their generations, and their webhooks with
// the cursors of their endpoints. FindWork then asks the store whether something is pending.
func (s *Schedule) IdleEndpoints() (asked map[*Endpoint]int, ids, cursors []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked = map[*Endpoint]int{}
	for _, e := range s.endpoints {
		if e.state != claimed && e.state != complete {
			s.queueLoad(e) // also if a load is under way: it may have been too early for what is pending now
			continue
		}
		if e.full() {
			continue
		}
		for _, w := range e.hooks {
			ids = append(ids, w.ID)
			cursors = append(cursors, e.cursor)
		}
		asked[e] = e.generation
	}
	return asked, ids, cursors
}

// WorkFound takes the answer: the webhooks that have something pending.
func (s *Schedule) WorkFound(asked map[*Endpoint]int, pending []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	busy := map[*Endpoint]struct{}{}
	for _, id := range pending {
		if w := s.webhooks.ByID[id]; w != nil {
			if e := s.endpoints[w.EndpointID]; e != nil {
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
