package dispatch

import (
	"strconv"
	"strings"
)

// queueLoad queues the endpoint for a loader. If a load is under way already, another one follows it.
func (s *schedule) queueLoad(e *endpoint) {
	wanted := loadWanted
	if e.full() {
		wanted = loadWhenRoom // startAttempts queues it then
	}
	if !s.stopping && e.on(wanted) && e.state == queued {
		s.loads.push(e)
		s.loadsPending.signal()
	}
}

// takeLoads returns the loads that one loader does in a round trip: several, if each has little room.
func (s *schedule) takeLoads() []*endpointLoad {
	s.mu.Lock()
	defer s.mu.Unlock()
	var loads []*endpointLoad
	for room := 0; room < maxLoadRoom && len(loads) < maxLoadEndpoints && !s.loads.empty(); {
		if e := s.loads.pop(); e.on(loadBegun) {
			e.load = e.newLoad()
			room += int(e.load.asked.Room)
			loads = append(loads, e.load)
		}
	}
	if !s.loads.empty() {
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
	switch {
	case e.load != l: // the endpoint was invalidated meanwhile, or is another daemon's
	case err != nil:
		e.deferLoad(s.now())
	case !s.matches(e, l.stale, l.deliveries):
		s.awaitRefresh(e)
	default:
		e.applyLoad(l, s.now(), func(d *delivery) {
			s.resolve(d)
			s.admit(d)
		})
	}
	s.ring.push(e)
}

// requestLoad is called if the store has a delivery for the endpoint that is not held here. It is loaded, or the
// endpoint's owner is notified.
func (s *schedule) requestLoad(id int64) {
	if e := s.endpoints[id]; e != nil && e.state.owned() {
		s.queueLoad(e)
		return
	}
	s.queuedForOthers[id] = struct{}{}
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
		if e := s.endpoints[id]; err == nil && e != nil {
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
