package stream

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// Only a wakeup that continues a long series of close wakeups with little work sleeps. Any other ends the series.
func TestWakeupsSleepOnlyInALongSeries(t *testing.T) {
	t.Parallel()
	type wakeup struct {
		after  time.Duration // since the previous one had slept
		little bool
		at     time.Time
	}
	gaps := []time.Duration{0, 1, coalesceWindow - coalesceDelay, coalesceWindow - 1, coalesceWindow, time.Second}
	rapid.Check(t, func(r *rapid.T) {
		var all []wakeup
		for range rapid.IntRange(1, 6).Draw(r, "runs") {
			w := wakeup{after: rapid.SampledFrom(gaps).Draw(r, "gap"), little: rapid.Bool().Draw(r, "little")}
			for range rapid.IntRange(1, 2*coalesceAfter).Draw(r, "wakeups") {
				all = append(all, w)
			}
		}
		// The series that ends with a wakeup, and how long that one is to sleep.
		series := func(last int) (length int) {
			for i := last; i > 0 && all[i].little && all[i].at.Sub(all[i-1].at) < coalesceWindow; i-- {
				length++
			}
			return length
		}
		synctest.Test(t, func(*testing.T) {
			var counted wakeups
			for i := range all {
				time.Sleep(all[i].after)
				all[i].at = time.Now()
				counted.record(all[i].little)
				counted.pause()
				slept, want := time.Since(all[i].at), time.Duration(0)
				if series(i) >= coalesceAfter {
					want = coalesceDelay
				}
				if slept != want {
					t.Errorf("wakeup %d, after %d close ones, sleeps for %s instead of %s", i+1, series(i), slept, want)
					return
				}
			}
		})
	})
}
