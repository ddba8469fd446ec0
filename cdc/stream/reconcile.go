package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/sql"
)

// Kinds of incidents that are already over when they are recorded.
const (
	incidentReconcile = "reconcile" // a reconciliation
	incidentTakeover  = "takeover"  // another daemon became the reader
	IncidentCopy      = "copy"      // a copy was attached again
)

// ReconcileConfig configures Reconcile.
type ReconcileConfig struct {
	SourceURL, StoreURL string
	Target              catalog.Target
	Queue               cdc.Queue
	Horizon             *Horizon
	Log                 *slog.Logger
	Note                func(string)
	Progress            func(rows, total int64)

	// Gap is the gap to close; nil: somebody asked for the reconciliation.
	Gap *cdc.GapError
}

// ReconcileResult is the outcome of a reconciliation.
type ReconcileResult struct {
	Rows, Differing, Deleted int64
	Events                   EventCounts
	Skipped                  bool // another daemon reads the slot by now, or the gap has been closed
}

// Reconcile compares a snapshot of the table with the recorded state, fires the events that were missed, and lets the
// stream continue at the snapshot. State, deliveries and position are one store transaction: an interrupted
// reconciliation has no effect.
//
// If somebody asked for it and the slot is intact, the slot is first consumed up to the snapshot, so that its changes
// fire as usual; a daemon that reads it steps aside meanwhile. Otherwise a new slot is created. If that attempt is
// interrupted, the next one finds its leftovers as a gap and closes that. The rows then only show the last of several
// changes: if a response finished twice since the old position, one event fires. If another daemon reads the slot by
// now, it is left to close the gap.
func Reconcile(ctx context.Context, cfg ReconcileConfig) (ReconcileResult, error) {
	began := time.Now()
	store, err := catalog.ConnectLocking(ctx, cfg.StoreURL)
	if err != nil {
		return ReconcileResult{}, err
	}
	defer catalog.CloseLocking(store)
	r := &reconciler{cfg: cfg, store: store}
	if err := r.checkOriginal(ctx); err != nil {
		return ReconcileResult{}, err
	}
	reader, err := r.lockReader(ctx)
	if err != nil || !reader {
		return ReconcileResult{Skipped: err == nil}, err
	}
	if err := catalog.LockAttach(ctx, store); err != nil {
		return ReconcileResult{}, err
	}
	if cfg.Gap != nil {
		// The previous holder of the locks may have closed the gap, as every reconciliation does. Then the changes
		// that the slot has delivered since must not be reconciled away.
		var closed bool
		args := sql.GapClosed.Bind(sql.Args{"kinds": cdc.ReconciledKinds, "within": time.Since(began)})
		if err := store.QueryRow(ctx, sql.GapClosed.SQL, args...).Scan(&closed); err != nil || closed {
			return ReconcileResult{Skipped: closed}, err
		}
	}
	attachment, position, err := catalog.ReadAttached(ctx, store)
	if err != nil {
		return ReconcileResult{}, err
	}
	if err := attachment.CheckTarget(cfg.Target); err != nil {
		return ReconcileResult{}, cmp.Or(r.checkMapping(ctx), err)
	}
	r.attachment = attachment
	if cfg.Gap != nil {
		if err := r.openIncident(ctx, cfg.Gap); err != nil {
			return ReconcileResult{}, err
		}
	}
	if cfg.Gap == nil || cfg.Gap.KeepsSlot() {
		result, err := r.reconcileInPlace(ctx, attachment, position)
		if !errors.As(err, &r.cfg.Gap) {
			if err != nil && cfg.Gap != nil {
				r.recordObstacle(ctx, cfg.Gap, err)
			}
			return result, err
		}
		cfg.Note(r.cfg.Gap.Detail)
		if err := r.openIncident(ctx, r.cfg.Gap); err != nil {
			return ReconcileResult{}, err
		}
	}
	gap := r.cfg.Gap
	result, err := r.reconcileAtNewSlot(ctx)
	if err != nil {
		r.recordObstacle(ctx, gap, err)
		return result, &deferredGapError{err}
	}
	return result, nil
}

// Adopt makes a copy the original, or creates a new slot for the original, by a reconciliation that fires what was
// missed. The session store holds the attach and reader locks.
func Adopt(ctx context.Context, cfg ReconcileConfig, store *pgx.Conn, id catalog.Provenance) error {
	r := &reconciler{cfg: cfg, store: store, adopted: &id}
	_, err := r.reconcileAtNewSlot(ctx)
	return err
}

func (r *reconciler) openIncident(ctx context.Context, gap *cdc.GapError) error {
	args := sql.OpenIncident.Bind(sql.Args{"kind": gap.Kind, "detail": gap.Detail})
	if _, err := r.store.Exec(ctx, sql.OpenIncident.SQL, args...); err != nil {
		return fmt.Errorf("record the incident: %w", err)
	}
	return nil
}

// deferredGapError reports that a gap was not closed, and that the next reader of the slot will find it, recorded in
// the store or by its own checks.
type deferredGapError struct{ error }

func (e *deferredGapError) Unwrap() error { return e.error }

// recordObstacle adds to the incident what keeps the gap open, which often is a statement that somebody has to run.
func (r *reconciler) recordObstacle(ctx context.Context, gap *cdc.GapError, why error) {
	args := sql.HinderIncident.Bind(sql.Args{"kind": gap.Kind, "hindrance": why.Error()})
	if _, err := r.store.Exec(ctx, sql.HinderIncident.SQL, args...); err != nil {
		r.cfg.Log.Debug("incident not updated", "error", err)
	}
}

type reconciler struct {
	cfg        ReconcileConfig
	store      *pgx.Conn           // holds the locks
	attachment *catalog.Attachment // before the reconciliation
	adopted    *catalog.Provenance // of a copy that becomes the original; nil: source and store are the original
	remap      []cdc.Difference    // between the attached mapping and that of cfg, to which the attachment moves
}

// checkOriginal is catalog.CheckOriginal, before any lock is acquired.
func (r *reconciler) checkOriginal(ctx context.Context) error {
	source, err := catalog.ConnectPrimary(ctx, r.cfg.SourceURL)
	if err != nil {
		return err
	}
	defer catalog.CloseQuietly(source)
	return catalog.CheckOriginal(ctx, source, r.store)
}

// checkMapping returns a *catalog.MappingError if a variable does not fit the table.
func (r *reconciler) checkMapping(ctx context.Context) error {
	source, err := catalog.ConnectSource(ctx, r.cfg.SourceURL)
	if err != nil {
		return err
	}
	defer catalog.CloseQuietly(source)
	return catalog.CheckMapping(ctx, source, r.cfg.Target)
}

// lockReader acquires the reader lock, and reports whether it did. If somebody asked for the reconciliation, it waits
// for the daemon that reads the slot, which steps aside once it notices. If a gap was found, it only waits for the
// session that found it, which the server may take a moment to end: any other holder is another daemon.
func (r *reconciler) lockReader(ctx context.Context) (won bool, err error) {
	if r.cfg.Gap != nil {
		return catalog.TryLock(ctx, r.store, catalog.ReaderLock, staleSessionGrace)
	}
	if won, err = catalog.TryLock(ctx, r.store, catalog.ReaderLock, 0); err != nil || won {
		return won, err
	}
	r.cfg.Note("waiting for the daemon that reads the slot to step aside")
	if _, err := r.store.Exec(ctx, "select pg_advisory_lock($1)", catalog.ReaderLock); err != nil {
		return false, fmt.Errorf("wait for the daemon that reads the slot: %w", err)
	}
	return true, nil
}

// reconcileInPlace reconciles at the snapshot of a temporary slot, up to which it first consumes the stream. It
// returns a *GapError if the slot is not intact.
func (r *reconciler) reconcileInPlace(
	ctx context.Context, a *catalog.Attachment, position cdc.Position,
) (ReconcileResult, error) {
	cfg := r.cfg
	source, err := catalog.ConnectPrimary(ctx, cfg.SourceURL)
	if err != nil {
		return ReconcileResult{}, err
	}
	defer catalog.CloseQuietly(source)
	exporter, err := ConnectReplication(ctx, cfg.SourceURL)
	if err != nil {
		return ReconcileResult{}, err
	}
	defer catalog.CloseQuietly(exporter)
	status := &Status{}
	stream := New(Config{
		SourceURL: cfg.SourceURL, StoreURL: cfg.StoreURL, Slot: cfg.Target.Slot, Publication: cfg.Target.Publication,
		Mapping: a.Mapping, Queue: cfg.Queue, Horizon: cfg.Horizon, Status: status, Log: cfg.Log,
		Guard: NewGuard(GuardConfig{
			SourceURL: cfg.SourceURL, Slot: cfg.Target.Slot, Publication: cfg.Target.Publication, Mapping: a.Mapping, Status: status, Log: cfg.Log,
		}),
	})
	if _, err := stream.verify(ctx, source, exporter, a, position); err != nil {
		return ReconcileResult{}, err
	}
	preflight, err := catalog.InspectSource(ctx, source, cfg.Target, exporter)
	if err != nil {
		return ReconcileResult{}, err
	}
	if err := preflight.CheckMapping(); err != nil && r.remap != nil {
		return ReconcileResult{}, err
	}
	if refusals := slices.DeleteFunc(preflight.Refusals(), func(f catalog.Finding) bool { return f.Check == "publication" }); len(refusals) > 0 {
		return ReconcileResult{}, fmt.Errorf("the table cannot be read: %s", catalog.FormatFindings(refusals))
	}
	also := []extraStatement{{sql.ResolveIncidents.SQL, []any{cdc.SlotKeptKinds}}}
	if r.remap != nil {
		recorded, err := r.prepareRemap(ctx, source, preflight)
		if err != nil {
			return ReconcileResult{}, err
		}
		also = append(also, recorded)
	}
	snapshot, err := catalog.CreateSlot(
		ctx, exporter, source, catalog.SlotSpec{Name: catalog.TemporarySlotName(cfg.Target.Slot), Temporary: true},
		cfg.Note,
	)
	if err != nil {
		return ReconcileResult{}, err
	}
	if err := catalog.BeginAtSnapshot(ctx, source, snapshot.Snapshot); err != nil {
		return ReconcileResult{}, err
	}
	catalog.CloseQuietly(exporter) // the snapshot lives on in the source's transaction
	cfg.Note(fmt.Sprintf("consuming slot %q up to %s", cfg.Target.Slot, snapshot.Consistent))
	if err := r.catchUp(ctx, stream, snapshot.Consistent); err != nil {
		return ReconcileResult{}, err
	}
	if r.attachment, err = catalog.ReadAttachment(ctx, r.store); err != nil { // the key's type may have changed
		return ReconcileResult{}, err
	}
	return r.compare(ctx, source, preflight, snapshot.Consistent, false, also...)
}

// catchUp consumes the slot up to an LSN on a separate store connection: the stream configures its session for index
// lookups, but the comparison joins whole tables.
func (r *reconciler) catchUp(ctx context.Context, stream *Stream, until pglogrepl.LSN) error {
	store, err := catalog.ConnectStore(ctx, r.cfg.StoreURL)
	if err != nil {
		return err
	}
	defer catalog.CloseQuietly(store)
	for {
		err := stream.stream(ctx, store, nil, until)
		var silent *silenceError
		var refused *rejectedBatchError
		if !errors.As(err, &refused) && (!errors.As(err, &silent) || silent.limit >= silenceCap) {
			return err
		}
		r.cfg.Note(err.Error() + "; connecting again")
	}
}

// reconcileAtNewSlot reconciles at the snapshot of a new slot, where the stream continues.
func (r *reconciler) reconcileAtNewSlot(ctx context.Context) (result ReconcileResult, err error) {
	cfg := r.cfg
	source, err := catalog.ConnectPrimary(ctx, cfg.SourceURL)
	if err != nil {
		return result, err
	}
	defer catalog.CloseQuietly(source)
	replication, err := ConnectReplication(ctx, cfg.SourceURL)
	if err != nil {
		return result, err
	}
	defer catalog.CloseQuietly(replication)
	attachment, err := catalog.ReadAttachment(ctx, r.store)
	if err != nil {
		return result, err
	}
	r.attachment = attachment
	id, err := catalog.InspectProvenance(ctx, source, r.store, attachment)
	if err == nil && r.adopted == nil {
		err = id.Err()
	}
	if err != nil {
		return result, err
	}
	system, err := pglogrepl.IdentifySystem(ctx, replication)
	if err != nil {
		return result, fmt.Errorf("identify the source: %w", err)
	}
	if system.SystemID != id.Source.System {
		return result, fmt.Errorf(
			"the replication connection leads to server %s and not to %s; let WALHOOK_DATABASE_URL name one server",
			system.SystemID, id.Source.System,
		)
	}
	preflight, err := catalog.InspectSource(ctx, source, cfg.Target, replication)
	if err != nil {
		return result, err
	}
	if refusals := preflight.Refusals(); len(refusals) > 0 {
		return result, fmt.Errorf("the stream cannot be taken up again: %s", catalog.FormatFindings(refusals))
	}
	if preflight.Slot.IsForeign() {
		return result, fmt.Errorf("%s; %s", preflight.Slot.DescribeForeign(), catalog.OtherSlotRemedy)
	}
	if refusals := preflight.PublicationSpec.Refusals(preflight.Publication, attachment); len(refusals) > 0 {
		return result, fmt.Errorf("the stream cannot be taken up again: %s", catalog.FormatFindings(refusals))
	}
	if err := catalog.RepairPublication(ctx, source, preflight, attachment); err != nil {
		return result, err
	}
	if preflight.Slot.Exists {
		cfg.Note(fmt.Sprintf("dropping slot %q", cfg.Target.Slot))
		if err := catalog.DropSlot(ctx, source, cfg.Target.Slot); err != nil {
			return result, err
		}
	}
	created := preflight.Publication == nil || attachment.OwnsPublication(preflight.Publication, cfg.Target.Slot)
	publish := attachment.Publish
	if r.adopted != nil {
		if attachment.NextSlot != "" { // of an interrupted adoption
			if err := catalog.DropSlot(ctx, source, attachment.NextSlot); err != nil {
				return result, err
			}
		}
		if _, err := r.store.Exec(ctx, sql.RecordNextSlot.SQL, cfg.Target.Slot); err != nil {
			return result, fmt.Errorf("record the slot: %w", err)
		}
		publish = cfg.Target.Publish
	}
	// Read this before the slot is created, so that any later change of the publication is detected.
	published, err := catalog.InspectPublication(ctx, source, cfg.Target.Publication)
	if err != nil {
		return result, err
	}
	var assessmentOID uint32
	if preflight.Assessment != nil {
		assessmentOID = preflight.Assessment.OID
	}
	cfg.Note(fmt.Sprintf("creating slot %q", cfg.Target.Slot))
	slot, err := catalog.CreateSlot(ctx, replication, source, catalog.PermanentSlot(cfg.Target.Slot, preflight.Version), cfg.Note)
	if err != nil {
		return result, err
	}
	if err := catalog.BeginAtSnapshot(ctx, source, slot.Snapshot); err != nil {
		return result, err
	}
	also := []extraStatement{
		{sql.RenewAttachment.SQL, sql.RenewAttachment.Bind(sql.Args{
			"system_identifier": id.Source.System, "database": id.Source.Database, "database_oid": int64(id.Source.OID),
			"slot": cfg.Target.Slot, "publication": cfg.Target.Publication, "publication_created": created, "publish": publish,
			"publication_rows": published.CatalogRows(preflight.Respondent, preflight.Assessment),
			"respondent_oid":   int64(preflight.Respondent.OID), "assessment_oid": int64(assessmentOID),
		})},
		{sql.RecordStorePlace.SQL, sql.RecordStorePlace.Bind(id.Store.Args())},
		// Earlier transaction ids may mean nothing to this server, and whatever is pending was committed long ago.
		{sql.ForgetXids.SQL, nil},
		{sql.ResolveIncidents.SQL, []any{cdc.ReconciledKinds}},
	}
	if r.adopted != nil {
		for _, q := range []sql.Query{sql.ForgetDaemons, sql.ForgetOwners, sql.ForgetMoves} {
			also = append(also, extraStatement{q.SQL, nil})
		}
	}
	return r.compare(ctx, source, preflight, slot.Consistent, true, also...)
}

// extraStatement is an additional statement of the reconciliation's transaction.
type extraStatement struct {
	sql  string
	args []any
}

// compare runs the store transaction, with additional statements. The source is in a transaction at the snapshot of
// LSN at, which is the start of a new slot or not.
func (r *reconciler) compare(
	ctx context.Context, source *pgx.Conn, preflight *catalog.Preflight, at pglogrepl.LSN, newSlot bool,
	also ...extraStatement,
) (result ReconcileResult, err error) {
	began := time.Now()
	defer func() {
		if err != nil {
			r.cfg.Queue.Discarded()
		}
	}()
	r.cfg.Queue.Began() // deliveries that an earlier reader queued may not be in memory, and come first
	tx, err := r.store.Begin(ctx)
	if err != nil {
		return result, fmt.Errorf("compare the table with the recorded state: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if newSlot {
		if err := catalog.RecordOrigin(ctx, r.store); err != nil {
			return result, err
		}
	}
	types := catalog.ColumnTypesOf(r.cfg.Target.Mapping, preflight.Respondent, preflight.Assessment)
	typesJSON, err := types.JSON()
	if err != nil {
		return result, err
	}
	c := &comparison{
		source: source, store: r.store, mapping: r.cfg.Target.Mapping, respondent: preflight.Respondent, assessment: preflight.Assessment,
		queue: r.cfg.Queue, at: at, report: r.cfg.Note, progress: r.cfg.Progress,
		key: &r.attachment.StampKey, before: r.attachment.Types, types: types, caughtUp: !newSlot,
		replaced: r.adopted == nil && preflight.Respondent.OID != r.attachment.RespondentOID, remap: r.remap != nil,
	}
	outcome, err := c.run(ctx)
	if err != nil {
		return result, err
	}
	text := fmt.Sprintf(
		"compared %d rows with the recorded state: %d differed, %d were gone, %d events fired", outcome.rows,
		outcome.differing, outcome.deleted, outcome.events.All(),
	)
	if outcome.rejected > 0 {
		text += fmt.Sprintf(", %d were set aside", outcome.rejected)
	}
	if c.unmatched {
		text += "; rows whose keys could not be matched with what was recorded fired nothing"
	}
	incident := text
	if r.remap != nil {
		incident = r.describeRemap() + "; " + text
	}
	if r.cfg.Gap != nil {
		incident = r.cfg.Gap.Detail + "; " + text
		if newSlot {
			incident = r.cfg.Gap.Detail + "; made a new slot and " + text
		}
	}
	for _, w := range append(also,
		extraStatement{
			"update walhook.attachment set column_types = $1, numeric_id = $2",
			[]any{typesJSON, types[catalog.RoleKey].IsInteger()},
		},
		extraStatement{cdc.NormalizeWebhookIDs, nil},
		extraStatement{sql.SetPosition.SQL, sql.SetPosition.Bind(sql.Args{"lsn": at.String()})},
		extraStatement{sql.NoteIncident.SQL, sql.NoteIncident.Bind(sql.Args{"kind": incidentReconcile, "detail": incident})},
		extraStatement{"select pg_notify('walhook', '')", nil}, // wakes the senders of other processes
	) {
		if _, err := r.store.Exec(ctx, w.sql, w.args...); err != nil {
			return result, fmt.Errorf("complete the comparison: %w", err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return result, fmt.Errorf("complete the comparison: %w", err)
	}
	r.cfg.Queue.ReportKeyType(types[catalog.RoleKey])
	r.cfg.Queue.Committed(ctx)
	r.cfg.Note(text + " in " + time.Since(began).Round(time.Millisecond).String())
	return ReconcileResult{
		Rows: outcome.rows, Differing: outcome.differing, Deleted: outcome.deleted, Events: outcome.events,
	}, nil
}

// NewReconcileFunc returns a Config.Reconcile that closes gaps with Reconcile, and counts them in the status.
func NewReconcileFunc(cfg ReconcileConfig, status *Status) func(context.Context, *cdc.GapError) error {
	return func(ctx context.Context, gap *cdc.GapError) error {
		cfg.Gap = gap
		result, err := Reconcile(ctx, cfg)
		if ctx.Err() == nil {
			status.recordReconcile(result, err)
		}
		var version *sql.VersionError
		if errors.As(err, &version) {
			return &cdc.FatalError{Err: err}
		}
		if err == nil && result.Skipped {
			err = &deferredGapError{
				errors.New("another daemon reads the slot by now and closes it, or somebody has closed it"),
			}
		}
		if err != nil {
			return fmt.Errorf("%s; %w", strings.TrimSuffix(gap.Detail, "."), err)
		}
		return nil
	}
}
