package stream

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"

	"walhook/cdc"
	"walhook/cdc/catalog"
)

// Phase is what a Stream is doing.
type Phase string

// The phases of a Stream.
const (
	PhaseStarting    Phase = "starting"
	PhaseStandby     Phase = "standby"     // another daemon reads the slot
	PhaseStreaming   Phase = "streaming"   // this daemon does
	PhaseRetrying    Phase = "retrying"    // the last connection broke
	PhaseReconciling Phase = "reconciling" // a gap is being closed
)

// Status is a running Stream's view of itself. It is safe for concurrent use.
type Status struct {
	mu              sync.Mutex
	phase           Phase
	reason          string
	since           time.Time
	position        cdc.Position
	received        pglogrepl.LSN
	oldestUnstored  time.Time // commit time of the oldest transaction that was read but is not stored; zero: none
	writeStarted    time.Time // when the store transaction in flight was sent; zero: none is
	events          EventCounts
	batches         int64
	slot            SlotView
	danger          string
	sourceReachable bool // the source answered the last check of the slot
	reconciled      int64
	reconcileFailed int64

	keyHidden atomic.Bool // a change without its key was received, or one is expected
}

// EventCounts counts events by EventType.
type EventCounts [cdc.EventTypeLimit]int64

// All returns the sum.
func (c EventCounts) All() (all int64) {
	for _, n := range c {
		all += n
	}
	return all
}

// SlotView is the slot at its last check.
type SlotView struct {
	Status   string // one of SlotStatuses; "" before the first check
	Active   bool   // some process reads it
	Retained int64  // bytes of WAL that it retains
}

// SlotStatuses are the values of pg_replication_slots.wal_status, and "missing".
var SlotStatuses = []string{"reserved", "extended", "unreserved", "lost", slotMissing}

const slotMissing = "missing"

// SlotStatus returns the slot's WAL status, or "missing".
func SlotStatus(s *catalog.Slot) string {
	if !s.Exists {
		return slotMissing
	}
	return s.WALStatus
}

// StatusView is a snapshot of a Status.
type StatusView struct {
	Phase           Phase
	Reason          string // why it is not streaming; safe to show
	Since           time.Time
	Position        cdc.Position  // as stored
	Received        pglogrepl.LSN // last reported end of the server's WAL
	Lag             time.Duration // age of the oldest transaction that the store lacks, as far as it is known; 0: none
	Writing         time.Duration // how long the store transaction in flight has taken; 0: none is
	Events          EventCounts   // stored for matching since the process began
	Batches         int64         // store transactions since the process began
	Slot            SlotView
	Danger          string // see SlotDanger
	SourceReachable bool   // whether the source answered the last check of the slot
	Reconciled      int64  // comparisons after a gap since the process began
	ReconcileFailed int64  // those that failed
}

// LagBytes returns how far the stored position is behind the server's end of WAL. It is not known until the position
// has been read. A standby has none.
func (v *StatusView) LagBytes() (lag pglogrepl.LSN, known bool) {
	switch {
	case v.Phase == PhaseStandby:
		return 0, true
	case v.Position.LSN == 0:
		return 0, false
	}
	return max(v.Received, v.Position.LSN) - v.Position.LSN, true
}

// View returns a snapshot.
func (s *Status) View() StatusView {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := StatusView{
		Phase: s.phase, Reason: s.reason, Since: s.since, Position: s.position, Received: s.received, Events: s.events, Batches: s.batches,
		Slot: s.slot, Danger: s.danger, SourceReachable: s.sourceReachable, Reconciled: s.reconciled, ReconcileFailed: s.reconcileFailed,
	}
	if v.Phase == "" {
		v.Phase = PhaseStarting
	}
	since := s.oldestUnstored
	if v.Phase != PhaseStreaming && v.Phase != PhaseStandby && since.IsZero() {
		since = s.since // while nothing is read, transactions may be waiting since then
	}
	if v.Phase != PhaseStandby && !since.IsZero() {
		v.Lag = max(time.Since(since), 0)
	}
	if !s.writeStarted.IsZero() {
		v.Writing = time.Since(s.writeStarted)
	}
	return v
}

func (s *Status) setPhase(phase Phase, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was := s.phase; was != phase {
		// An outage begins once, however often the phase alternates between retrying and starting.
		if reads := was == "" || was == PhaseStreaming || was == PhaseStandby; reads || phase == PhaseStreaming ||
			phase == PhaseStandby {
			s.since = time.Now()
		}
		if phase == PhaseStreaming || phase == PhaseStandby {
			s.oldestUnstored = time.Time{}
		}
	}
	s.phase, s.reason = phase, reason
}

// startWrite records that a store transaction was sent. The caller calls done when the store has answered.
func (s *Status) startWrite() (done func()) {
	note := func(at time.Time) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.writeStarted = at
	}
	note(time.Now())
	return func() { note(time.Time{}) }
}

func (s *Status) recordPosition(to cdc.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position = to
	s.batches++
}

func (s *Status) recordWALEnd(end pglogrepl.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received = max(s.received, end)
}

// recordLag records the commit time of the oldest transaction that was read but is not stored; zero: none.
func (s *Status) recordLag(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oldestUnstored = since
}

// recordSlot records the slot's state, and returns the previous danger.
func (s *Status) recordSlot(slot SlotView, danger string) (before string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.danger
	s.slot, s.danger, s.sourceReachable = slot, danger, true
	return before
}

// recordSourceDown records that the source does not answer.
func (s *Status) recordSourceDown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sourceReachable = false
}

func (s *Status) recordEvents(events EventCounts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, n := range events {
		s.events[i] += n
	}
}

// recordReconcile counts a reconciliation after a gap.
func (s *Status) recordReconcile(result ReconcileResult, err error) {
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.reconcileFailed++
		return
	}
	if result.Skipped {
		return
	}
	s.recordEvents(result.Events)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reconciled++
}
