package stream

import (
	"context"
	"fmt"

	"walhook/cdc"
	"walhook/cdc/catalog"
)

// watchUnlogged keeps an incident open while a table, or a partition of one, is unlogged. Once none is, it returns the
// gap that remains. PostgreSQL keeps only tables that a publication names from becoming unlogged.
func (s *Stream) watchUnlogged(ctx context.Context, tables []*catalog.Table) (*cdc.GapError, error) {
	for _, table := range tables {
		for _, identity := range table.Identities {
			if identity.Logged {
				continue
			}
			detail := fmt.Sprintf("table %s is unlogged, so its changes are not in the WAL and fire nothing, and a row that is moved there looks deleted, "+
				"until somebody runs %s then the table is compared", identity.Table, identity.LogSQL())
			changed, err := s.trackIncident(ctx, &s.unlogged, cdc.TableUnlogged, detail)
			if changed {
				s.cfg.Log.Error("a table is unlogged", "table", identity.Table, "detail", detail)
			}
			return nil, err
		}
	}
	if s.unlogged.known && s.unlogged.detail == "" {
		return nil, nil
	}
	open, err := s.openGap(ctx, cdc.TableUnlogged)
	if err != nil {
		return nil, err
	}
	s.unlogged = trackedIncident{known: true}
	if open == nil {
		return nil, nil
	}
	return &cdc.GapError{Kind: cdc.TableUnlogged, Detail: "a table was unlogged, so its changes were not in the WAL; now they are"}, nil
}
