package stream

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/catalog"
)

const (
	// watchInterval is how often the catalog is inspected: the stream does not show changes there.
	watchInterval = 3 * time.Second

	// preconditionEvery is how many inspections there are for each check of attach's preconditions.
	preconditionEvery = 2
)

// watch inspects slot, publication and tables while the stream runs, and returns a *GapError if the stream may have
// missed changes. It replaces a broken connection: the stream itself notices if the server is gone.
func (s *Stream) watch(ctx context.Context, a *catalog.Attachment) error {
	var source *pgx.Conn
	s.lostPrecondition.known, s.hiddenKey.known, s.unlogged.known = false, false, false
	defer func() {
		if source != nil {
			catalog.CloseQuietly(source)
		}
	}()
	for checks := 0; ; checks++ {
		select {
		case <-time.After(watchInterval):
		case <-ctx.Done():
			return nil
		}
		if source == nil || source.IsClosed() {
			var err error
			if source, err = s.cfg.Original.ConnectSource(ctx, s.cfg.SourceURL); err != nil {
				s.cfg.Log.Debug("watch cannot connect", "error", err)
				source = nil
				continue
			}
		}
		tables, gap, err := s.inspect(ctx, source, a)
		if err == nil && gap == nil {
			gap, err = s.watchKeyHidden(ctx, tables)
		}
		if err == nil && gap == nil {
			gap, err = s.watchUnlogged(ctx, tables)
		}
		if err == nil && gap == nil {
			gap = cmp.Or(s.checkPartitions(tables), s.checkColumnTypes(a, tables))
		}
		if err == nil && gap == nil && checks%preconditionEvery == 0 {
			err = s.watchPreconditions(ctx, source, a)
		}
		if err != nil {
			s.cfg.Log.Debug("watch check failed", "error", err)
			catalog.CloseQuietly(source)
			source = nil
			continue
		}
		if gap != nil {
			return gap
		}
	}
}

// inspect returns the mapped tables, and the first gap that it finds or nil. It checks what harms the application
// before what harms the stream.
func (s *Stream) inspect(
	ctx context.Context, source *pgx.Conn, a *catalog.Attachment,
) ([]*catalog.Table, *cdc.GapError, error) {
	m := s.cfg.Mapping
	respondent, err := catalog.InspectTable(ctx, source, m.Respondent)
	if err != nil {
		return nil, nil, err
	}
	if respondent == nil || respondent.OID != a.RespondentOID {
		return nil, tableReplacedGap(m.Respondent), nil
	}
	published := []*catalog.Table{respondent}
	var assessment *catalog.Table
	if m.HasAssessmentTable() {
		if assessment, err = catalog.InspectTable(ctx, source, m.AssessmentTable); err != nil {
			return nil, nil, err
		}
		if assessment == nil || assessment.OID != a.AssessmentOID {
			return nil, tableReplacedGap(m.AssessmentTable), nil
		}
		published = append(published, assessment)
	}
	have, err := catalog.InspectPublication(ctx, source, s.cfg.Publication)
	if err != nil {
		return nil, nil, err
	}
	if gap := s.cfg.Guard.protectWrites(ctx, source, have, published...); gap != nil {
		return nil, gap, nil
	}
	slot, err := catalog.InspectSlot(ctx, source, s.cfg.Slot)
	if err != nil {
		return nil, nil, err
	}
	if !slot.Exists {
		return nil, s.cfg.Guard.missingSlotGap(), nil
	}
	if slot.WALStatus == "lost" {
		return nil, &cdc.GapError{Kind: cdc.SlotLost, Detail: slot.DescribeLost()}, nil
	}
	spec := catalog.NewPublicationSpec(s.cfg.Publication, s.cfg.Slot, a.Publish, m, respondent, assessment)
	if drift := spec.Drift(have); len(drift) > 0 {
		return nil, &cdc.GapError{Kind: cdc.PublicationChanged, Detail: strings.Join(drift, "; ")}, nil
	}
	if !a.HasPublicationRows(have.CatalogRows(respondent, assessment)) {
		partition := ""
		if respondent.AttachedPartitions != "" {
			partition = ", or a table became a partition, whose changes PostgreSQL 14 may leave out"
		}
		return nil, &cdc.GapError{
			Kind: cdc.PublicationChanged,
			Detail: fmt.Sprintf("publication %q was changed or created again%s; it now publishes what it should",
				s.cfg.Publication, partition),
		}, nil
	}
	return published, nil, nil
}

// checkPartitions returns a gap if a partition was truncated since the last check: PostgreSQL does not publish that
// through the partitioned table.
func (s *Stream) checkPartitions(tables []*catalog.Table) *cdc.GapError {
	if s.cfg.Reconcile == nil {
		return nil
	}
	var names []string
	files := map[string]uint32{}
	for _, table := range tables {
		if !table.Partitioned() {
			continue
		}
		for _, p := range table.Identities {
			if before, known := s.partitionFiles[p.Table]; known && before != p.File && p.Empty {
				names = append(names, p.Table)
			}
			files[p.Table] = p.File
		}
	}
	s.partitionFiles = files
	if len(names) == 0 {
		return nil
	}
	return &cdc.GapError{
		Kind:   cdc.PartitionEmptied,
		Detail: "truncated on its own, which PostgreSQL does not publish: partition " + strings.Join(names, ", "),
	}
}

func tableReplacedGap(name cdc.Name) *cdc.GapError {
	return &cdc.GapError{
		Kind: cdc.TableReplaced, Detail: "table " + name.Display() + " is gone, or another table has its name",
	}
}
