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
	table, detail := unloggedDetail(tables)
	changed, gap, err := s.trackTemporaryGap(ctx, &s.unlogged, cdc.TableUnlogged, detail, false,
		"a table was unlogged, so its changes were not in the WAL; now they are")
	if changed {
		s.cfg.Log.Error("a table is unlogged", "table", table, "detail", detail)
	}
	return gap, err
}

// unloggedDetail describes the first unlogged table or partition; detail is "" if there is none.
func unloggedDetail(tables []*catalog.Table) (table, detail string) {
	for _, t := range tables {
		for _, identity := range t.Identities {
			if !identity.Logged {
				return identity.Table, fmt.Sprintf(
					"table %s is unlogged, so its changes are not in the WAL and fire nothing, "+
						"and a row that is moved there looks deleted, until somebody runs %s then the table is compared",
					identity.Table, identity.LogSQL(),
				)
			}
		}
	}
	return "", ""
}
