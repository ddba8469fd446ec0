package dispatch

import (
	"errors"
	"testing"
	"unsafe"

	"walhook/cdc"
	"walhook/dispatch/schedule"
)

// An attempt without a tracer allocates nothing for traces, and a delivery in memory is no larger.
func TestWithoutTracesNothingIsAllocated(t *testing.T) {
	s := NewScheduler(Config{})
	d := &schedule.Delivery{ID: 1, WebhookID: 2, ResponseID: "3", Origin: "1", Event: cdc.Completed, Hook: &schedule.Webhook{TargetErr: errors.New("no target")}}
	bare := testing.AllocsPerRun(1000, func() { s.attempt(d) })
	traced := testing.AllocsPerRun(1000, func() { s.attemptTraced(d) })
	if traced != bare {
		t.Errorf("an attempt that is not traced allocates %v times, and %v times through traced", bare, traced)
	}
	// 160 bytes are one of the runtime's size classes; the next has 176.
	if size := unsafe.Sizeof(schedule.Delivery{}); size > 160 {
		t.Errorf("a delivery takes %d bytes", size)
	}
}
