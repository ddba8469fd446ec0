package post

import "time"

// Backoff is the wait between the attempts of a delivery. It is a function of the attempt's number, with no state of
// its own: the number and the next attempt's time live in the store, for every daemon and across restarts.
type Backoff struct {
	Base time.Duration // wait after the first attempt
	Cap  time.Duration // no wait is longer
}

// jitter is how far a wait may be from its nominal length, as a share of it.
const jitter = 0.2

// Delay returns the wait after attempt, counted from 1: Base doubled with each attempt up to Cap, times a factor that
// is uniform in [0.8, 1.2] as rnd is in [0, 1). What would exceed Cap is reflected at it, so that waits at the cap are
// spread as well and don't fall on one instant.
//
// With a base of 5 s and a cap of 12 h, 16 attempts span about a day and a half.
func (b Backoff) Delay(attempt int, rnd float64) time.Duration {
	nominal := min(b.Base, b.Cap)
	if nominal <= 0 {
		return 0
	}
	for range attempt - 1 {
		if nominal > b.Cap/2 {
			nominal = b.Cap
			break
		}
		nominal *= 2
	}
	// Offsets are at most a fifth of nominal, so neither sum leaves the range of a Duration.
	offset := time.Duration(float64(nominal) * jitter * (2*clamp(rnd) - 1))
	if room := b.Cap - nominal; offset > room {
		offset = room - (offset - room)
	}
	return nominal + offset
}

// clamp makes any float, NaN included, a number in [0, 1].
func clamp(rnd float64) float64 {
	if !(rnd > 0) {
		return 0
	}
	return min(rnd, 1)
}
