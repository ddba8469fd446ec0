package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/sql"
)

// Remap moves an attachment to another mapping. It consumes the slot with the attached mapping up to a snapshot, so
// that all earlier changes fire as they always did, and records what the rows show there under the new mapping, which
// fires nothing. States, mapping and position are one store transaction: an interrupted Remap leaves the attached
// mapping in force. A daemon that reads the slot steps aside, and ends once it finds the new mapping.
//
// Before that transaction the publication publishes what both mappings need, and afterwards what the new one needs. If
// Remap is interrupted in between, the next one trims the publication.
//
// newQueue returns the queue for events of a mapping.
func Remap(ctx context.Context, cfg ReconcileConfig, newQueue func(cdc.Mapping) cdc.Queue) error {
	store, err := catalog.ConnectLocking(ctx, cfg.StoreURL)
	if err != nil {
		return err
	}
	defer catalog.CloseLocking(store)
	if err := sql.CheckVersion(ctx, store); err != nil {
		return err
	}
	r := &reconciler{cfg: cfg, store: store}
	if err := r.checkOriginal(ctx); err != nil {
		return err
	}
	if _, err := r.lockReader(ctx); err != nil {
		return err
	}
	if err := catalog.LockAttach(ctx, store); err != nil {
		return err
	}
	attachment, position, err := catalog.ReadAttached(ctx, store)
	if err != nil {
		return err
	}
	if r.remap, err = attachment.CheckRemap(cfg.Target); err != nil {
		return err
	}
	r.attachment, r.cfg.Target.Publish = attachment, attachment.Publish
	if r.remap == nil {
		cfg.Note("this mapping is the attached one")
		return r.trimPublication(ctx)
	}
	cfg.Note("moving to another mapping:\n" + catalog.DifferenceTable(r.remap))
	r.cfg.Queue = newQueue(attachment.Mapping)
	_, err = r.reconcileInPlace(ctx, attachment, position)
	var gap *cdc.GapError
	if errors.As(err, &gap) {
		return fmt.Errorf("the stream is not intact (%w); run `walhook reconcile` with the attached mapping first; the mapping was not changed", gap)
	}
	if err != nil {
		return err
	}
	return r.trimPublication(ctx)
}

// describeRemap names the variables that change.
func (r *reconciler) describeRemap() string {
	variables := make([]string, len(r.remap))
	for i, d := range r.remap {
		variables[i] = d.Variable
	}
	return "moved to another mapping (" + strings.Join(variables, ", ") + ")"
}

// prepareRemap publishes what the new mapping needs besides what the attached one does, and returns the statement that
// records the mapping.
func (r *reconciler) prepareRemap(ctx context.Context, source *pgx.Conn, p *catalog.Preflight) (extraStatement, error) {
	attached := r.attachment.Mapping
	before := p.Assessment // of the attached mapping
	if attached.AssessmentTable != r.cfg.Target.Mapping.AssessmentTable {
		var err error
		if before, err = catalog.InspectTable(ctx, source, attached.AssessmentTable); err != nil {
			return extraStatement{}, err
		}
	}
	if err := r.alterPublication(ctx, source, p.PublicationSpec.ExtendSQL(p.Publication), p.Respondent, before); err != nil {
		return extraStatement{}, err
	}
	published, err := catalog.InspectPublication(ctx, source, r.cfg.Target.Publication)
	if err != nil {
		return extraStatement{}, err
	}
	if drift := p.PublicationSpec.Drift(published); len(drift) > 0 {
		return extraStatement{}, fmt.Errorf("%s; the mapping was not changed", strings.Join(drift, "; "))
	}
	mapping, err := json.Marshal(r.cfg.Target.Mapping)
	if err != nil {
		return extraStatement{}, fmt.Errorf("record the mapping: %w", err)
	}
	var assessmentOID uint32
	if p.Assessment != nil {
		assessmentOID = p.Assessment.OID
	}
	return extraStatement{sql.RecordMapping.SQL, sql.RecordMapping.Bind(sql.Args{
		"mapping": mapping, "assessment_oid": int64(assessmentOID), "publication_rows": published.CatalogRows(p.Respondent, p.Assessment),
	})}, nil
}

// trimPublication ends what the publication publishes beyond the attached mapping, if walhook created it.
func (r *reconciler) trimPublication(ctx context.Context) error {
	source, err := catalog.ConnectPrimary(ctx, r.cfg.SourceURL)
	if err != nil {
		return err
	}
	defer catalog.CloseQuietly(source)
	p, err := catalog.InspectSource(ctx, source, r.cfg.Target)
	if err != nil {
		return err
	}
	if p.Publication == nil || len(p.PublicationSpec.Drift(p.Publication)) > 0 || !r.attachment.OwnsPublication(p.Publication, r.cfg.Target.Slot) {
		return nil
	}
	statements := p.PublicationSpec.TrimSQL(p.Publication)
	if len(statements) > 0 && !p.Publication.Owner {
		r.cfg.Note(fmt.Sprintf("publication %q publishes more than this mapping needs; its owner may run: %s;", r.cfg.Target.Publication, strings.Join(statements, "; ")))
		return nil
	}
	return r.alterPublication(ctx, source, statements, p.Respondent, p.Assessment)
}

// alterPublication runs the statements in one transaction. The store first learns which catalog rows they create: a
// daemon that finds rows that the store does not know takes that for a gap.
func (r *reconciler) alterPublication(ctx context.Context, source *pgx.Conn, statements []string, tables ...*catalog.Table) error {
	if len(statements) == 0 {
		return nil
	}
	return pgx.BeginFunc(ctx, source, func(tx pgx.Tx) error {
		for _, statement := range statements {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("change publication %q: %w; let its owner run: begin; %s; commit; and then run `walhook attach --remap` again",
					r.cfg.Target.Publication, err, strings.Join(statements, "; "))
			}
		}
		published, err := catalog.InspectPublication(ctx, source, r.cfg.Target.Publication)
		if err != nil {
			return err
		}
		_, err = r.store.Exec(ctx, sql.RecordPublished.SQL, sql.RecordPublished.Bind(sql.Args{"publication_rows": published.CatalogRows(tables...)})...)
		if err != nil {
			return fmt.Errorf("record the publication: %w", err)
		}
		return nil
	})
}
