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

// Concern is something that has to work for deliveries to be sent and logged.
type Concern int

// The concerns of a Scheduler. All but the last two stop deliveries while they fail.
const (
	Recording  Concern = iota // results are recorded in the store
	Loading                   // pending deliveries are read from the store
	Leasing                   // the lease is kept, and webhooks and endpoints are current
	Visibility                // the source says which commits it shows
	Logging                   // the log accepts results, so that none go to its overflow
	Upkeep                    // the log has partitions ahead, and old ones are dropped
	concerns

	// Parts of concerns that fail and recover on their own.
	heartbeats  = concerns     // of Leasing
	timeIndexes = concerns + 1 // of Upkeep
	withParts   = concerns + 2
)

// Concerns returns all concerns.
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

// text describes the failure.
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

// kind is the kind of incident that the failure opens.
func (c Concern) kind() string {
	if c == Logging || c == Upkeep {
		return cdc.LogUpkeep
	}
	return cdc.DeliveriesStopped
}

const (
	// healthGrace is how long something may fail before it is reported: lost connections are soon replaced.
	healthGrace = time.Second
	// incidentGrace is how long it may fail before it is an incident.
	incidentGrace   = 4 * time.Second
	incidentTimeout = 5 * time.Second
)

// failure is the state of a concern.
type failure struct {
	since  time.Time // zero: it works
	reason string
	stops  bool // it stops deliveries
}

// health holds the failing concerns. It is safe for concurrent use.
type health struct {
	mu      sync.Mutex
	failing [withParts]failure
}

// note notes that a concern works (nil) or fails.
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

// noteUnless is note, unless the context has ended.
func (s *Scheduler) noteUnless(ctx context.Context, c Concern, err error) {
	if ctx.Err() == nil {
		s.health.note(c, err)
	}
}

// failingFor returns the concerns that have failed for longer than that.
func (h *health) failingFor(longer time.Duration) [concerns]failure {
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

// worse returns the failure that stops deliveries, or else the one that has lasted longer.
func worse(a, b failure) failure {
	if a.since.IsZero() || !b.since.IsZero() && (b.stops && !a.stops || b.stops == a.stops && b.since.Before(a.since)) {
		return b
	}
	return a
}

// stoppedBecause returns the reason why deliveries are stopped, or "".
func (h *health) stoppedBecause() string {
	for c, f := range h.failingFor(healthGrace) {
		if f.stops {
			return Concern(c).text() + ": " + f.reason
		}
	}
	return ""
}

// withReason adds the reason why a concern fails, if it is known.
func (h *health) withReason(text string, c Concern) string {
	if f := h.failingFor(0)[c]; f.reason != "" {
		return text + ": " + f.reason
	}
	return text
}

// Failing returns the concerns that fail.
func (s *Scheduler) Failing() map[Concern]bool {
	failing := map[Concern]bool{}
	for c, f := range s.health.failingFor(healthGrace) {
		failing[Concern(c)] = !f.since.IsZero()
	}
	return failing
}

// healthLoop opens incidents for concerns that fail, and resolves them when they work again.
func (s *Scheduler) healthLoop(ctx context.Context) {
	kinds := []string{cdc.DeliveriesStopped, cdc.LogUpkeep}
	settled := map[string]bool{} // this daemon has no open incident of the kind
	tick := time.NewTicker(healthGrace)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		texts := map[string][]string{}
		for c, f := range s.health.failingFor(incidentGrace) {
			if kind := Concern(c).kind(); !f.since.IsZero() {
				texts[kind] = append(texts[kind], Concern(c).text()+": "+f.reason)
			}
		}
		for _, kind := range kinds {
			if len(texts[kind]) == 0 && settled[kind] {
				continue
			}
			if err := s.writeIncident(ctx, kind, texts[kind]); err != nil {
				s.cfg.Log.Debug("incident not written", "kind", kind, "error", err)
				continue
			}
			settled[kind] = len(texts[kind]) == 0
		}
	}
}

// writeIncident opens the kind's incident, or resolves it if texts is empty and no other live daemon keeps it open.
func (s *Scheduler) writeIncident(ctx context.Context, kind string, texts []string) error {
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
