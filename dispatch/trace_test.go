package dispatch

import (
	"errors"
	"testing"
	"unsafe"

	"walhook/cdc"
)

// An attempt without a tracer allocates nothing for traces, and a delivery in memory is no larger.
func TestWithoutTracesNothingIsAllocated(t *testing.T) {
	s := NewScheduler(Config{})
	d := &delivery{id: 1, webhookID: 2, responseID: "3", origin: "1", event: cdc.Completed, hook: &webhook{targetErr: errors.New("no target")}}
	bare := testing.AllocsPerRun(1000, func() { s.attempt(d) })
	traced := testing.AllocsPerRun(1000, func() { s.attemptTraced(d) })
	if traced != bare {
		t.Errorf("an attempt that is not traced allocates %v times, and %v times through traced", bare, traced)
	}
	// 160 bytes are one of the runtime's size classes; the next has 176.
	if size := unsafe.Sizeof(delivery{}); size > 160 {
		t.Errorf("a delivery takes %d bytes", size)
	}
}
