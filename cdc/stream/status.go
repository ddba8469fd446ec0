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
	PhaseStandby     Phase = "standby"   // another daemon reads the slot
	PhaseStreaming   Phase = "streaming" // this one does
	PhaseRetrying    Phase = "retrying"  // the last connection broke
	PhaseReconciling Phase = "mending"   // a gap is being closed
)

// Status is what a Stream says of itself while it runs. It is safe for concurrent use.
type Status struct {
	mu              sync.Mutex
	phase           Phase
	reason          string
	since           time.Time
	position        cdc.Position
	received        pglogrepl.LSN
	oldestUnstored  time.Time // commit of the oldest transaction that was read and is not stored; zero: none
	writeStarted    time.Time // when the transaction that the store is at was sent; zero: it is at none
	events          EventCounts
	batches         int64
	slot            SlotView
	danger          string
	sourceReachable bool // the source answered when the slot was last looked at
	reconciled      int64
	reconcileFailed int64

	keyHidden atomic.Bool // something came without its key, or is going to
}

// EventCounts are numbers of events by their EventType.
type EventCounts [cdc.Changed + 1]int64

// All returns their sum.
func (c EventCounts) All() (all int64) {
	for _, n := range c {
		all += n
	}
	return all
}

// SlotView is the slot as the server last told of it.
type SlotView struct {
	Status   string // one of SlotStatuses; "" before the first look
	Active   bool   // somebody reads it
	Retained int64  // bytes of WAL that it holds back
}

// SlotStatuses are what pg_replication_slots.wal_status says of a slot, and missing where there is none.
var SlotStatuses = []string{"reserved", "extended", "unreserved", "lost", slotMissing}

const slotMissing = "missing"

// SlotStatus is what is told of a slot's WAL.
func SlotStatus(s *catalog.Slot) string {
	if !s.Exists {
		return slotMissing
	}
	return s.WALStatus
}

// StatusView is a copy of a Status at one moment.
type StatusView struct {
	Phase           Phase
	Reason          string // why it is not streaming; safe to show
	Since           time.Time
	Position        cdc.Position  // as stored
	Received        pglogrepl.LSN // WAL end that the server last told
	Lag             time.Duration // age of the oldest transaction that the store lacks, as far as it is known; 0: none
	Writing         time.Duration // for how long the store has been at the transaction that was sent last; 0: it has answered
	Events          EventCounts   // stored for matching since the process began
	Batches         int64         // store transactions since the process began
	Slot            SlotView
	Danger          string // what the slot comes near to; "": nothing
	SourceReachable bool   // whether the source answered when the slot was last looked at
	Reconciled      int64  // comparisons after a gap since the process began
	ReconcileFailed int64  // those that failed
}

// View returns a copy.
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
		since = s.since // while nothing is read, this much may wait
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
		// One break is one, however often it goes from retrying to starting and back.
		if reads := was == "" || was == PhaseStreaming || was == PhaseStandby; reads || phase == PhaseStreaming || phase == PhaseStandby {
			s.since = time.Now()
		}
		if phase == PhaseStreaming || phase == PhaseStandby {
			s.oldestUnstored = time.Time{}
		}
	}
	s.phase, s.reason = phase, reason
}

// startWrite notes that a transaction is sent to the store. What it returns notes that the store has answered.
func (s *Status) startWrite() (answered func()) {
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

// recordLag notes the commit time of the oldest transaction that was read and is not stored, zero where there is none.
func (s *Status) recordLag(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oldestUnstored = since
}

// recordSlot takes down what the slot holds back, and returns the danger it was in before.
func (s *Status) recordSlot(slot SlotView, danger string) (before string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.danger
	s.slot, s.danger, s.sourceReachable = slot, danger, true
	return before
}

// recordSourceDown notes that the source does not answer.
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

// recordReconcile counts a comparison after a gap.
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
