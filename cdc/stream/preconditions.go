package stream

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/catalog"
)

// checkedElsewhere are checks that the watch reports as a gap or the guard repairs, and checks that only matter at
// attach.
var checkedElsewhere = []string{"publication", "replica_identity", "free_slots", "free_senders"}

// lostPreconditions describes the preconditions of attach that no longer hold, with remedies; "" if all do.
func lostPreconditions(p *catalog.Preflight) string {
	lost := slices.DeleteFunc(p.Refusals(), func(f catalog.Finding) bool { return slices.Contains(checkedElsewhere, f.Check) })
	if len(lost) == 0 {
		return ""
	}
	return strings.TrimSuffix(catalog.FormatFindings(lost), ".") + "; until then walhook could not recover from a lost slot"
}

// watchPreconditions keeps an incident open while a precondition of attach does not hold.
func (s *Stream) watchPreconditions(ctx context.Context, source *pgx.Conn, a *catalog.Attachment) error {
	preflight, err := catalog.InspectSource(ctx, source,
		catalog.Target{Slot: s.cfg.Slot, Publication: s.cfg.Publication, Publish: a.Publish, Mapping: s.cfg.Mapping})
	if err != nil {
		return err
	}
	synchronous, err := catalog.InspectSynchronous(ctx, source)
	if err != nil {
		return err
	}
	preflight.Findings = append(preflight.Findings, synchronous)
	lost := lostPreconditions(preflight)
	changed, err := s.trackIncident(ctx, &s.lostPrecondition, cdc.PreconditionLost, lost)
	if changed && lost != "" {
		s.cfg.Log.Warn("a precondition was lost; walhook could not recover from a lost slot", "detail", lost)
	}
	return err
}
