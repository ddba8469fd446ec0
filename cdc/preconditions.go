package cdc

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/sql"
)

// PreconditionLost is the kind of incident that names what attach required and holds no more. The stream goes on without it, until the
// table has to be compared.
const PreconditionLost = "precondition_lost"

// watchedElsewhere are the checks whose end the watch finds as a gap or the guard mends, and those that are of the moment alone.
var watchedElsewhere = []string{"publication", "replica_identity", "free_slots", "free_senders"}

// lostPreconditions returns what of attach's preconditions holds no more, with the remedies; "" where all do.
func (p *Preflight) lostPreconditions() string {
	lost := slices.DeleteFunc(p.Refusals(), func(f Finding) bool { return slices.Contains(watchedElsewhere, f.Check) })
	if len(lost) == 0 {
		return ""
	}
	return strings.TrimSuffix(reasons(lost), ".") + "; until then the table cannot be compared with the recorded state, should the slot be lost"
}

// watchPreconditions opens an incident when something that attach required has changed, and resolves it when it is as before. The store is
// asked when asked is false, and otherwise only where this process found a change.
func (s *Stream) watchPreconditions(ctx context.Context, source *pgx.Conn, a *Attachment, asked bool) error {
	preflight, err := Inspect(ctx, source, Target{Slot: s.cfg.Slot, Publication: s.cfg.Publication, Publish: a.Publish, Mapping: s.cfg.Mapping})
	if err != nil {
		return err
	}
	lost := preflight.lostPreconditions()
	if asked && lost == s.lost {
		return nil
	}
	err = s.atStore(ctx, func(store *pgx.Conn) error {
		work := &pgx.Batch{}
		if lost == "" || lost != s.lost {
			work.Queue(sql.ResolveOthers.SQL, sql.ResolveOthers.Bind(sql.Args{"kind": PreconditionLost, "detail": lost})...)
		}
		if lost != "" {
			work.Queue(sql.OpenIncident.SQL, sql.OpenIncident.Bind(sql.Args{"kind": PreconditionLost, "detail": lost})...)
		}
		return store.SendBatch(ctx, work).Close()
	})
	if err != nil {
		return fmt.Errorf("record the incident: %w", err)
	}
	if lost != "" && lost != s.lost {
		s.cfg.Log.Warn("should the slot be lost, the table could not be compared with the recorded state", "detail", lost)
	}
	s.lost = lost
	return nil
}
