package schedule

import (
	"maps"
	"slices"
)

// queueLoad queues the endpoint for a loader. If a load is under way already, another one follows it.
func (s *Schedule) queueLoad(e *Endpoint) {
	wanted := loadWanted
	if e.full() {
		wanted = loadWhenRoom // startAttempts queues it then
	}
	if !s.stopping && e.on(wanted) && e.state == queued {
		s.loads.push(e)
		s.LoadsPending.Signal()
	}
}

// TakeLoads returns the loads that one loader does in a round trip: several, if each has little room.
func (s *Schedule) TakeLoads() []*Load {
	s.mu.Lock()
	defer s.mu.Unlock()
	var loads []*Load
	for room := 0; room < maxLoadRoom && len(loads) < maxLoadEndpoints && !s.loads.empty(); {
		if e := s.loads.pop(); e.on(loadBegun) {
			e.load = e.newLoad()
			room += int(e.load.Asked.Room)
			loads = append(loads, e.load)
		}
	}
	if !s.loads.empty() {
		s.LoadsPending.Signal() // for another loader
	}
	return loads
}

// LoadsEnded takes what loads have found, or the error that ended them.
func (s *Schedule) LoadsEnded(loads []*Load, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range loads {
		s.applyLoad(l, err)
	}
	s.startAttempts()
	for _, l := range loads {
		s.rearm(l.endpoint)
	}
}

// applyLoad takes what a load has found, unless it is stale or failed.
func (s *Schedule) applyLoad(l *Load, err error) {
	e := l.endpoint
	switch {
	case e.load != l: // the endpoint was invalidated meanwhile, or is another daemon's
	case err != nil:
		e.deferLoad(s.actions.Now())
	case !s.matches(e, l.Stale, l.deliveries):
		s.awaitRefresh(e)
	default:
		e.applyLoad(l, s.actions.Now(), func(d *Delivery) {
			s.resolve(d)
			s.admit(d)
		})
	}
	s.ring.push(e)
}

// requestLoad is called if the store has a delivery for the endpoint that is not held here. It is loaded, or the
// endpoint's owner is notified.
func (s *Schedule) requestLoad(id int64) {
	if e := s.endpoints[id]; e != nil && e.state.owned() {
		s.queueLoad(e)
		return
	}
	s.queuedForOthers[id] = struct{}{}
	s.NotificationPending.Signal()
}

// QueueLoadAll lets no endpoint take deliveries from the stream before it was loaded, since the store may have some
// that come first.
func (s *Schedule) QueueLoadAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.endpoints {
		s.queueLoad(e)
	}
}

// QueuedElsewhere loads endpoints for which another daemon has queued something. Those that are not ours are ignored.
func (s *Schedule) QueuedElsewhere(ids []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if e := s.endpoints[id]; e != nil {
			s.queueLoad(e)
		}
	}
}

// InvalidateAll loads all endpoints again, because deliveries have vanished from the store.
func (s *Schedule) InvalidateAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.endpoints {
		e.invalidate()
		s.queueLoad(e)
	}
}

// TakeQueuedForOthers returns the endpoints whose owners are to be notified.
func (s *Schedule) TakeQueuedForOthers() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := slices.Collect(maps.Keys(s.queuedForOthers))
	clear(s.queuedForOthers)
	return ids
}
