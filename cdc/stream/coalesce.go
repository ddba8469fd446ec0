package stream

import (
	"time"
)

// A server under load sends many small pieces, and to wake up for each costs more than the work on it. So whoever finds himself
// woken again and again, each time for little, rests for a moment and lets things gather. Lone changes wait for nothing.
const (
	coalesceDelay  = 200 * time.Microsecond // the rest
	coalesceWindow = time.Millisecond       // wake-ups this close make a series
	coalesceAfter  = 32                     // wake-ups in a series before the first rest
)

// wakeups counts wake-ups that come one soon after the other.
type wakeups struct {
	last   time.Time
	length int
}

// record notes a wake-up, and whether it was for little.
func (s *wakeups) record(little bool) {
	now := time.Now()
	if little && now.Sub(s.last) < coalesceWindow {
		s.length++
	} else {
		s.length = 0
	}
	s.last = now
}

// pause rests where the series has become long.
func (s *wakeups) pause() {
	if s.length >= coalesceAfter {
		time.Sleep(coalesceDelay)
	}
}
