package testenv

import (
	"testing"
	"time"
)

// Eventually waits until the condition holds, and fails with its last word when it does not in time. It asks less and less
// often, down to twenty times a second, for what is asked takes from what is waited for.
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

// EventuallyWhileMoving waits as long as there is progress: it fails when the condition's last word has been the same for a time.
func EventuallyWhileMoving(t testing.TB, still time.Duration, what string, condition func() (bool, string)) {
	t.Helper()
	last, since := "", time.Now()
	for {
		ok, detail := condition()
		if ok {
			return
		}
		if detail != last {
			last, since = detail, time.Now()
		}
		if time.Since(since) > still {
			t.Fatalf("%s: nothing has changed for %s: %s", what, still, detail)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
