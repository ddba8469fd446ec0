package dispatch

// wakeup tells one goroutine that there is work. Any number of signals before it wakes count as one: the work itself is
// found in the schedule or the store, never in the channel.
type wakeup chan struct{}

func newWakeup() wakeup { return make(wakeup, 1) }

func (w wakeup) signal() {
	select {
	case w <- struct{}{}:
	default:
	}
}
