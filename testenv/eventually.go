package testenv

import (
	"testing"
	"time"
)

// Eventually waits until the condition holds, and fails with its last detail if it does not in time. It polls less and
// less often, down to twenty times a second, because polling slows down what it waits for.
func Eventually(t testing.TB, within time.Duration, what string, condition func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(within)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		ok, detail := condition()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %s", what, within, detail)
		}
		time.Sleep(pause)
	}
}

// EventuallyWhileMoving waits as long as there is progress: it fails when the condition's detail has not changed for
// the given time, and after five times that in any case.
func EventuallyWhileMoving(t testing.TB, still time.Duration, what string, condition func() (bool, string)) {
	t.Helper()
	began := time.Now()
	last, since := "", began
	for {
		ok, detail := condition()
		if ok {
			return
		}
		if detail != last {
			last, since = detail, time.Now()
		}
		if time.Since(since) > still || time.Since(began) > 5*still {
			t.Fatalf("%s: not within %s, and unchanged for %s: %s", what,
				time.Since(began).Round(time.Second), time.Since(since).Round(time.Second), detail)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
