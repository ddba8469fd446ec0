package schedule

import "time"

// wait is what keeps an endpoint from its next attempt.
type wait uint8

const (
	waitsForNothing   wait = iota
	waitsForOwnership      // another daemon may send to it
	waitsForPause          // the receiver asked for it
	waitsForAnswer         // as many attempts are in flight as slow start, a probe or the limit for one URL allows

	// waitsForQuarter and waitsForHalf are throttled, to keep room for others. The last quarter of all attempts is
	// reserved for endpoints that have none in flight and were tried before. Endpoints that were never tried get none
	// of it, because any number of them may hang. Unhealthy endpoints may take half of all attempts together.
	waitsForQuarter
	waitsForHalf
	waits
)

// waitOf returns what keeps the endpoint from its next attempt, if it has a delivery to send. What keeps all endpoints
// is in startAttempts, and what keeps single deliveries in admit, pick and line.
func (s *Schedule) waitOf(e *Endpoint, now time.Time) wait {
	switch {
	case !e.state.sends():
		return waitsForOwnership
	case now.Before(e.notBefore):
		return waitsForPause
	case e.inFlight >= min(e.limit, s.limits.EndpointConcurrency) || e.failing() && e.inFlight > 0:
		return waitsForAnswer
	case (e.inFlight > 0 || e.lastAttempt.IsZero()) && !s.roomFor(waitsForQuarter):
		return waitsForQuarter
	case e.unhealthy(now) && !s.roomFor(waitsForHalf):
		return waitsForHalf
	}
	return waitsForNothing
}

// throttledBatch is how many endpoints of each limit return to the ring with each attempt that ends.
const throttledBatch = 2

// roomFor reports whether throttled endpoints of that kind may start another attempt.
func (s *Schedule) roomFor(w wait) bool {
	of := s.limits.Concurrency
	if w == waitsForQuarter {
		return of == 1 || s.inFlight < of-max(of/4, 1)
	}
	return s.inFlightUnhealthy < max(of/2, 1)
}

// releaseThrottled returns throttled endpoints to the ring if there is room.
func (s *Schedule) releaseThrottled() {
	for w := waitsForQuarter; w < waits; w++ {
		if !s.roomFor(w) {
			continue
		}
		for n := 0; n < throttledBatch && !s.throttled[w].empty(); n++ {
			s.ring.push(s.throttled[w].pop())
		}
	}
}

// fifo is a queue of endpoints. Each is in it at most once.
type fifo struct {
	bit   uint8 // of endpoint.queues
	queue []*Endpoint
}

// push adds an endpoint at the end, unless it is in the queue.
func (q *fifo) push(e *Endpoint) {
	if e.queues&q.bit == 0 {
		e.queues |= q.bit
		q.queue = append(q.queue, e)
	}
}

// pop removes and returns the first endpoint. The queue must not be empty.
func (q *fifo) pop() *Endpoint {
	e := q.queue[0]
	q.queue[0] = nil
	q.queue = q.queue[1:]
	e.queues &^= q.bit
	return e
}

func (q *fifo) empty() bool { return len(q.queue) == 0 }
