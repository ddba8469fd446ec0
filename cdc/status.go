package cdc

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
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
	position Position
	received pglogrepl.LSN
	events   int64
	batches  int64
	retained int64
	danger   string

	keyHidden atomic.Bool // something came without its key, or is going to
}

// StatusView is a copy of a Status at one moment.
type StatusView struct {
	Phase    Phase
	Reason   string // why it is not streaming; safe to show
	Since    time.Time
	Position Position      // as stored
	Received pglogrepl.LSN // WAL end that the server last told
	Events   int64         // queued for matching since the process began
	Batches  int64         // store transactions since the process began
	Retained int64         // bytes of WAL that the slot held back when last looked at
	Danger   string        // what the slot comes near to; "": nothing
}

// View returns a copy.
func (s *Status) View() StatusView {
	s.mu.Lock()
	defer s.mu.Unlock()
	phase := s.phase
	if phase == "" {
		phase = PhaseStarting
	}
	return StatusView{Phase: phase, Reason: s.reason, Since: s.since, Position: s.position, Received: s.received, Events: s.events, Batches: s.batches, Retained: s.retained, Danger: s.danger}
}

func (s *Status) enter(phase Phase, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != phase {
		s.since = time.Now()
	}
	s.phase, s.reason = phase, reason
}

func (s *Status) stored(to Position) {
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

// weighed takes down what the slot holds back, and returns the danger it was in before.
func (s *Status) weighed(retained int64, danger string) (before string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.danger
	s.retained, s.danger = retained, danger
	return before
}

func (s *Status) queued(events int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events += int64(events)
}
