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
	PhaseStarting  Phase = "starting"
	PhaseStandby   Phase = "standby"   // another daemon reads the slot
	PhaseStreaming Phase = "streaming" // this one does
	PhaseRetrying  Phase = "retrying"  // the last connection broke
	PhaseMending   Phase = "mending"   // a gap is being closed
)

// Status is what a Stream says of itself while it runs. It is safe for concurrent use.
type Status struct {
	mu       sync.Mutex
	phase    Phase
	reason   string
	since    time.Time
	position cdc.Position
	received pglogrepl.LSN
	behind   time.Time // commit of the oldest transaction that was read and is not stored; zero: none
	asked    time.Time // when the transaction that the store is at was sent; zero: it is at none
	events   EventCounts
	batches  int64
	slot     SlotView
	danger   string
	reached  bool // the source answered when the slot was last looked at
	mended   int64
	unmended int64

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
func SlotStatus(s *catalog.SlotInfo) string {
	if !s.Exists {
		return slotMissing
	}
	return s.WALStatus
}

// StatusView is a copy of a Status at one moment.
type StatusView struct {
	Phase    Phase
	Reason   string // why it is not streaming; safe to show
	Since    time.Time
	Position cdc.Position  // as stored
	Received pglogrepl.LSN // WAL end that the server last told
	Behind   time.Duration // age of the oldest transaction that the store lacks, as far as it is known; 0: none
	Writing  time.Duration // for how long the store has been at the transaction that was sent last; 0: it has answered
	Events   EventCounts   // stored for matching since the process began
	Batches  int64         // store transactions since the process began
	Slot     SlotView
	Danger   string // what the slot comes near to; "": nothing
	Source   bool   // whether the source answered when the slot was last looked at
	Mended   int64  // comparisons after a gap since the process began
	Unmended int64  // those that failed
}

// View returns a copy.
func (s *Status) View() StatusView {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := StatusView{
		Phase: s.phase, Reason: s.reason, Since: s.since, Position: s.position, Received: s.received, Events: s.events, Batches: s.batches,
		Slot: s.slot, Danger: s.danger, Source: s.reached, Mended: s.mended, Unmended: s.unmended,
	}
	if v.Phase == "" {
		v.Phase = PhaseStarting
	}
	since := s.behind
	if v.Phase != PhaseStreaming && v.Phase != PhaseStandby && since.IsZero() {
		since = s.since // while nothing is read, this much may wait
	}
	if v.Phase != PhaseStandby && !since.IsZero() {
		v.Behind = max(time.Since(since), 0)
	}
	if !s.asked.IsZero() {
		v.Writing = time.Since(s.asked)
	}
	return v
}

func (s *Status) enter(phase Phase, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was := s.phase; was != phase {
		// One break is one, however often it goes from retrying to starting and back.
		if reads := was == "" || was == PhaseStreaming || was == PhaseStandby; reads || phase == PhaseStreaming || phase == PhaseStandby {
			s.since = time.Now()
		}
		if phase == PhaseStreaming || phase == PhaseStandby {
			s.behind = time.Time{}
		}
	}
	s.phase, s.reason = phase, reason
}

// writes notes that a transaction is sent to the store. What it returns notes that the store has answered.
func (s *Status) writes() (answered func()) {
	note := func(at time.Time) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked = at
	}
	note(time.Now())
	return func() { note(time.Time{}) }
}

func (s *Status) stored(to cdc.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position = to
	s.batches++
}

func (s *Status) heard(end pglogrepl.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received = max(s.received, end)
}

// lags notes the commit time of the oldest transaction that was read and is not stored, zero where there is none.
func (s *Status) lags(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behind = since
}

// weighed takes down what the slot holds back, and returns the danger it was in before.
func (s *Status) weighed(slot SlotView, danger string) (before string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.danger
	s.slot, s.danger, s.reached = slot, danger, true
	return before
}

// unreached notes that the source does not answer.
func (s *Status) unreached() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reached = false
}

func (s *Status) queued(events EventCounts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, n := range events {
		s.events[i] += n
	}
}

// compared counts a comparison after a gap.
func (s *Status) compared(result Reconciled, err error) {
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.unmended++
		return
	}
	if result.Elsewhere {
		return
	}
	s.queued(result.Events)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mended++
}
