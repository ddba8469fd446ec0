package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

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
	r := &reconciler{cfg: cfg, store: store, remap: true}
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
	table, err := attachment.CheckRemap(cfg.Target)
	if err != nil {
		return err
	}
	if table == "" {
		cfg.Note("this mapping is the attached one")
		return nil
	}
	cfg.Note("moving to another mapping:\n" + table)
	r.attachment, r.cfg.Queue, r.cfg.Target.Publish = attachment, newQueue(attachment.Mapping), attachment.Publish
	_, err = r.reconcileInPlace(ctx, attachment, position)
	var gap *cdc.GapError
	if errors.As(err, &gap) {
		return fmt.Errorf("the stream is not intact (%w); run `walhook reconcile` with the attached mapping first; the mapping was not changed", gap)
	}
	return err
}

// prepareRemap publishes what the new mapping needs, and returns the statement that records the mapping.
func (r *reconciler) prepareRemap(ctx context.Context, source *pgx.Conn, p *catalog.Preflight) (extraStatement, error) {
	if err := catalog.ExtendPublication(ctx, source, p); err != nil {
		return extraStatement{}, err
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
		"mapping": mapping, "assessment_oid": int64(assessmentOID), "publication_rows": p.Publication.CatalogRows(p.Respondent, p.Assessment),
	})}, nil
}
