package stream

import (
	"time"
)

// A server under load sends many small messages, and a wakeup for each costs more than the work on it. So a goroutine
// that wakes up often, each time for little work, sleeps for a moment and lets messages accumulate. A single change
// is never delayed.
const (
	coalesceDelay  = 500 * time.Microsecond // how long to sleep
	coalesceWindow = time.Millisecond       // wakeups this close together form a series
	coalesceAfter  = 32                     // wakeups in a series before the first sleep
)

// wakeups counts wakeups in close succession.
type wakeups struct {
	last   time.Time
	length int
}

// record counts a wakeup; little is whether it brought little work.
func (s *wakeups) record(little bool) {
	now := time.Now()
	if little && now.Sub(s.last) < coalesceWindow {
		s.length++
	} else {
		s.length = 0
	}
	s.last = now
}

// pause sleeps if the series is long.
func (s *wakeups) pause() {
	if s.length >= coalesceAfter {
		time.Sleep(coalesceDelay)
	}
}
