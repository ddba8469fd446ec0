package dispatch

import (
	"strconv"
	"strings"
)

// queueLoad queues the endpoint for a loader. If a load is under way already, another one follows it.
func (s *schedule) queueLoad(e *endpoint) {
	if !e.owned || e.releasing || s.stopping {
		return
	}
	if e.loading {
		e.loadAgain = true
		return
	}
	if e.full() {
		e.moreInStore = true // startAttempts queues it when there is room
		return
	}
	e.loading, e.loadDeferred = true, false
	s.toLoad = append(s.toLoad, e)
	s.loadsPending.signal()
}

// takeLoads returns the loads that one loader does in a round trip: several, if each has little room.
func (s *schedule) takeLoads() []*endpointLoad {
	s.mu.Lock()
	defer s.mu.Unlock()
	var loads []*endpointLoad
	for room := 0; room < maxLoadRoom && len(loads) < maxLoadEndpoints && len(s.toLoad) > 0; {
		e := s.toLoad[0]
		s.toLoad[0] = nil
		s.toLoad = s.toLoad[1:]
		l := e.newLoad()
		room += int(l.asked.Room)
		loads = append(loads, l)
	}
	if len(s.toLoad) > 0 {
		s.loadsPending.signal() // for another loader
	}
	return loads
}

// loadsEnded takes what loads have found, or the error that ended them.
func (s *schedule) loadsEnded(loads []*endpointLoad, err error) {
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
func (s *schedule) applyLoad(l *endpointLoad, err error) {
	e := l.endpoint
	e.loading = false
	switch {
	case err != nil:
		e.deferLoad(s.now())
	case e.generation != l.generation || !e.owned:
		s.queueLoad(e)
	case l.stale || !s.isLoadCurrent(l):
		s.awaitRefresh(e)
	default:
		e.applyLoad(l, s.now(), func(d *delivery) {
			s.resolve(d)
			s.admit(d)
		})
	}
	s.addToRing(e)
}

// awaitRefresh is called if the store has other webhooks of the endpoint's URL than are known here, because their
// deliveries may come first. It requests a refresh, and a load after that.
func (s *schedule) awaitRefresh(e *endpoint) {
	e.deferLoad(s.now())
	s.rearm(e)
	s.requestRefresh()
}

// requestLoad is called if the store has a delivery for the endpoint that is not held here. It is loaded, or the
// endpoint's owner is notified.
func (s *schedule) requestLoad(e *endpoint) {
	if e.owned {
		s.queueLoad(e)
		return
	}
	s.queuedForOthers[e.id] = struct{}{}
	s.notificationPending.signal()
}

// queueLoadAll lets no endpoint take deliveries from the stream before it was loaded, since the store may have some
// that come first.
func (s *schedule) queueLoadAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.endpoints {
		s.queueLoad(e)
	}
}

// queuedNotification takes a notification of another daemon that it has queued something for this one's endpoints.
func (s *schedule) queuedNotification(payload string) {
	if payload == "" {
		s.queueLoadAll()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if payload == queueTruncated {
		for _, e := range s.endpoints {
			e.invalidate()
			s.queueLoad(e)
		}
		return
	}
	for field := range strings.FieldsSeq(payload) {
		id, err := strconv.ParseInt(field, 10, 64)
		if e := s.endpoints[id]; err == nil && e != nil && e.owned {
			s.queueLoad(e)
		}
	}
}

// takeQueuedForOthers returns the payload that notifies the owners of other endpoints: their ids, or "" for all if
// there are too many.
func (s *schedule) takeQueuedForOthers() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	if len(s.queuedForOthers) <= notifyLimit {
		for id := range s.queuedForOthers {
			ids = append(ids, strconv.FormatInt(id, 10))
		}
	}
	clear(s.queuedForOthers)
	return strings.Join(ids, " ")
}

// isDeliveryCurrent reports whether a loaded delivery's webhook is known as the store had it, at this endpoint.
func (s *schedule) isDeliveryCurrent(d *delivery, e *endpoint) bool {
	hook := s.webhooks.byID[d.webhookID]
	return hook != nil && hook.edition == d.edition && hook.endpointID == e.id
}

// isLoadCurrent reports whether that holds for all deliveries of a load. If one had to be skipped, those behind it
// would overtake it.
func (s *schedule) isLoadCurrent(l *endpointLoad) bool {
	for d := range l.deliveries {
		if !s.isDeliveryCurrent(d, l.endpoint) {
			return false
		}
	}
	return true
}
