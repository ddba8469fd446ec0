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

// schedule holds part of the queue in memory and decides which delivery is attempted when. It only decides: requests,
// queries, timers and the clock belong to the Scheduler.
//
// Each method that takes the mutex is one step, such as handOver, attemptEnded, resultsRecorded, loadsEnded,
// successorFound, recheckVisibility, timerFired or applyWebhooks. The Scheduler calls them in any order, as events
// arrive. All other methods need the mutex held.
type schedule struct {
	limits limits

	// The schedule's only ways out. None may block or call back, because the mutex is held.
	now            func() time.Time
	visible        func(xid int64) bool
	send           func(d *delivery, unhealthy bool)   // starts an attempt, which ends with a call of attemptEnded
	querySuccessor func(q *successorQuery)             // starts a query, which ends with a call of successorFound
	arm            func(e *endpoint, in time.Duration) // sets the endpoint's only timer, for timerFired; negative: stops it

	mu                 sync.Mutex
	webhooks           *webhooks
	endpoints          map[int64]*endpoint
	ring               fifo        // may have something to send; served round-robin
	throttled          [waits]fifo // by what they wait for
	loads              fifo        // to be loaded; those that are not queued any more are skipped
	awaitingVisibility []*delivery // the source does not show their transactions yet
	results            []result
	endpointsToRecord  map[*endpoint]struct{} // their failures are to be written
	queuedForOthers    map[int64]struct{}     // endpoints that other daemons own, for which something was queued
	memory             memory
	inFlight           int
	inFlightUnhealthy  int // of those, attempts to endpoints that were unhealthy when they started
	unrecorded         int // results, apart from those deferred because of a lock
	stopping           bool
	daemon             int64     // the id under which endpoints are owned; 0: not registered
	startsUntil        time.Time // an attempt that starts later could outlast the lease

	resultsPending      wakeup // for recordLoop: results or endpointsToRecord has something
	visibilityPending   wakeup // for visibilityLoop: awaitingVisibility has something
	loadsPending        wakeup // for a loadLoop: loads has something
	refreshWanted       wakeup // for the coordinator: webhooks, ownership or pending deliveries may have changed in the store
	notificationPending wakeup // for notifyLoop: queuedForOthers has something
}

// unrecordedLimit is how many results may wait to be recorded before no more attempts start. If the process died, all
// of these deliveries would be sent again.
const unrecordedLimit = 2048

func newSchedule(l limits) *schedule {
	return &schedule{
		limits: l, endpoints: map[int64]*endpoint{}, endpointsToRecord: map[*endpoint]struct{}{},
		ring: fifo{bit: 1}, loads: fifo{bit: 2}, throttled: [waits]fifo{waitsForQuarter: {bit: 4}, waitsForHalf: {bit: 8}},
		queuedForOthers: map[int64]struct{}{},
		webhooks:        &webhooks{byID: map[int64]*webhook{}}, memory: memory{window: maxWindow},
		resultsPending: newWakeup(), visibilityPending: newWakeup(), loadsPending: newWakeup(), refreshWanted: newWakeup(),
		notificationPending: newWakeup(),
	}
}

// handOver offers the deliveries that this process's own stream has just committed. notHeld are webhooks for which the
// stream committed more, behind those. versions has every endpoint that any of these deliveries is for, as the store
// had it in that transaction.
func (s *schedule) handOver(queued []*delivery, notHeld map[int64]struct{}, versions map[int64]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, version := range versions {
		if !s.endpoints[id].isCurrent(version) {
			s.requestLoad(id)
			s.requestRefresh()
		}
	}
	for _, d := range queued {
		s.resolve(d)
		e := d.endpoint
		switch {
		case e == nil || !e.isCurrent(versions[e.id]):
		case e.tryHold(d):
			s.admit(d)
		default:
			s.requestLoad(e.id)
		}
	}
	for id := range notHeld {
		if hook := s.webhooks.byID[id]; hook != nil {
			s.requestLoad(hook.endpointID)
		}
	}
	s.startAttempts()
}

// resolve sets the delivery's webhook and endpoint, if they are known.
func (s *schedule) resolve(d *delivery) {
	if d.hook = s.webhooks.byID[d.webhookID]; d.hook != nil {
		d.endpoint = s.endpoints[d.hook.endpointID]
	}
}

// admit makes a held delivery ready, or queues it behind the head of its line.
func (s *schedule) admit(d *delivery) {
	if d.endpoint.enqueue(d) {
		s.readyWhenVisible(d)
	}
}

// readyWhenVisible makes a delivery ready once the source shows its transaction. Only deliveries that may be sent now
// come here, so awaitingVisibility needs no order.
func (s *schedule) readyWhenVisible(d *delivery) {
	if !s.visible(d.xid) {
		s.awaitingVisibility = append(s.awaitingVisibility, d)
		s.visibilityPending.signal()
		return
	}
	d.endpoint.makeReady(d)
	s.ring.push(d.endpoint)
}

// startAttempts starts as many attempts as the limits allow, one endpoint after the other.
func (s *schedule) startAttempts() {
	if s.stopping || !s.webhooks.enabled {
		return
	}
	now := s.now()
	for s.inFlight < s.limits.concurrency && s.unrecorded < unrecordedLimit {
		if now.After(s.startsUntil) {
			return
		}
		if s.ring.empty() {
			s.releaseThrottled()
		}
		if s.ring.empty() {
			return
		}
		e := s.ring.pop()
		w := s.waitOf(e, now)
		if w == waitsForQuarter || w == waitsForHalf {
			s.throttled[w].push(e)
			continue
		}
		if w == waitsForNothing {
			if d := e.pick(now, s.limits.endpointConcurrency); d != nil {
				s.startAttempt(d, now)
				s.ring.push(e)
			}
		}
		if e.runningLow() {
			s.queueLoad(e)
		}
	}
}

// startAttempt counts a delivery as in flight and sends it.
func (s *schedule) startAttempt(d *delivery, now time.Time) {
	e := d.endpoint
	if hook := s.webhooks.byID[d.webhookID]; hook != nil {
		d.hook = hook // signs with the current secret
	}
	unhealthy := e.unhealthy(now)
	if e.inFlight == 0 {
		e.quietSince = now
	}
	e.inFlight++
	s.inFlight++
	if unhealthy {
		s.inFlightUnhealthy++
	}
	put(&e.active, d.id, d)
	s.send(d, unhealthy)
}

// attemptEnded takes the outcome of an attempt and queues its result to be recorded. unhealthy is as in send. It
// reports whether the endpoint was failing before and is failing now.
func (s *schedule) attemptEnded(d *delivery, o post.Outcome, unhealthy bool) (r result, was, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	e := d.endpoint
	e.inFlight--
	s.inFlight--
	if unhealthy {
		s.inFlightUnhealthy--
	}
	if o.Kind == post.Aborted {
		drop(&e.active, d.id)
		return result{}, false, false
	}
	r = s.limits.decide(d, o, now)
	was = e.failing()
	e.attemptEnded(d, o, now, s.limits.endpointConcurrency)
	if e.failures > 0 || e.failuresRecorded > 0 {
		e.lastError = o.Error
		s.endpointsToRecord[e] = struct{}{}
	}
	s.results = append(s.results, r)
	s.unrecorded++
	s.ring.push(e)
	// Endpoints throttled so far go before those that arrive from now on.
	s.releaseThrottled()
	s.startAttempts()
	s.rearm(e)
	s.resultsPending.signal()
	return r, was, e.failing()
}

// decide returns the result of an attempt: the delivery has ended, or is to be retried after a delay.
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

// takeResults returns the results, and the endpoints whose failures are to be recorded.
func (s *schedule) takeResults() (results []result, endpoints []*endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	results, s.results = s.results, nil
	for e := range s.endpointsToRecord {
		e.failuresRecorded = e.failures
		endpoints = append(endpoints, e)
	}
	clear(s.endpointsToRecord)
	return results, endpoints
}

// rearm sets the endpoint's timer to its next wake.
func (s *schedule) rearm(e *endpoint) {
	now := s.now()
	at := e.nextWake(now)
	if at.Equal(e.timerAt) {
		return
	}
	e.timerAt = at
	if at.IsZero() || s.stopping {
		s.arm(e, -1)
		return
	}
	s.arm(e, max(at.Sub(now), 0))
}

// timerFired loads what is due, and starts attempts if a pause has ended.
func (s *schedule) timerFired(e *endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.timerAt = time.Time{}
	if !e.state.owned() || s.stopping {
		return
	}
	if now := s.now(); !e.dueAt.IsZero() && !now.Before(e.dueAt) {
		if e.runningLowDue() || e.state == deferred {
			e.dueAt = time.Time{}
			s.queueLoad(e)
		} else {
			e.dueAt = now.Add(dueRecheck)
		}
	}
	s.ring.push(e)
	s.startAttempts()
	s.rearm(e)
}

// successorQuery asks the store for the next delivery of a line whose head has ended.
type successorQuery struct {
	endpoint   *endpoint
	line       *line
	ordered    []int64 // webhooks of the endpoint that keep the order
	generation int     // of the endpoint when it was asked
}

func (s *schedule) requestSuccessor(e *endpoint, l *line) {
	if !s.stopping {
		s.querySuccessor(&successorQuery{endpoint: e, line: l, ordered: e.ordered(), generation: e.generation})
	}
}

// successorFound takes the answer to a query: the next delivery, or nil, and whether it is due. stale is as in
// endpointLoad.
func (s *schedule) successorFound(q *successorQuery, next *delivery, due, stale bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := q.endpoint
	if e.generation != q.generation {
		return // the endpoint was invalidated and is loaded again
	}
	found := func(yield func(*delivery) bool) { _ = next == nil || yield(next) }
	if !s.matches(e, stale, found) {
		e.invalidate()
		s.awaitRefresh(e)
		return
	}
	if next != nil {
		if s.resolve(next); !due || e.blocked(next.hook) {
			next = nil
		}
	}
	ready, again := e.successorFound(q.line, next)
	if ready {
		s.readyWhenVisible(next)
		s.startAttempts()
	}
	if again {
		s.requestSuccessor(e, q.line)
	}
}

// resultsRecorded releases deliveries whose results the store has, and makes the next of each line ready.
func (s *schedule) resultsRecorded(results []result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	refresh := false
	for i := range results {
		r := &results[i]
		e := r.d.endpoint
		if !r.wasLocked {
			s.unrecorded--
		}
		next, line := e.resultRecorded(r.d, r.final)
		if next != nil {
			s.readyWhenVisible(next)
		}
		if line != nil {
			s.requestSuccessor(e, line)
		}
		if w := s.webhooks.byID[r.d.webhookID]; w != nil && w.moving() {
			refresh = true // its move may have waited for this one
		}
		if unblocked := r.wasLocked && e.lockedResultRecorded(r.d.webhookID); unblocked || r.missing {
			// Deliveries that were blocked may be sent now. A delivery that is missing may have been queued again under
			// another id, and must not wait for a retry that will never come.
			e.invalidate()
			s.queueLoad(e)
		}
		if !r.final {
			if at := r.at.Add(r.delay); e.dueAt.IsZero() || at.Before(e.dueAt) {
				e.dueAt = at
			}
		}
		s.ring.push(e)
		s.rearm(e)
		if e.state == releasing && len(e.active) == 0 {
			refresh = true
		}
	}
	s.startAttempts()
	if refresh {
		s.requestRefresh() // to release an endpoint, or to finish a move
	}
}

// deferLocked defers results because other transactions have locked their rows. Until they are recorded, nothing more
// is sent for their webhooks, nor anything that comes behind those deliveries. It returns the webhooks that had no such
// result before.
func (s *schedule) deferLocked(results []result) (webhookIDs []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range results {
		r := &results[i]
		if r.wasLocked {
			continue
		}
		r.wasLocked = true
		s.unrecorded--
		e := r.d.endpoint
		put(&e.lockedResults, r.d.webhookID, e.lockedResults[r.d.webhookID]+1)
		if e.lockedResults[r.d.webhookID] == 1 {
			webhookIDs = append(webhookIDs, r.d.webhookID)
			e.invalidate()
			s.queueLoad(e)
		}
	}
	s.startAttempts()
	return webhookIDs
}

// recheckVisibility makes deliveries ready whose transactions are visible now. It returns how many still wait, and how
// many became ready.
func (s *schedule) recheckVisibility() (left, ready int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.awaitingVisibility
	kept := waiting[:0]
	for _, d := range waiting {
		switch {
		case d.generation != d.endpoint.generation:
			// its endpoint was invalidated: it will be loaded again
		case s.visible(d.xid):
			ready++
			d.endpoint.makeReady(d)
			s.ring.push(d.endpoint)
		default:
			kept = append(kept, d)
		}
	}
	clear(s.awaitingVisibility[len(kept):])
	s.awaitingVisibility = kept
	s.startAttempts()
	return len(kept), ready
}
