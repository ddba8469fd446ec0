package schedule

// Wakeup tells one goroutine that there is work. Any number of signals before it wakes count as one: the work itself is
// found in the schedule or the store, never in the channel.
type Wakeup chan struct{}

// NewWakeup returns a Wakeup without a signal.
func NewWakeup() Wakeup { return make(Wakeup, 1) }

// Signal wakes the goroutine. It never blocks.
func (w Wakeup) Signal() {
	select {
	case w <- struct{}{}:
	default:
	}
}
