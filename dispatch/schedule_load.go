package dispatch

import (
	"strconv"
	"strings"
)

// wantLoad sends the endpoint to a loader, unless one is at it.
func (s *schedule) wantLoad(e *endpoint) {
	if !e.owned || e.leaving || s.stopping {
		return
	}
	if e.loading {
		e.missed = true
		return
	}
	if e.full() {
		e.more = true // pump asks again when there is room
		return
	}
	e.loading, e.later = true, false
	s.toLoad = append(s.toLoad, e)
	signal(s.loadable)
}

// takeLooks takes endpoints that wait for a loader: one, or several as long as they have little room.
func (s *schedule) takeLooks() []*look {
	s.mu.Lock()
	defer s.mu.Unlock()
	var looks []*look
	for room := 0; room < lookRoom && len(looks) < lookAt && len(s.toLoad) > 0; {
		e := s.toLoad[0]
		s.toLoad[0] = nil
		s.toLoad = s.toLoad[1:]
		l := e.look()
		room += l.asked.Room
		looks = append(looks, l)
	}
	if len(s.toLoad) > 0 {
		signal(s.loadable) // for another loader
	}
	return looks
}

// loaded takes what looks brought, or that they failed.
func (s *schedule) loaded(looks []*look, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range looks {
		s.integrate(l, err)
	}
	s.pump()
	for _, l := range looks {
		s.rearm(l.endpoint)
	}
}

// integrate takes what a look brought to its endpoint.
func (s *schedule) integrate(l *look, err error) {
	e := l.endpoint
	e.loading = false
	switch {
	case err != nil:
		e.lookLater(s.now())
	case e.generation != l.generation || !e.owned:
		s.wantLoad(e)
	case l.stale || !s.allCurrent(l):
		s.outdated(e)
	default:
		e.integrate(l, s.now(), func(d *delivery) {
			s.resolve(d)
			s.admit(d)
		})
	}
	s.turn(e)
}

// outdated is called when the store has other webhooks of the endpoint's URL than are known, and deliveries of theirs may come first. Once
// they are loaded, what is pending is looked for anew.
func (s *schedule) outdated(e *endpoint) {
	e.lookLater(s.now())
	s.rearm(e)
	s.wake()
}

// lacks is called when the store has something for an endpoint that is not held here: it is loaded, or its owner is told.
func (s *schedule) lacks(e *endpoint) {
	if e.owned {
		s.wantLoad(e)
		return
	}
	s.elsewhere[e.id] = struct{}{}
	signal(s.tell)
}

// doubt makes sure that what is queued from now on is not taken for the next of its endpoint before the store was looked at.
func (s *schedule) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.endpoints {
		s.wantLoad(e)
	}
}

// queuedFor takes such a notification.
func (s *schedule) queuedFor(payload string) {
	if payload == "" {
		s.doubt()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if payload == queueTruncated {
		for _, e := range s.endpoints {
			e.forget()
			s.wantLoad(e)
		}
		return
	}
	for field := range strings.FieldsSeq(payload) {
		id, err := strconv.ParseInt(field, 10, 64)
		if e := s.endpoints[id]; err == nil && e != nil && e.owned {
			s.wantLoad(e)
		}
	}
}

// takeElsewhere returns the endpoints of others for which something was queued, as a notification has them.
func (s *schedule) takeElsewhere() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	if len(s.elsewhere) <= tellLimit {
		for id := range s.elsewhere {
			ids = append(ids, strconv.FormatInt(id, 10))
		}
	}
	clear(s.elsewhere)
	return strings.Join(ids, " ")
}

// current reports whether the webhook of a delivery that was found in the store for an endpoint is known as the store had it.
func (s *schedule) current(d *delivery, e *endpoint) bool {
	hook := s.webhooks.byID[d.webhookID]
	return hook != nil && hook.edition == d.edition && hook.endpointID == e.id
}

// allCurrent reports whether that is so for all that a look has found. One that is not would be overtaken by what stands behind it.
func (s *schedule) allCurrent(l *look) bool {
	for d := range l.found {
		if !s.current(d, l.endpoint) {
			return false
		}
	}
	return true
}
