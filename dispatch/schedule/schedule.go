package schedule

import (
	"math/rand/v2"
	"sync"
	"time"

	"walhook/dispatch/post"
)

// Limits bound what is attempted.
type Limits struct {
	Concurrency         int // attempts in flight
	EndpointConcurrency int // to one URL
	MaxAttempts         int // of one delivery
	Backoff             post.Backoff
}

// Actions are the only functions that a schedule calls. None may block or call back, because the schedule's mutex is held.
type Actions struct {
	Now            func() time.Time
	Visible        func(xid int64) bool                // reports whether the source shows the transaction
	Send           func(d *Delivery, unhealthy bool)   // starts an attempt, which ends with a call of AttemptEnded
	QuerySuccessor func(q *SuccessorQuery)             // starts a query, which ends with a call of SuccessorFound
	Arm            func(e *Endpoint, in time.Duration) // sets the endpoint's only timer, for TimerFired; negative: stops it
}

// Schedule holds part of the queue in memory and decides which delivery is attempted when. It only decides: requests,
// queries, timers and the clock are Actions.
//
// Each method that takes the mutex is one step, such as HandOver, AttemptEnded, ResultsRecorded, LoadsEnded,
// SuccessorFound, RecheckVisibility, TimerFired or ApplyWebhooks. They are called in any order, as events
// arrive. All other methods need the mutex held.
type Schedule struct {
	limits  Limits
	actions Actions

	mu                 sync.Mutex
	webhooks           *Webhooks
	endpoints          map[int64]*Endpoint
	ring               fifo        // may have something to send; served round-robin
	throttled          [waits]fifo // by what they wait for
	loads              fifo        // to be loaded; those that are not queued any more are skipped
	awaitingVisibility []*Delivery // the source does not show their transactions yet
	results            []Result
	endpointsToRecord  map[*Endpoint]struct{} // their failures are to be written
	queuedForOthers    map[int64]struct{}     // endpoints that other daemons own, for which something was queued
	memory             memory
	inFlight           int
	inFlightUnhealthy  int // of those, attempts to endpoints that were unhealthy when they started
	unrecorded         int // results, apart from those deferred because of a lock
	stopping           bool
	daemon             int64     // the id under which endpoints are owned; 0: not registered
	startsUntil        time.Time // an attempt that starts later could outlast the lease

	ResultsPending      Wakeup // for recordLoop: results or endpointsToRecord has something
	VisibilityPending   Wakeup // for visibilityLoop: awaitingVisibility has something
	LoadsPending        Wakeup // for a loadLoop: loads has something
	RefreshWanted       Wakeup // for the coordinator: webhooks, ownership or pending deliveries may have changed in the store
	NotificationPending Wakeup // for notifyLoop: queuedForOthers has something
}

// unrecordedLimit is how many results may wait to be recorded before no more attempts start. If the process died, all
// of these deliveries would be sent again.
const unrecordedLimit = 2048

// New returns a Schedule that knows no webhooks, owns no endpoints and may not start attempts yet.
func New(l Limits, a Actions) *Schedule {
	return &Schedule{
		limits: l, actions: a, endpoints: map[int64]*Endpoint{}, endpointsToRecord: map[*Endpoint]struct{}{},
		ring: fifo{bit: 1}, loads: fifo{bit: 2}, throttled: [waits]fifo{waitsForQuarter: {bit: 4}, waitsForHalf: {bit: 8}},
		queuedForOthers: map[int64]struct{}{},
		webhooks:        &Webhooks{ByID: map[int64]*Webhook{}}, memory: memory{window: maxWindow},
		ResultsPending: NewWakeup(), VisibilityPending: NewWakeup(), LoadsPending: NewWakeup(), RefreshWanted: NewWakeup(),
		NotificationPending: NewWakeup(),
	}
}

// HandOver offers the deliveries that this process's own stream has just committed. notHeld are webhooks for which the
// stream committed more, behind those. versions has every endpoint that any of these deliveries is for, as the store
// had it in that transaction.
func (s *Schedule) HandOver(queued []*Delivery, notHeld map[int64]struct{}, versions map[int64]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, version := range versions {
		if !s.endpoints[id].isCurrent(version) {
			s.requestLoad(id)
			s.RequestRefresh()
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
		if hook := s.webhooks.ByID[id]; hook != nil {
			s.requestLoad(hook.EndpointID)
		}
	}
	s.startAttempts()
}

// resolve sets the delivery's webhook and endpoint, if they are known.
func (s *Schedule) resolve(d *Delivery) {
	if d.Hook = s.webhooks.ByID[d.WebhookID]; d.Hook != nil {
		d.endpoint = s.endpoints[d.Hook.EndpointID]
	}
}

// admit makes a held delivery ready, or queues it behind the head of its line.
func (s *Schedule) admit(d *Delivery) {
	if d.endpoint.enqueue(d) {
		s.readyWhenVisible(d)
	}
}

// readyWhenVisible makes a delivery ready once the source shows its transaction. Only deliveries that may be sent now
// come here, so awaitingVisibility needs no order.
func (s *Schedule) readyWhenVisible(d *Delivery) {
	if !s.actions.Visible(d.XID) {
		s.awaitingVisibility = append(s.awaitingVisibility, d)
		s.VisibilityPending.Signal()
		return
	}
	d.endpoint.makeReady(d)
	s.ring.push(d.endpoint)
}

// startAttempts starts as many attempts as the limits allow, one endpoint after the other.
func (s *Schedule) startAttempts() {
	if s.stopping || !s.webhooks.Enabled {
		return
	}
	now := s.actions.Now()
	for s.inFlight < s.limits.Concurrency && s.unrecorded < unrecordedLimit {
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
			if d := e.pick(now, s.limits.EndpointConcurrency); d != nil {
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
func (s *Schedule) startAttempt(d *Delivery, now time.Time) {
	e := d.endpoint
	if hook := s.webhooks.ByID[d.WebhookID]; hook != nil {
		d.Hook = hook // signs with the current secret
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
	put(&e.active, d.ID, d)
	s.actions.Send(d, unhealthy)
}

// AttemptEnded takes the outcome of an attempt and queues its result to be recorded. unhealthy is as in Actions.Send. It
// reports whether the endpoint was failing before and is failing now.
func (s *Schedule) AttemptEnded(d *Delivery, o post.Outcome, unhealthy bool) (r Result, was, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.actions.Now()
	e := d.endpoint
	e.inFlight--
	s.inFlight--
	if unhealthy {
		s.inFlightUnhealthy--
	}
	if o.Kind == post.Aborted {
		drop(&e.active, d.ID)
		return Result{}, false, false
	}
	r = s.limits.decide(d, o, now)
	was = e.failing()
	e.attemptEnded(d, o, now, s.limits.EndpointConcurrency)
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
	s.ResultsPending.Signal()
	return r, was, e.failing()
}

// decide returns the result of an attempt: the delivery has ended, or is to be retried after a delay.
func (l *Limits) decide(d *Delivery, o post.Outcome, at time.Time) Result {
	r := Result{Delivery: d, Outcome: o, At: at, Activation: d.Hook.Activation}
	attempts := d.Attempts + 1
	switch {
	case o.Kind == post.Success, o.Kind == post.Gone, attempts >= l.MaxAttempts:
		r.Final = true
	default:
		r.Delay = max(l.Backoff.Delay(attempts, rand.Float64()), o.RetryAfter)
	}
	return r
}

// EndpointFailures is what is recorded of an endpoint, for administrators and the next owner.
type EndpointFailures struct {
	EndpointID int64
	Failures   int
	NotBefore  time.Time
	LastError  string
}

// TakeResults returns the results, and what is to be recorded of endpoints.
func (s *Schedule) TakeResults() (results []Result, endpoints []EndpointFailures) {
	s.mu.Lock()
	defer s.mu.Unlock()
	results, s.results = s.results, nil
	for e := range s.endpointsToRecord {
		e.failuresRecorded = e.failures
		endpoints = append(endpoints, EndpointFailures{e.id, e.failures, e.notBefore, e.lastError})
	}
	clear(s.endpointsToRecord)
	return results, endpoints
}

// rearm sets the endpoint's timer to its next wake.
func (s *Schedule) rearm(e *Endpoint) {
	now := s.actions.Now()
	at := e.nextWake(now)
	if at.Equal(e.timerAt) {
		return
	}
	e.timerAt = at
	if at.IsZero() || s.stopping {
		s.actions.Arm(e, -1)
		return
	}
	s.actions.Arm(e, max(at.Sub(now), 0))
}

// TimerFired loads what is due, and starts attempts if a pause has ended.
func (s *Schedule) TimerFired(e *Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.timerAt = time.Time{}
	if !e.state.owned() || s.stopping {
		return
	}
	if now := s.actions.Now(); !e.dueAt.IsZero() && !now.Before(e.dueAt) {
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

// SuccessorQuery asks the store for the next delivery of a line whose head has ended.
type SuccessorQuery struct {
	EndpointID int64
	ResponseID string
	endpoint   *Endpoint
	line       *line
	Ordered    []int64 // webhooks of the endpoint that keep the order
	generation int     // of the endpoint when it was asked
}

func (s *Schedule) requestSuccessor(e *Endpoint, l *line) {
	if !s.stopping {
		s.actions.QuerySuccessor(&SuccessorQuery{
			EndpointID: e.id, ResponseID: l.response, Ordered: e.ordered(), endpoint: e, line: l, generation: e.generation,
		})
	}
}

// SuccessorFound takes the answer to a query: the next delivery, or nil, and whether it is due. stale is as in
// Load.
func (s *Schedule) SuccessorFound(q *SuccessorQuery, next *Delivery, due, stale bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := q.endpoint
	if e.generation != q.generation {
		return // the endpoint was invalidated and is loaded again
	}
	found := func(yield func(*Delivery) bool) { _ = next == nil || yield(next) }
	if !s.matches(e, stale, found) {
		e.invalidate()
		s.awaitRefresh(e)
		return
	}
	if next != nil {
		if s.resolve(next); !due || e.blocked(next.Hook) {
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

// ResultsRecorded releases deliveries whose results the store has, and makes the next of each line ready.
func (s *Schedule) ResultsRecorded(results []Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	refresh := false
	for i := range results {
		r := &results[i]
		e := r.Delivery.endpoint
		if !r.wasLocked {
			s.unrecorded--
		}
		next, line := e.resultRecorded(r.Delivery, r.Final)
		if next != nil {
			s.readyWhenVisible(next)
		}
		if line != nil {
			s.requestSuccessor(e, line)
		}
		if w := s.webhooks.ByID[r.Delivery.WebhookID]; w != nil && w.Moving() {
			refresh = true // its move may have waited for this one
		}
		if unblocked := r.wasLocked && e.lockedResultRecorded(r.Delivery.WebhookID); unblocked || r.Missing {
			// Deliveries that were blocked may be sent now. A delivery that is missing may have been queued again under
			// another id, and must not wait for a retry that will never come.
			e.invalidate()
			s.queueLoad(e)
		}
		if !r.Final {
			if at := r.At.Add(r.Delay); e.dueAt.IsZero() || at.Before(e.dueAt) {
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
		s.RequestRefresh() // to release an endpoint, or to finish a move
	}
}

// DeferLocked defers results because other transactions have locked their rows. Until they are recorded, nothing more
// is sent for their webhooks, nor anything that comes behind those deliveries. It returns the webhooks that had no such
// result before.
func (s *Schedule) DeferLocked(results []Result) (webhookIDs []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range results {
		r := &results[i]
		if r.wasLocked {
			continue
		}
		r.wasLocked = true
		s.unrecorded--
		e := r.Delivery.endpoint
		put(&e.lockedResults, r.Delivery.WebhookID, e.lockedResults[r.Delivery.WebhookID]+1)
		if e.lockedResults[r.Delivery.WebhookID] == 1 {
			webhookIDs = append(webhookIDs, r.Delivery.WebhookID)
			e.invalidate()
			s.queueLoad(e)
		}
	}
	s.startAttempts()
	return webhookIDs
}

// RecheckVisibility makes deliveries ready whose transactions are visible now. It returns how many still wait, and how
// many became ready.
func (s *Schedule) RecheckVisibility() (left, ready int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.awaitingVisibility
	kept := waiting[:0]
	for _, d := range waiting {
		switch {
		case d.generation != d.endpoint.generation:
			// its endpoint was invalidated: it will be loaded again
		case s.actions.Visible(d.XID):
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

// Stop lets no more attempts start, nor loads.
func (s *Schedule) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	for _, e := range s.endpoints {
		s.actions.Arm(e, -1)
	}
}

// Counts is what a schedule has in memory.
type Counts struct {
	Endpoints   int // owned
	InFlight    int // attempts
	Held        int // deliveries, including those in flight
	Unrecorded  int // results, apart from those deferred because of a lock
	StartsUntil time.Time
	Stopping    bool
}

// Counts returns what the schedule has in memory.
func (s *Schedule) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := Counts{
		InFlight: s.inFlight, Held: s.memory.held, Unrecorded: s.unrecorded, StartsUntil: s.startsUntil, Stopping: s.stopping,
	}
	for _, e := range s.endpoints {
		if e.state.owned() {
			c.Endpoints++
		}
	}
	return c
}
