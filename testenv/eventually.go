package testenv

import (
	"testing"
	"time"
)

// Eventually waits until the condition holds, and fails with its last word when it does not in time.
func Eventually(t testing.TB, within time.Duration, what string, condition func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		ok, detail := condition()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %s", what, within, detail)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
