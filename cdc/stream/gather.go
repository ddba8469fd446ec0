package stream

import (
	"time"
)

// A server under load sends many small pieces, and to wake up for each costs more than the work on it. So whoever finds himself
// woken again and again, each time for little, rests for a moment and lets things gather. Lone changes wait for nothing.
const (
	gatherRest   = 200 * time.Microsecond // the rest
	gatherWithin = time.Millisecond       // wake-ups this close make a series
	gatherAfter  = 32                     // wake-ups in a series before the first rest
)

// series counts wake-ups that come one soon after the other.
type series struct {
	last   time.Time
	length int
}

// wake notes a wake-up, and whether it was for little.
func (s *series) wake(little bool) {
	now := time.Now()
	if little && now.Sub(s.last) < gatherWithin {
		s.length++
	} else {
		s.length = 0
	}
	s.last = now
}

// rest rests where the series has become long.
func (s *series) rest() {
	if s.length >= gatherAfter {
		time.Sleep(gatherRest)
	}
}
