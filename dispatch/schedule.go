package dispatch

import (
	"math/rand/v2"
	"sync"
	"time"

	"walhook/dispatch/post"
)

// limits bound what is attempted.
type limits struct {
	concurrency         int // attempts in flight
	endpointConcurrency int // to one URL
	maxAttempts         int // of one delivery
	backoff             post.Backoff
}

// schedule is the part of the queue that this process holds in memory. It decides what is attempted when, and leaves the doing to others:
// it makes no request and no query, and reads no clock of its own.
//
// Each method that takes the mutex is one step: handOver, answered, finish, loaded, found, release, due, apply and others. The Scheduler
// takes them in any order, as answers come in. All other methods need the mutex held.
type schedule struct {
	limits limits

	// What it needs of the world. None may block or call back: the mutex is held.
	now     func() time.Time
	visible func(xid int64) bool
	send    func(d *delivery, troubled bool)    // begins an attempt, at the end of which answered is called
	find    func(q *successorQuery)             // looks for the next of a line, and calls found
	arm     func(e *endpoint, in time.Duration) // calls due after that time instead of the time set before; negative: not at all

	mu         sync.Mutex
	webhooks   *webhooks
	endpoints  map[int64]*endpoint
	ring       []*endpoint          // that may have something to send, in turn
	parked     [reasons][]*endpoint // that were turned away, by what for
	gated      []*delivery          // whose transaction the source cannot show yet
	results    []result
	troubled   map[*endpoint]struct{} // whose failures are to be written
	elsewhere  map[int64]struct{}     // endpoints of others for which something was queued
	memory     memory
	toLoad     []*endpoint   // in turn
	strangers  map[int64]int // webhooks that were not known as the store had them when something was queued: the number of the last such delivery
	came       int           // how many such deliveries have come so far
	inFlight   int
	inTroubled int // of those, at endpoints whose last attempt failed
	unrecorded int
	stopping   bool
	daemon     int64     // the number under which endpoints are owned; 0: none are
	aliveUntil time.Time // no attempt may begin that could outlast the lease

	recorded chan struct{} // capacity 1: results is not empty
	gate     chan struct{} // capacity 1: gated is not empty
	loadable chan struct{} // capacity 1: toLoad is not empty
	woken    chan struct{} // capacity 1: look for work in the store
	tell     chan struct{} // capacity 1: elsewhere is not empty
}

// unrecordedLimit is how many answers may wait to be recorded before no attempt is begun any more: all that is sent again if the process
// dies now.
const unrecordedLimit = 2048

func newSchedule(l limits) *schedule {
	return &schedule{
		limits: l, endpoints: map[int64]*endpoint{}, troubled: map[*endpoint]struct{}{}, elsewhere: map[int64]struct{}{}, strangers: map[int64]int{},
		webhooks: &webhooks{byID: map[int64]*webhook{}}, memory: memory{window: window},
		recorded: make(chan struct{}, 1), gate: make(chan struct{}, 1), loadable: make(chan struct{}, 1), woken: make(chan struct{}, 1), tell: make(chan struct{}, 1),
	}
}

// handOver takes what this process's own stream has just queued. rest are webhooks for which the store has more, behind that, and urls
// all endpoints that any of it is for, with the edition of their webhooks then.
func (s *schedule) handOver(queued []*delivery, rest map[int64]struct{}, urls map[int64]int64) {
	s.mu.Lock()
	changed := false
	for _, d := range queued {
		s.resolve(d)
		switch known := s.greet(d.webhookID, d.endpoint, urls); {
		case known && d.endpoint.handOver(d):
			s.admit(d)
			continue
		case !known:
			changed = true
		}
		if d.endpoint != nil {
			s.lacks(d.endpoint)
		}
	}
	for id := range rest {
		var e *endpoint
		if hook := s.webhooks.byID[id]; hook != nil {
			e = s.endpoints[hook.endpointID]
			s.lacks(e)
		}
		if !s.greet(id, e, urls) {
			changed = true
		}
	}
	s.pump()
	s.mu.Unlock()
	if changed {
		s.wake()
	}
}

// greet reports whether a webhook of which a delivery was queued is known, with all others of its URL, as the store had them, and notes it as
// a stranger otherwise. An edit counts for every later transaction: what comes for a URL after one must not overtake what its webhooks
// have in the store.
func (s *schedule) greet(id int64, at *endpoint, urls map[int64]int64) (known bool) {
	if at != nil && at.edition == urls[at.id] {
		return true
	}
	s.came++
	s.strangers[id] = s.came
	return false
}

// meet is called when the webhooks are known as they were when so many strangers had come, or later. Now it is known whose their
// deliveries are.
func (s *schedule) meet(came int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, number := range s.strangers {
		if number > came {
			continue
		}
		delete(s.strangers, id)
		if hook := s.webhooks.byID[id]; hook != nil {
			s.lacks(s.endpoints[hook.endpointID])
		}
	}
}

// resolve finds the delivery's webhook and endpoint, as far as they are known.
func (s *schedule) resolve(d *delivery) {
	if d.hook = s.webhooks.byID[d.webhookID]; d.hook != nil {
		d.endpoint = s.endpoints[d.hook.endpointID]
	}
}

// admit takes a held delivery to its place.
func (s *schedule) admit(d *delivery) {
	if d.endpoint.enqueue(d) {
		s.pass(d)
	}
}

// pass makes a delivery ready once the source can show its transaction. Only what nothing else keeps back comes to this gate,
// so it knows no order.
func (s *schedule) pass(d *delivery) {
	if !s.visible(d.xid) {
		s.gated = append(s.gated, d)
		signal(s.gate)
		return
	}
	d.endpoint.ready(d)
	s.turn(d.endpoint)
}

// turn puts the endpoint into the ring of those that may have something to send.
func (s *schedule) turn(e *endpoint) {
	if !e.queued {
		e.queued = true
		s.ring = append(s.ring, e)
	}
}

// pump begins as many attempts as limits allow, one endpoint after the other.
func (s *schedule) pump() {
	if s.stopping || !s.webhooks.enabled {
		return
	}
	now := s.now()
	for s.inFlight < s.limits.concurrency && s.unrecorded < unrecordedLimit {
		if now.After(s.aliveUntil) {
			return
		}
		if len(s.ring) == 0 {
			s.unpark()
		}
		if len(s.ring) == 0 {
			return
		}
		e := s.ring[0]
		s.ring[0] = nil
		s.ring = s.ring[1:]
		e.queued = false
		if why, turned := s.turnsAway(e, now); turned {
			s.park(e, why)
			continue
		}
		if d := e.pick(now, s.limits.endpointConcurrency); d != nil {
			s.begin(d, now)
			s.turn(e)
		}
		if e.low() {
			s.wantLoad(e)
		}
	}
}

// roomFor reports whether there is room of the kind that an endpoint was turned away for.
func (s *schedule) roomFor(why int) bool {
	of := s.limits.concurrency
	if why == lastQuarter {
		return of == 1 || s.inFlight < of-max(of/4, 1)
	}
	return s.inTroubled < max(of/2, 1)
}

// turnsAway tells whether the endpoint may begin nothing, and what for.
func (s *schedule) turnsAway(e *endpoint, now time.Time) (why int, turned bool) {
	if (e.inFlight > 0 || e.lastAttempt.IsZero()) && !s.roomFor(lastQuarter) {
		return lastQuarter, true
	}
	return halfForTroubled, e.troublesome(now) && !s.roomFor(halfForTroubled)
}

func (s *schedule) park(e *endpoint, why int) {
	if !e.parked[why] {
		e.parked[why] = true
		s.parked[why] = append(s.parked[why], e)
	}
}

// unpark gives endpoints that were turned away another turn, as far as there is room.
func (s *schedule) unpark() {
	for why := range s.parked {
		if !s.roomFor(why) {
			continue
		}
		n := min(unparkBatch, len(s.parked[why]))
		for i, e := range s.parked[why][:n] {
			s.parked[why][i] = nil
			e.parked[why] = false
			s.turn(e)
		}
		s.parked[why] = s.parked[why][n:]
	}
}

// What an endpoint is turned away for, although attempts may be begun: room is kept for others. It waits until there is room of that kind.
const (
	// The last quarter of all attempts is for endpoints that have none in flight and were tried before: of those that never were, any
	// number may hang.
	lastQuarter = iota
	// Endpoints that fail or do not answer may not take more than half of all.
	halfForTroubled
	reasons
)

// unparkBatch is how many endpoints of each kind that were turned away get another turn with each answer.
const unparkBatch = 2

// begin takes a delivery for in flight and lets its attempt be made.
func (s *schedule) begin(d *delivery, now time.Time) {
	e := d.endpoint
	if hook := s.webhooks.byID[d.webhookID]; hook != nil {
		d.hook = hook // with the secret of today
	}
	troubled := e.troublesome(now)
	if e.inFlight == 0 {
		e.quietSince = now
	}
	e.inFlight++
	s.inFlight++
	if troubled {
		s.inTroubled++
	}
	put(&e.flying, d.id, d)
	s.send(d, troubled)
}

// answered takes the outcome of an attempt: the endpoint's slot is free again, and the result goes to be recorded. It reports whether the
// endpoint was failing before, and is now.
func (s *schedule) answered(d *delivery, o post.Outcome, troubled bool) (r result, was, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	e := d.endpoint
	e.inFlight--
	s.inFlight--
	if troubled {
		s.inTroubled--
	}
	if o.Kind == post.Aborted {
		drop(&e.flying, d.id)
		return result{}, false, false
	}
	r = s.limits.decide(d, o, now)
	was = e.failing()
	e.answered(d, o, now, s.limits.endpointConcurrency)
	if e.failures > 0 || e.troubled {
		e.lastError = o.Error
		s.troubled[e] = struct{}{}
	}
	s.results = append(s.results, r)
	s.unrecorded++
	s.turn(e)
	// Endpoints that were turned away get their turn before those that come from now on.
	s.unpark()
	s.pump()
	s.rearm(e)
	signal(s.recorded)
	return r, was, e.failing()
}

// decide tells whether an outcome ends its delivery, and when the next attempt is due otherwise.
func (l *limits) decide(d *delivery, o post.Outcome, at time.Time) result {
	r := result{d: d, outcome: o, at: at, activation: d.hook.activation}
	attempts := d.attempts + 1
	switch {
	case o.Kind == post.Success, o.Kind == post.Gone, attempts >= l.maxAttempts:
		r.final = true
	default:
		r.delay = max(l.backoff.Delay(attempts, rand.Float64()), o.RetryAfter)
	}
	return r
}

// takeResults takes what is to be recorded: results, and endpoints whose failures are to be written.
func (s *schedule) takeResults() (results []result, troubled []*endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	results, s.results = s.results, nil
	for e := range s.troubled {
		e.troubled = e.failures > 0
		troubled = append(troubled, e)
	}
	clear(s.troubled)
	return results, troubled
}

// rearm sets the endpoint's timer to when it must be looked at again.
func (s *schedule) rearm(e *endpoint) {
	now := s.now()
	at := e.nextWake(now)
	if at.Equal(e.wakeAt) {
		return
	}
	e.wakeAt = at
	if at.IsZero() || s.stopping {
		s.arm(e, -1)
		return
	}
	s.arm(e, max(at.Sub(now), 0))
}

// due is called when the endpoint's timer has run out.
func (s *schedule) due(e *endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.wakeAt = time.Time{}
	if !e.owned || s.stopping {
		return
	}
	if now := s.now(); !e.dueAt.IsZero() && !now.Before(e.dueAt) {
		if e.lowDue() || e.later {
			e.dueAt = time.Time{}
			s.wantLoad(e)
		} else {
			e.dueAt = now.Add(duePause)
		}
	}
	s.turn(e)
	s.pump()
	s.rearm(e)
}

// successorQuery asks the store for the next delivery of a line.
type successorQuery struct {
	endpoint   *endpoint
	line       *line
	ordered    []int64 // webhooks that keep the order
	generation int     // of the endpoint's memory
}

// lookUp lets the next delivery of a line be found in the store.
func (s *schedule) lookUp(e *endpoint, l *line) {
	if !s.stopping {
		s.find(&successorQuery{endpoint: e, line: l, ordered: e.ordered(), generation: e.generation})
	}
}

// found takes the answer: nil where there is none, whether it is due, and whether it is stale as of a look.
func (s *schedule) found(q *successorQuery, next *delivery, due, stale bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := q.endpoint
	if e.generation != q.generation {
		return // all of it is loaded anew
	}
	if stale || next != nil && !s.current(next, e) {
		e.forget()
		s.outdated(e)
		return
	}
	if next != nil {
		if s.resolve(next); !due || e.waits(next.hook) {
			next = nil
		}
	}
	goes, again := e.succeeded(q.line, next)
	if goes {
		s.pass(next)
		s.pump()
	}
	if again {
		s.lookUp(e, q.line)
	}
}

// finish lets go of what has been recorded and makes the next of each line ready.
func (s *schedule) finish(results []result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	for i := range results {
		r := &results[i]
		e := r.d.endpoint
		if !r.aside {
			s.unrecorded--
		}
		next, line := e.finished(r.d, r.final)
		if next != nil {
			s.pass(next)
		}
		if line != nil {
			s.lookUp(e, line)
		}
		if w := s.webhooks.byID[r.d.webhookID]; w != nil && w.moving() {
			changed = true // it may have waited for this one
		}
		if freed := r.aside && e.freed(r.d.webhookID); freed || r.unknown {
			// What waited for it may go on; or what was queued anew in its place waits behind a retry that will not come.
			e.forget()
			s.wantLoad(e)
		}
		if !r.final {
			if at := r.at.Add(r.delay); e.dueAt.IsZero() || at.Before(e.dueAt) {
				e.dueAt = at
			}
		}
		s.turn(e)
		s.rearm(e)
		if e.leaving && len(e.flying) == 0 {
			changed = true
		}
	}
	s.pump()
	if changed {
		s.wake() // an endpoint may be released, or a webhook go on
	}
}

// setAside lets results wait. Until they are recorded nothing more is sent for their webhooks, and what comes behind them waits as well. It
// returns the webhooks of which none did before.
func (s *schedule) setAside(results []result) (webhookIDs []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range results {
		r := &results[i]
		if r.aside {
			continue
		}
		r.aside = true
		s.unrecorded--
		e := r.d.endpoint
		put(&e.aside, r.d.webhookID, e.aside[r.d.webhookID]+1)
		if e.aside[r.d.webhookID] == 1 {
			webhookIDs = append(webhookIDs, r.d.webhookID)
			e.forget()
			s.wantLoad(e)
		}
	}
	s.pump()
	return webhookIDs
}

// release passes on what has become visible and returns how much has not, and how much has.
func (s *schedule) release() (left, passed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.gated
	kept := waiting[:0]
	for _, d := range waiting {
		switch {
		case d.generation != d.endpoint.generation:
			// forgotten; it will be loaded again
		case s.visible(d.xid):
			passed++
			d.endpoint.ready(d)
			s.turn(d.endpoint)
		default:
			kept = append(kept, d)
		}
	}
	clear(s.gated[len(kept):])
	s.gated = kept
	s.pump()
	return len(kept), passed
}

// wake makes the scheduler look for changed webhooks and pending deliveries in the store.
func (s *schedule) wake() { signal(s.woken) }
