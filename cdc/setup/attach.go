package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/stream"
	"walhook/sql"
)

// AttachConfig configures Attach.
type AttachConfig struct {
	SourceURL, StoreURL string
	Target              catalog.Target
	OnlyIfNone          bool     // leave an existing attachment as it is, but upgrade the store's schema
	CopyMode            CopyMode // how to continue in a copy
	Log                 *slog.Logger

	Note     func(string)            // reports what is being done or waited for
	Progress func(rows, total int64) // rows of the respondent table so far; total is an estimate

	// Adoption queues the events that it fires with these.
	Queue   cdc.Queue
	Horizon *stream.Horizon
}

// CopyMode is how an attach continues in a copy. The zero value refuses.
type CopyMode string

// The modes of attaching a copy. Both change nothing elsewhere.
const (
	CopyAdopt CopyMode = "adopt" // the copy becomes the original: state, webhooks and pending deliveries continue
	CopyFresh CopyMode = "fresh" // the copy starts over: pending deliveries are dropped, and webhooks are kept but disabled
)

// RefusedError says why attach refuses. Nothing was changed.
type RefusedError struct{ Findings []catalog.Finding }

func (e *RefusedError) Error() string { return "attach refuses: " + catalog.FormatFindings(e.Findings) }

// Attach creates schema, publication and slot, and records the state of the existing rows at the slot's snapshot. It
// may be repeated, and starts over after an interrupted attempt. It reports whether it attached anything: false if it
// was attached already. In a copy it returns a *CopyError, unless a CopyMode is given. It returns a
// *catalog.MappingError if a variable does not fit the table.
func Attach(ctx context.Context, cfg AttachConfig) (attached bool, err error) {
	store, err := catalog.ConnectLocking(ctx, cfg.StoreURL)
	if err != nil {
		return false, err
	}
	defer catalog.CloseLocking(store)
	source, err := catalog.ConnectSource(ctx, cfg.SourceURL)
	if err != nil {
		return false, err
	}
	defer catalog.CloseQuietly(source)
	if cfg.CopyMode == "" {
		// Check this before any lock is acquired. Other errors are found below.
		var copied *catalog.CopyError
		if err := catalog.CheckOriginal(ctx, source, store); errors.As(err, &copied) {
			return false, err
		}
	}
	if cfg.OnlyIfNone {
		before, err := catalog.ReadAttachmentIfInstalled(ctx, store)
		if err != nil {
			return false, err
		}
		if before.Complete() {
			return false, upgrade(ctx, store)
		}
	}
	replication, err := stream.ConnectReplication(ctx, cfg.SourceURL)
	if err != nil {
		return false, err
	}
	defer catalog.CloseQuietly(replication)

	if err := catalog.LockAttach(ctx, store); err != nil {
		return false, err
	}
	preflight, err := catalog.InspectSource(ctx, source, cfg.Target, replication)
	if err != nil {
		return false, err
	}
	view, refusals, err := inspectForAttach(ctx, source, store, cfg.Target, preflight, cfg.CopyMode)
	if err != nil {
		return false, err
	}
	if len(refusals) > 0 {
		return false, &RefusedError{refusals}
	}
	before, copied := view.attachment, view.Err() != nil
	if copied {
		if err := requireNoDaemon(ctx, store); err != nil {
			return false, err
		}
	}

	if view.version == 0 {
		cfg.Note("installing the schema walhook in the store")
	} else {
		cfg.Note("bringing the schema walhook in the store up to date")
	}
	if err := sql.Install(ctx, store); err != nil {
		return false, err
	}
	if err := sql.InstallSource(ctx, source, cfg.Target.Publication); err != nil {
		return false, err
	}
	if err := reportMissingGroups(ctx, cfg, store, view); err != nil {
		return false, err
	}
	switch {
	case before.Complete() && !copied:
		return attachAgain(ctx, cfg, source, store, preflight, view)
	case before.Complete() && cfg.CopyMode == CopyAdopt:
		return true, adoptCopy(ctx, cfg, store, view)
	}
	a := &attacher{
		cfg: cfg, source: source, store: store, replication: replication, preflight: preflight, provenance: view.Provenance,
		recorded: view.publicationCreator(preflight, cfg.CopyMode), fresh: copied && cfg.CopyMode == CopyFresh,
	}
	if copied && before != nil {
		if err := catalog.DropSlot(ctx, source, before.NextSlot); err != nil { // of an adoption that was interrupted here
			return false, err
		}
		before = nil // its slot is the original's
	}
	return true, a.run(ctx, before)
}

// attachAgain checks an existing attachment. With CopyAdopt it replaces a lost slot.
func attachAgain(
	ctx context.Context, cfg AttachConfig, source, store *pgx.Conn, preflight *catalog.Preflight, view *storeView,
) (attached bool, err error) {
	if err := catalog.RecordPlaces(ctx, store, view.Source, view.Store); err != nil {
		return false, err
	}
	if err := markPublication(ctx, source, preflight, view.attachment); err != nil {
		return false, err
	}
	lost := checkAttached(cfg, preflight)
	if lost == nil || cfg.CopyMode != CopyAdopt {
		return false, lost
	}
	if err := requireNoDaemon(ctx, store); err != nil {
		return false, err
	}
	return true, adopt(ctx, cfg, store, view.Provenance, &cdc.GapError{Kind: cdc.SlotLost, Detail: lost.Error()})
}

// adoptCopy makes a copy the original.
func adoptCopy(ctx context.Context, cfg AttachConfig, store *pgx.Conn, view *storeView) error {
	gap := &cdc.GapError{
		Kind:   cdc.ServerRestored,
		Detail: fmt.Sprintf("%s was adopted as the original; walhook was attached to %s", view.Source, view.AttachedTo),
	}
	if err := adopt(ctx, cfg, store, view.Provenance, gap); err != nil {
		return err
	}
	if view.SourceCopied {
		cfg.Note(fmt.Sprintf("if %s still exists, its slot %q keeps WAL there until it is dropped there",
			view.AttachedTo, view.attachment.Slot))
	}
	return nil
}

// requireNoDaemon returns an error if a daemon works on this store. It holds the reader lock, so that no daemon
// starts to read the slot until the session ends.
func requireNoDaemon(ctx context.Context, store *pgx.Conn) error {
	free, err := catalog.TryLock(ctx, store, catalog.ReaderLock, 0)
	if err != nil {
		return err
	}
	var living int
	args := sql.LivingDaemons.Bind(sql.Args{"lock_class": int64(catalog.DaemonLock)})
	if err := store.QueryRow(ctx, sql.LivingDaemons.SQL, args...).Scan(&living); err != nil {
		return fmt.Errorf("look for daemons on this store: %w", err)
	}
	if !free || living > 0 {
		return errors.New(
			"a daemon is running on this store; stop it first, or set WALHOOK_STORE_URL to a store that is not the original's; " +
				"nothing was changed",
		)
	}
	return nil
}

// adopt makes a copy the original, or creates a new slot for the original, by a reconciliation that fires what was
// missed.
func adopt(ctx context.Context, cfg AttachConfig, store *pgx.Conn, id catalog.Provenance, gap *cdc.GapError) error {
	args := sql.OpenIncident.Bind(sql.Args{"kind": gap.Kind, "detail": gap.Detail})
	if _, err := store.Exec(ctx, sql.OpenIncident.SQL, args...); err != nil {
		return fmt.Errorf("record the incident: %w", err)
	}
	return stream.Adopt(ctx, stream.ReconcileConfig{
		SourceURL: cfg.SourceURL, StoreURL: cfg.StoreURL, Target: cfg.Target, Queue: cfg.Queue, Horizon: cfg.Horizon,
		Log: cfg.Log, Note: cfg.Note, Progress: cfg.Progress, Gap: gap,
	}, store, id)
}

// reportMissingGroups reports group roles that are missing and that this role may not create: without them, no other
// role can get rights.
func reportMissingGroups(ctx context.Context, cfg AttachConfig, store *pgx.Conn, view *storeView) error {
	missing, err := sql.MissingGroups(ctx, store)
	if err != nil || len(missing) == 0 {
		return err
	}
	cfg.Note(fmt.Sprintf(
		"group roles are missing (%s) and role %s may not create them, "+
			"so nobody else can be given rights in the schema walhook yet; %s",
		strings.Join(missing, ", "), view.user, sql.GroupsRemedy(missing, view.user)))
	return nil
}

// inspectForAttach inspects the store, and collects all reasons to refuse an attach.
func inspectForAttach(
	ctx context.Context, source, store *pgx.Conn, target catalog.Target, preflight *catalog.Preflight, mode CopyMode,
) (*storeView, []catalog.Finding, error) {
	view, err := inspectStore(ctx, source, store)
	if err != nil {
		return nil, nil, err
	}
	if view.attachment.Check(target) != nil { // once attached with this mapping, it is the application that has changed
		if err := preflight.CheckMapping(); err != nil {
			return nil, nil, err
		}
	}
	refusals, err := view.refusals(ctx, source, target, preflight, mode)
	return view, append(preflight.Refusals(), refusals...), err
}

// upgrade upgrades the schema of an attached store if it is older than this binary's.
func upgrade(ctx context.Context, store *pgx.Conn) error {
	var version *sql.VersionError
	if err := sql.CheckVersion(ctx, store); !errors.As(err, &version) {
		return err
	}
	if err := catalog.LockAttach(ctx, store); err != nil {
		return err
	}
	return sql.Install(ctx, store)
}

// checkAttached checks slot and publication of an existing attachment.
func checkAttached(cfg AttachConfig, preflight *catalog.Preflight) error {
	if !preflight.Slot.Exists || preflight.Slot.WALStatus == "lost" {
		return fmt.Errorf(
			"slot %q is gone or was invalidated; `walhook run` or `walhook reconcile` creates a new one "+
				"and fires what was missed", cfg.Target.Slot,
		)
	}
	if drift := preflight.PublicationSpec.Drift(preflight.Publication); len(drift) > 0 {
		return fmt.Errorf(
			"%s; `walhook run` or `walhook reconcile` repairs it and fires what was missed", strings.Join(drift, "; "),
		)
	}
	return nil
}

// markPublication marks a publication that an older version created without a mark.
func markPublication(ctx context.Context, source *pgx.Conn, p *catalog.Preflight, recorded *catalog.Attachment) error {
	if have := p.Publication; have != nil && have.Owner && have.Slot == "" &&
		recorded.OwnsPublication(have, p.PublicationSpec.Slot) {
		if _, err := source.Exec(ctx, p.PublicationSpec.MarkSQL()); err != nil {
			return fmt.Errorf("mark publication %q as walhook's: %w", p.PublicationSpec.Name, err)
		}
	}
	return nil
}

type attacher struct {
	cfg           AttachConfig
	source, store *pgx.Conn
	replication   *pgconn.PgConn
	preflight     *catalog.Preflight
	provenance    catalog.Provenance
	recorded      *catalog.Attachment // the previous attachment; nil: none
	fresh         bool                // see CopyFresh

	publicationRows string
}

// run attaches from the beginning. The last store transaction completes the attachment. If run is interrupted before,
// the attachment stays marked as begun, and the next attach starts over.
func (a *attacher) run(ctx context.Context, before *catalog.Attachment) error {
	slot, target := a.cfg.Target.Slot, a.cfg.Target
	system, err := pglogrepl.IdentifySystem(ctx, a.replication)
	if err != nil {
		return fmt.Errorf("identify the source: %w", err)
	}
	if system.SystemID != a.provenance.Source.System {
		return fmt.Errorf(
			"the replication connection leads to server %s and not to %s; let WALHOOK_DATABASE_URL name one server",
			system.SystemID, a.provenance.Source.System,
		)
	}
	if before != nil {
		a.cfg.Note("an earlier attach was interrupted; starting over")
		if err := catalog.DropSlot(ctx, a.source, before.Slot); err != nil {
			return err
		}
		if before.Publication != target.Publication {
			if err := dropPublication(ctx, a.source, before, a.cfg.Note); err != nil {
				return err
			}
		}
	}
	if err := pgx.BeginFunc(ctx, a.store, func(pgx.Tx) error { return a.begin(ctx) }); err != nil {
		return err
	}
	// Create the publication first: the slot decodes with the catalog as of its own creation.
	if err := catalog.RepairPublication(ctx, a.source, a.preflight, a.recorded); err != nil {
		return err
	}
	published, err := catalog.InspectPublication(ctx, a.source, target.Publication)
	if err != nil {
		return err
	}
	a.publicationRows = published.CatalogRows(a.preflight.Respondent, a.preflight.Assessment)
	a.cfg.Note(fmt.Sprintf("creating slot %q", slot))
	permanent := catalog.PermanentSlot(slot, a.preflight.Version)
	created, err := catalog.CreateSlot(ctx, a.replication, a.source, permanent, a.cfg.Note)
	if err != nil {
		if cdc.SQLState(err) != "" { // the server refused to create it
			err = errors.Join(err, a.undoBegin(ctx))
		}
		return err
	}
	if err := a.snapshot(ctx, created); err != nil {
		// A slot that nobody reads retains WAL for ever.
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), catalog.DialTimeout)
		defer cancel()
		if fresh, connectErr := catalog.ConnectSource(cleanup, a.cfg.SourceURL); connectErr == nil {
			defer catalog.CloseQuietly(fresh)
			catalog.CloseQuietly(a.replication)
			if dropErr := catalog.DropSlot(cleanup, fresh, slot); dropErr != nil {
				a.cfg.Log.Error("a slot was left behind; attach again, or drop it", "slot", slot, "error", dropErr)
			}
		}
		return err
	}
	a.cfg.Note(fmt.Sprintf("attached: slot %q begins at %s, publication %q", slot, created.Consistent, target.Publication))
	return nil
}

// undoBegin removes what begin recorded, and the publication, after the slot could not be created.
func (a *attacher) undoBegin(ctx context.Context) error {
	begun, err := catalog.ReadAttachment(ctx, a.store)
	if err != nil || begun == nil {
		return err
	}
	if err := dropPublication(ctx, a.source, begun, a.cfg.Note); err != nil {
		return err
	}
	if _, err := a.store.Exec(ctx, "delete from walhook.attachment"); err != nil {
		return fmt.Errorf("end the attachment: %w", err)
	}
	return nil
}

// begin records what is about to be attached, so that a later attach recognises the slot as ours.
func (a *attacher) begin(ctx context.Context) error {
	target, source := a.cfg.Target, a.provenance.Source
	mapping, err := json.Marshal(target.Mapping)
	if err != nil {
		return fmt.Errorf("record the mapping: %w", err)
	}
	if a.fresh {
		if err := a.resetCopy(ctx); err != nil {
			return err
		}
	}
	var assessmentOID uint32
	if a.preflight.Assessment != nil {
		assessmentOID = a.preflight.Assessment.OID
	}
	types := catalog.ColumnTypesOf(target.Mapping, a.preflight.Respondent, a.preflight.Assessment)
	typesJSON, err := types.JSON()
	if err != nil {
		return err
	}
	have := a.preflight.Publication
	created := have == nil || a.recorded.OwnsPublication(have, target.Slot)
	_, err = a.store.Exec(ctx, sql.BeginAttachment.SQL, sql.BeginAttachment.Bind(sql.Args{
		"system_identifier": source.System, "database": source.Database, "database_oid": int64(source.OID),
		"slot": target.Slot, "publication": target.Publication, "publication_created": created,
		"publish": target.Publish, "mapping": mapping,
		"respondent_oid": int64(a.preflight.Respondent.OID), "assessment_oid": int64(assessmentOID),
		"numeric_id": types[catalog.RoleKey].IsInteger(), "column_types": typesJSON,
	})...)
	if err != nil {
		return fmt.Errorf("record the attachment in the store: %w", err)
	}
	return catalog.RecordPlaces(ctx, a.store, source, a.provenance.Store)
}

// resetCopy drops the original's pending deliveries from a copy, and disables the copy's webhooks so that they do not
// send to the original's receivers.
func (a *attacher) resetCopy(ctx context.Context) error {
	if err := forgetDaemons(ctx, a.store); err != nil {
		return err
	}
	var pending, webhooks int64
	if err := a.store.QueryRow(ctx, sql.StartFresh.SQL).Scan(&pending, &webhooks); err != nil {
		return fmt.Errorf("drop what is pending and disable the webhooks: %w", err)
	}
	detail := fmt.Sprintf("this copy of %s was attached from scratch: "+
		"%d pending deliveries were dropped and %d webhooks disabled", a.provenance.Original(), pending, webhooks)
	args := sql.NoteIncident.Bind(sql.Args{"kind": stream.IncidentCopy, "detail": detail})
	if _, err := a.store.Exec(ctx, sql.NoteIncident.SQL, args...); err != nil {
		return fmt.Errorf("note what was dropped: %w", err)
	}
	a.cfg.Note(detail)
	return nil
}

// forgetDaemons deletes the rows of the original's daemons from a copy.
func forgetDaemons(ctx context.Context, store *pgx.Conn) error {
	for _, q := range []sql.Query{sql.ForgetDaemons, sql.ForgetOwners, sql.ForgetMoves} {
		if _, err := store.Exec(ctx, q.SQL); err != nil {
			return fmt.Errorf("forget the original's daemons: %w", err)
		}
	}
	return nil
}

// snapshot records the state of all rows at the slot's snapshot, and completes the attachment in the last store
// transaction. The transactions have a bounded size: if the store is in the application's database, the slot decodes
// them too, and the server would spill a large one to disk. Until the last one the state is incomplete, but nothing
// that fires reads it.
func (a *attacher) snapshot(ctx context.Context, slot catalog.CreatedSlot) error {
	m := a.cfg.Target.Mapping
	if err := catalog.BeginAtSnapshot(ctx, a.source, slot.Snapshot); err != nil {
		return err
	}
	if _, err := a.store.Exec(ctx, "truncate walhook.response_state, walhook.assessment"); err != nil {
		return fmt.Errorf("write the state of existing rows: %w", err)
	}
	if _, err := a.store.Exec(ctx, sql.DropResponseIndexes.SQL); err != nil {
		return fmt.Errorf("drop the indexes over the newest responses: %w", err)
	}
	if _, err := a.store.Exec(ctx, sql.ResolveIncidents.SQL, []string{cdc.SetAside}); err != nil {
		return fmt.Errorf("resolve the incidents of an earlier attach: %w", err)
	}
	if a.preflight.Assessment != nil {
		encoding := a.store.PgConn().ParameterStatus("server_encoding")
		if _, err := catalog.CopyRows(ctx, a.source, a.store, m.AssessmentTable, m.AssessmentColumns(),
			"walhook.assessment "+catalog.AssessmentColumns,
			catalog.AssessmentConverter(m, a.preflight.Assessment, encoding, false),
			func(int64) {}, a.setAside(ctx, m.AssessmentTable, slot)); err != nil {
			return err
		}
	}
	begun, err := catalog.ReadAttachment(ctx, a.store)
	if err != nil {
		return err
	}
	total := int64(a.preflight.Respondent.Rows)
	began := time.Now()
	rows, err := catalog.CopyRows(
		ctx, a.source, a.store, m.Respondent, m.RespondentColumns(), "walhook.response_state "+catalog.StateColumns,
		catalog.StateConverter(m, a.preflight.Respondent, &begun.StampKey),
		func(n int64) { a.cfg.Progress(n, total) }, a.setAside(ctx, m.Respondent, slot),
	)
	if err != nil {
		return err
	}
	if err := sql.IndexResponses(ctx, a.store); err != nil {
		return err
	}
	a.cfg.Note(fmt.Sprintf("recorded the state of %d existing rows in %s", rows, time.Since(began).Round(time.Millisecond)))
	if err := pgx.BeginFunc(ctx, a.store, func(pgx.Tx) error { return a.complete(ctx, slot) }); err != nil {
		return fmt.Errorf("complete the attachment: %w", err)
	}
	_, _ = a.source.Exec(ctx, "commit")
	if _, err := a.store.Exec(ctx, "analyze walhook.response_state"); err != nil {
		return fmt.Errorf("analyze the state: %w", err)
	}
	return nil
}

// complete turns the recorded state into an attachment.
func (a *attacher) complete(ctx context.Context, slot catalog.CreatedSlot) error {
	_, err := a.store.Exec(ctx, sql.SetPosition.SQL, sql.SetPosition.Bind(sql.Args{"lsn": slot.Consistent.String()})...)
	if err != nil {
		return fmt.Errorf("write the position: %w", err)
	}
	if err := catalog.RecordOrigin(ctx, a.store); err != nil {
		return err
	}
	if _, err := a.store.Exec(ctx, "insert into walhook.crash_mark default values on conflict do nothing"); err != nil {
		return fmt.Errorf("mark the store: %w", err)
	}
	// Earlier transaction ids may mean nothing to this server, and whatever is pending was committed long ago.
	if _, err := a.store.Exec(ctx, sql.ForgetXids.SQL); err != nil {
		return fmt.Errorf("let pending deliveries go on: %w", err)
	}
	if _, err := a.store.Exec(ctx, cdc.NormalizeWebhookIDs); err != nil {
		return fmt.Errorf("spell the ids of webhooks as the columns do: %w", err)
	}
	_, err = a.store.Exec(
		ctx, "update walhook.attachment set phase = 'attached', attached_at = now(), publication_rows = $1",
		a.publicationRows,
	)
	return err
}

// setAside returns a function that records rows which the store rejects.
func (a *attacher) setAside(
	ctx context.Context, table cdc.Name, slot catalog.CreatedSlot,
) func(row []byte, cause error) error {
	return func(row []byte, cause error) error {
		refused := stream.RejectedRow{Table: table, Key: stream.KeyOf(row), LSN: slot.Consistent, Cause: cause}
		a.cfg.Note(refused.String())
		return refused.Record(ctx, a.store)
	}
}
