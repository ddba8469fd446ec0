package dispatch

import (
	"errors"
	"testing"
)

// Heartbeats and refreshes fail and recover independently, and are reported as one concern.
func TestHeartbeatsAndRefreshesFailIndependently(t *testing.T) {
	t.Parallel()
	var h health
	reported := func(want string) {
		t.Helper()
		if got := h.failingFor(0)[Leasing].reason; got != want {
			t.Errorf("what fails is %q, not %q", got, want)
		}
	}
	h.note(heartbeats, errors.New("heartbeats"))
	h.note(Leasing, nil)
	reported("heartbeats")
	h.note(Leasing, errors.New("lease"))
	reported("heartbeats") // for longer
	h.note(heartbeats, nil)
	reported("lease")
	h.note(Leasing, nil)
	reported("")
}
