package dispatch

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"walhook/cdc"
	"walhook/cdc/stream"
	"walhook/sql"
)

// Concern is one thing that has to work for deliveries to be sent and logged.
type Concern int

// The concerns of a Scheduler. All but the last two stop deliveries while they fail.
const (
	Recording  Concern = iota // results reach the store
	Loading                   // pending deliveries are read from the store
	Leasing                   // the lease is kept, and webhooks and endpoints are current
	Visibility                // the source says which commits it shows
	Logging                   // the log takes results itself, not its overflow
	Upkeep                    // the log has partitions ahead, and old ones go
	concerns

	// Parts of concerns that have goroutines of their own.
	heartbeats  = concerns     // of Leasing
	timeIndexes = concerns + 1 // of Upkeep
	withParts   = concerns + 2
)

// Concerns returns all of them.
func Concerns() []Concern {
	all := make([]Concern, concerns)
	for i := range all {
		all[i] = Concern(i)
	}
	return all
}

func (c Concern) String() string {
	return [concerns]string{"recording", "loading", "leasing", "visibility", "logging", "upkeep"}[c]
}

// text says what does not work.
func (c Concern) text() string {
	return [concerns]string{
		"results cannot be recorded, so no more is sent than that",
		"pending deliveries cannot be read from the store",
		"the lease cannot be kept or webhooks cannot be read",
		"the source does not say which commits it shows, and deliveries wait",
		"the log takes no results, which go to walhook.log_overflow meanwhile",
		"the log's upkeep fails",
	}[c]
}

// kind is the kind of the incident while it fails.
func (c Concern) kind() string {
	if c == Logging || c == Upkeep {
		return cdc.LogUpkeep
	}
	return cdc.DeliveriesStopped
}

const (
	// healthGrace is for how long something may fail before it is reported: connections break and are opened again.
	healthGrace = time.Second
	// incidentGrace is for how long it may fail before it is an incident.
	incidentGrace   = 4 * time.Second
	incidentTimeout = 5 * time.Second
)

// failure is a concern that fails.
type failure struct {
	since  time.Time // zero: it works
	reason string
	stops  bool // deliveries
}

// health is what fails at the moment. It is safe for concurrent use.
type health struct {
	mu      sync.Mutex
	failing [withParts]failure
}

// note takes down whether a concern works.
func (h *health) note(c Concern, err error) {
	h.noteAs(c, err, c != Logging && c != Upkeep && c != timeIndexes)
}

func (h *health) noteAs(c Concern, err error, stops bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.failing[c] = failure{}
		return
	}
	f := &h.failing[c]
	if f.since.IsZero() {
		f.since = time.Now()
	}
	f.reason, f.stops = err.Error(), stops
}

// noteUnless takes down whether a concern works, unless the context has ended.
func (s *Scheduler) noteUnless(ctx context.Context, c Concern, err error) {
	if ctx.Err() == nil {
		s.health.note(c, err)
	}
}

// fails returns what has failed for longer than that, by concern.
func (h *health) fails(longer time.Duration) [concerns]failure {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := [concerns]failure(h.failing[:concerns])
	found[Leasing] = worse(found[Leasing], h.failing[heartbeats])
	found[Upkeep] = worse(found[Upkeep], h.failing[timeIndexes])
	for i, f := range found {
		if f.since.IsZero() || time.Since(f.since) < longer {
			found[i] = failure{}
		}
	}
	return found
}

// worse returns what stops deliveries, or else what has failed for longer.
func worse(a, b failure) failure {
	if a.since.IsZero() || !b.since.IsZero() && (b.stops && !a.stops || b.stops == a.stops && b.since.Before(a.since)) {
		return b
	}
	return a
}

// stopped says what stops deliveries, "" where nothing does.
func (h *health) stopped() string {
	for c, f := range h.fails(healthGrace) {
		if f.stops {
			return Concern(c).text() + ": " + f.reason
		}
	}
	return ""
}

// because adds the reason for which a concern fails, where that is known.
func (h *health) because(text string, c Concern) string {
	if f := h.fails(0)[c]; f.reason != "" {
		return text + ": " + f.reason
	}
	return text
}

// Failing returns which concerns fail.
func (s *Scheduler) Failing() map[Concern]bool {
	failing := map[Concern]bool{}
	for c, f := range s.health.fails(healthGrace) {
		failing[Concern(c)] = !f.since.IsZero()
	}
	return failing
}

// healthLoop opens an incident for what fails and resolves it when that is over.
func (s *Scheduler) healthLoop(ctx context.Context) {
	kinds := []string{cdc.DeliveriesStopped, cdc.LogUpkeep}
	settled := map[string]bool{} // no incident of the kind can be open because of this daemon
	tick := time.NewTicker(healthGrace)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		texts := map[string][]string{}
		for c, f := range s.health.fails(incidentGrace) {
			if kind := Concern(c).kind(); !f.since.IsZero() {
				texts[kind] = append(texts[kind], Concern(c).text()+": "+f.reason)
			}
		}
		for _, kind := range kinds {
			if len(texts[kind]) == 0 && settled[kind] {
				continue
			}
			if err := s.tellIncident(ctx, kind, texts[kind]); err != nil {
				s.cfg.Log.Debug("incident not written", "kind", kind, "error", err)
				continue
			}
			settled[kind] = len(texts[kind]) == 0
		}
	}
}

// tellIncident opens the kind's incident with these texts, or resolves it where there are none and no other living daemon has opened it.
func (s *Scheduler) tellIncident(ctx context.Context, kind string, texts []string) error {
	ctx, cancel := context.WithTimeout(ctx, incidentTimeout)
	defer cancel()
	query, args := sql.ResolveOwnIncident, sql.Args{"kind": kind, "daemon": stream.DaemonName()}
	if len(texts) > 0 {
		detail := fmt.Sprintf("daemon %s: %s", stream.DaemonName(), strings.Join(texts, "; "))
		query, args = sql.OpenOwnIncident, sql.Args{"kind": kind, "detail": detail, "daemon": stream.DaemonName()}
	}
	if _, err := s.pool.Exec(ctx, query.SQL, query.Bind(args)...); err != nil {
		return fmt.Errorf("write the incident %s: %w", kind, err)
	}
	return nil
}
