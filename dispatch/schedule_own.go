package dispatch

import (
	"maps"
	"slices"
	"time"
)

// live notes until when attempts may begin.
func (s *schedule) live(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aliveUntil = until
	s.pump()
}

// liveNoLonger lets attempts begin no longer than until then.
func (s *schedule) liveNoLonger(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aliveUntil = earlier(s.aliveUntil, until)
}

// draining reports whether no attempt is begun any more because the daemon is being stopped.
func (s *schedule) draining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// register makes this a daemon of that number: what it claims, it claims under that.
func (s *schedule) register(id int64) {
	s.mu.Lock()
	s.daemon = id
	s.mu.Unlock()
	s.wake()
}

// registered returns the daemon's number, 0 where it has none.
func (s *schedule) registered() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.daemon
}

// known returns the webhooks as they are in memory, and how many strangers have come so far.
func (s *schedule) known() (*webhooks, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.webhooks, s.came
}

// difference is what lies between the webhooks before and those loaded.
type difference struct {
	hooks map[int64][]*webhook // all that the endpoints of changed webhooks have now
	stale map[int64]struct{}   // endpoints at which something changed that their deliveries depend on
	reset map[int64]struct{}   // endpoints whose failures count no more
	gone  bool                 // webhooks were deleted
}

func differenceOf(before, loaded *webhooks) *difference {
	d := &difference{hooks: map[int64][]*webhook{}, stale: map[int64]struct{}{}, reset: map[int64]struct{}{}}
	for id, w := range loaded.byID {
		old := before.byID[id]
		if w == old {
			continue
		}
		d.hooks[w.endpointID] = nil
		if old != nil {
			d.hooks[old.endpointID] = nil
		}
		if w.same(old) {
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
			d.gone = true
		}
	}
	for _, w := range loaded.byID {
		if list, changed := d.hooks[w.endpointID]; changed {
			d.hooks[w.endpointID] = append(list, w)
		}
	}
	return d
}

// apply takes over reloaded webhooks. Endpoints at which something changed that their deliveries depend on are loaded anew. It
// reports whether webhooks are gone. One goroutine alone calls it, so that all webhooks can be gone through without the mutex.
func (s *schedule) apply(loaded *webhooks) (gone bool) {
	before, _ := s.known()
	d := differenceOf(before, loaded)
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
		e.hooks, e.edition = list, editionOf(list)
		e.moving = slices.ContainsFunc(list, (*webhook).moving)
		s.turn(e)
	}
	for id := range d.stale {
		e := s.endpoints[id]
		if e == nil {
			continue
		}
		if _, enabled := d.reset[id]; enabled && e.owned {
			e.reset(s.now())
			s.troubled[e] = struct{}{}
			signal(s.recorded)
		}
		e.forget()
		s.wantLoad(e)
	}
	if loaded.enabled != before.enabled {
		for _, e := range s.endpoints {
			s.turn(e)
		}
	}
	s.pump()
	return d.gone
}

// ended tells of webhooks with a new URL the endpoints of the one before, where these are ours and nothing is in flight for them.
func (s *schedule) ended() (webhookIDs, endpointIDs []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.webhooks.byID {
		for _, id := range w.leftAt {
			if e := s.endpoints[id]; e != nil && e.owned && !e.sends(w.id) {
				webhookIDs, endpointIDs = append(webhookIDs, w.id), append(endpointIDs, id)
			}
		}
	}
	return webhookIDs, endpointIDs
}

// shares tells which endpoints to claim and which to give back. What is to be given back is first left alone until
// nothing of it is in flight.
func (s *schedule) shares(mine func(endpoint int64) bool) (claim, release []int64) {
	s.mu.Lock()
	ids := slices.Collect(maps.Keys(s.endpoints))
	s.mu.Unlock()
	// Their owners are found without the mutex. Only the goroutine that calls this adds and removes endpoints.
	ours := make(map[int64]bool, len(ids))
	for _, id := range ids {
		ours[id] = mine(id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, e := range s.endpoints {
		// While results wait for a lock nobody else could go on with it.
		want := !s.stopping && len(e.hooks) > 0 && ours[id] || e.owned && len(e.aside) > 0
		switch {
		case want && !e.owned:
			claim = append(claim, id)
		case want && e.leaving:
			e.leaving = false
			s.wantLoad(e)
		case !want && e.owned:
			if !e.leaving {
				e.leaving = true
				e.forget()
			}
			if len(e.flying) == 0 {
				release = append(release, id)
			}
		case !want && len(e.hooks) == 0 && len(e.flying) == 0:
			delete(s.endpoints, id)
		}
	}
	return claim, release
}

// released lets go of endpoints that the daemon of that number has given back.
func (s *schedule) released(daemon int64, ids []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if daemon != s.daemon {
		return
	}
	for _, id := range ids {
		if e := s.endpoints[id]; e != nil {
			e.owned, e.leaving = false, false
			e.forget()
		}
	}
}

// claimed takes over an endpoint for the daemon of that number, as its last owner left it: with that many failures in a row, to be left
// alone for the pause. Where this daemon has been taken for dead meanwhile, the endpoint is not its own.
func (s *schedule) claimed(daemon, id int64, failures int, pause time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.endpoints[id]
	if e == nil || e.owned || daemon != s.daemon {
		return
	}
	e.owned = true
	e.forget()
	e.missed = false
	e.failures, e.troubled = failures, failures > 0
	e.notBefore = s.now().Add(pause)
	if e.failures > 0 {
		e.limit = 1
	}
	s.rearm(e)
}

// loseAll gives up all endpoints at once, after others took them over.
func (s *schedule) loseAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aliveUntil, s.daemon = time.Time{}, 0
	for _, e := range s.endpoints {
		e.owned, e.leaving = false, false
		e.forget()
	}
}

// idle returns the endpoints that seem idle, with the generation of their memory, and their webhooks with the endpoint's cursor.
func (s *schedule) idle() (asked map[*endpoint]int, ids, cursors []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked = map[*endpoint]int{}
	for _, e := range s.endpoints {
		if !e.owned || e.leaving || e.loading || e.full() {
			continue
		}
		if e.more && e.missed {
			s.wantLoad(e)
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

// busy takes the answer to it: webhooks that have something pending.
func (s *schedule) busy(asked map[*endpoint]int, pending []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	busy := map[*endpoint]struct{}{}
	for _, id := range pending {
		if w := s.webhooks.byID[id]; w != nil {
			if e := s.endpoints[w.endpointID]; e != nil {
				busy[e] = struct{}{}
				s.wantLoad(e)
			}
		}
	}
	for e, generation := range asked {
		if _, has := busy[e]; has || !e.owned || e.loading || e.generation != generation {
			continue
		}
		if e.missed {
			s.wantLoad(e)
			continue
		}
		// Just claimed, and nothing is pending: what comes next may be handed over.
		e.more = e.more && (len(e.held) > 0 || e.cursor > 0)
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
