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
	"walhook/session"
	"walhook/sql"
)

// AttachConfig is what Attach needs.
type AttachConfig struct {
	SourceURL, StoreURL string
	Target              catalog.Target
	OnlyIfNone          bool     // leave what is attached as it is, whatever state it is in, but for an upgrade of the store
	CopyMode            CopyMode // on in a copy
	Log                 *slog.Logger

	Note     func(string)            // what is being done or waited for
	Progress func(rows, total int64) // rows of the respondent table so far; total is an estimate

	// What Adopt fires is queued with these.
	Queue   cdc.Queue
	Horizon *stream.Horizon
}

// CopyMode is how an attach goes on in a copy. The zero value refuses.
type CopyMode string

// The ways on in a copy. Both change nothing elsewhere.
const (
	CopyAdopt CopyMode = "adopt" // it is the original now: state, webhooks and pending deliveries go on, by a comparison
	CopyFresh CopyMode = "fresh" // it starts anew: pending deliveries are dropped, and webhooks are kept disabled
)

// RefusedError tells why attach refuses. Nothing was changed.
type RefusedError struct{ Findings []catalog.Finding }

func (e *RefusedError) Error() string { return "attach refuses: " + catalog.FormatFindings(e.Findings) }

// Attach makes schema, publication and slot, and records the state of the rows that exist at the slot's own snapshot. It may
// be repeated, and begins anew where an earlier one was interrupted. It reports whether anything was attached: false when it
// was already. In a copy it returns a *CopyError, unless it is told the way on.
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
		// Before any lock is taken. What else is wrong is found below.
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
	if before.Complete() && !copied {
		if err := catalog.RecordPlaces(ctx, store, view.Source, view.Store); err != nil {
			return false, err
		}
		if err := markPublication(ctx, source, preflight, before); err != nil {
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
	if before.Complete() && cfg.CopyMode == CopyAdopt {
		gap := &cdc.GapError{Kind: cdc.ServerRestored, Detail: fmt.Sprintf("%s was adopted as the original; walhook was attached to %s", view.Source, view.AttachedTo)}
		if err := adopt(ctx, cfg, store, view.Provenance, gap); err != nil {
			return false, err
		}
		if view.SourceCopied {
			cfg.Note(fmt.Sprintf("if %s still exists, its slot %q keeps WAL there until it is dropped there", view.AttachedTo, before.Slot))
		}
		return true, nil
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

// requireNoDaemon returns an error while a daemon works on this store, and keeps another one from reading the slot until the session ends.
func requireNoDaemon(ctx context.Context, store *pgx.Conn) error {
	free, err := catalog.TryLock(ctx, store, catalog.ReaderLock, 0)
	if err != nil {
		return err
	}
	var living int
	if err := store.QueryRow(ctx, sql.LivingDaemons.SQL, sql.LivingDaemons.Bind(sql.Args{"lock_class": int64(catalog.DaemonLock)})...).Scan(&living); err != nil {
		return fmt.Errorf("look for daemons on this store: %w", err)
	}
	if !free || living > 0 {
		return errors.New("a daemon is running on this store; stop it first, or set WALHOOK_STORE_URL to a store that is not the original's; nothing was changed")
	}
	return nil
}

// adopt makes a copy the original, or a new slot where it is one, by a comparison that fires what was missed.
func adopt(ctx context.Context, cfg AttachConfig, store *pgx.Conn, id catalog.Provenance, gap *cdc.GapError) error {
	if _, err := store.Exec(ctx, sql.OpenIncident.SQL, sql.OpenIncident.Bind(sql.Args{"kind": gap.Kind, "detail": gap.Detail})...); err != nil {
		return fmt.Errorf("record the incident: %w", err)
	}
	return stream.Adopt(ctx, stream.ReconcileConfig{
		SourceURL: cfg.SourceURL, StoreURL: cfg.StoreURL, Target: cfg.Target, Queue: cfg.Queue, Horizon: cfg.Horizon,
		Log: cfg.Log, Note: cfg.Note, Progress: cfg.Progress, Gap: gap,
	}, store, id)
}

// reportMissingGroups says that nobody else can be given rights yet, where this role may not create the group roles.
func reportMissingGroups(ctx context.Context, cfg AttachConfig, store *pgx.Conn, view *storeView) error {
	missing, err := sql.MissingGroups(ctx, store)
	if err != nil || len(missing) == 0 {
		return err
	}
	cfg.Note(fmt.Sprintf("group roles are missing (%s) and role %s may not create them, so nobody else can be given rights in the schema walhook yet; %s",
		strings.Join(missing, ", "), view.user, sql.GroupsRemedy(missing, view.user)))
	return nil
}

// inspectForAttach looks at the store, and gathers all that an attach refuses for.
func inspectForAttach(ctx context.Context, source, store *pgx.Conn, target catalog.Target, preflight *catalog.Preflight, way CopyMode) (*storeView, []catalog.Finding, error) {
	view, err := inspectStore(ctx, source, store)
	if err != nil {
		return nil, nil, err
	}
	refusals := append(preflight.Refusals(), view.refusals(target, preflight, way)...)
	if view.separate() {
		more, err := sourceSchemaRefusal(ctx, source, preflight.User)
		if err != nil {
			return nil, nil, err
		}
		refusals = append(refusals, more...)
	}
	return view, refusals, nil
}

// upgrade brings the schema of an attached store up to this binary's, where it is older.
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

// checkAttached is what attach does where everything is attached: it mends the publication, and tells of a slot that is gone.
func checkAttached(cfg AttachConfig, preflight *catalog.Preflight) error {
	if !preflight.Slot.Exists || preflight.Slot.WALStatus == "lost" {
		return fmt.Errorf("slot %q is gone or was invalidated; `walhook run` or `walhook reconcile` makes a new one and fires what was missed", cfg.Target.Slot)
	}
	if drift := preflight.PublicationSpec.Drift(preflight.Publication); len(drift) > 0 {
		return fmt.Errorf("%s; `walhook run` or `walhook reconcile` mends it and fires what was missed", strings.Join(drift, "; "))
	}
	return nil
}

// markPublication marks a publication that an earlier version created and did not mark.
func markPublication(ctx context.Context, source *pgx.Conn, p *catalog.Preflight, recorded *catalog.Attachment) error {
	if have := p.Publication; have != nil && have.Owner && have.Slot == "" && recorded.OwnsPublication(have, p.PublicationSpec.Slot) {
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
	recorded      *catalog.Attachment // before; nil: none
	fresh         bool                // a copy that starts anew

	publicationRows string
}

// run attaches from the beginning. It ends with the one store transaction that makes it complete; whatever interrupts it before
// leaves an attachment that is marked as begun, and the next attach starts over.
func (a *attacher) run(ctx context.Context, before *catalog.Attachment) error {
	slot, target := a.cfg.Target.Slot, a.cfg.Target
	system, err := pglogrepl.IdentifySystem(ctx, a.replication)
	if err != nil {
		return fmt.Errorf("identify the source: %w", err)
	}
	if system.SystemID != a.provenance.Source.System {
		return fmt.Errorf("the replication connection leads to server %s and not to %s; let WALHOOK_DATABASE_URL name one server", system.SystemID, a.provenance.Source.System)
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
	// The publication comes first: the slot decodes with the catalog of its own time.
	if err := catalog.RepairPublication(ctx, a.source, a.preflight, a.recorded); err != nil {
		return err
	}
	published, err := catalog.InspectPublication(ctx, a.source, target.Publication)
	if err != nil {
		return err
	}
	a.publicationRows = published.CatalogRows(a.preflight.Respondent, a.preflight.Assessment)
	a.cfg.Note(fmt.Sprintf("creating slot %q", slot))
	created, err := catalog.CreateSlot(ctx, a.replication, a.source, catalog.PermanentSlot(slot, a.preflight.Version), a.cfg.Note)
	if err != nil {
		if cdc.SQLState(err) != "" { // the server refused: there is no slot of ours
			err = errors.Join(err, a.undoBegin(ctx))
		}
		return err
	}
	if err := a.snapshot(ctx, created); err != nil {
		// A slot that nobody reads keeps WAL for ever.
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

// undoBegin takes back what begin recorded, and the publication, where the slot cannot be created.
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

// begin records what is going to be attached, so that a later attach knows the slot as ours.
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
		"system_identifier": source.System, "database": source.Database, "database_oid": int64(source.OID), "slot": target.Slot,
		"publication": target.Publication, "publication_created": created, "publish": target.Publish, "mapping": mapping,
		"respondent_oid": int64(a.preflight.Respondent.OID), "assessment_oid": int64(assessmentOID),
		"numeric_id": types[catalog.RoleKey].IsInteger(), "column_types": typesJSON,
	})...)
	if err != nil {
		return fmt.Errorf("record the attachment in the store: %w", err)
	}
	return catalog.RecordPlaces(ctx, a.store, source, a.provenance.Store)
}

// resetCopy drops what a copy has of the original's deliveries, and keeps its webhooks from sending to the original's receivers.
func (a *attacher) resetCopy(ctx context.Context) error {
	if err := forgetDaemons(ctx, a.store); err != nil {
		return err
	}
	var pending, webhooks int64
	if err := a.store.QueryRow(ctx, sql.StartAnew.SQL).Scan(&pending, &webhooks); err != nil {
		return fmt.Errorf("drop what is pending and disable the webhooks: %w", err)
	}
	detail := fmt.Sprintf("this copy of %s was attached anew: %d pending deliveries were dropped and %d webhooks disabled", a.provenance.Original(), pending, webhooks)
	if _, err := a.store.Exec(ctx, sql.NoteIncident.SQL, sql.NoteIncident.Bind(sql.Args{"kind": stream.IncidentCopy, "detail": detail})...); err != nil {
		return fmt.Errorf("note what was dropped: %w", err)
	}
	a.cfg.Note(detail)
	return nil
}

// forgetDaemons drops what a copy has of the original's daemons.
func forgetDaemons(ctx context.Context, store *pgx.Conn) error {
	for _, q := range []sql.Query{sql.ForgetDaemons, sql.ForgetOwners, sql.ForgetMoves} {
		if _, err := store.Exec(ctx, q.SQL); err != nil {
			return fmt.Errorf("forget the original's daemons: %w", err)
		}
	}
	return nil
}

// snapshot records the state of all rows at the slot's snapshot, and completes the attachment in the last of the store's
// transactions. They are of a bounded size: where the store is in the application's database the slot decodes them too, and the
// server would write a large one to its disk. Until the last, what is there is a part of the state, which nothing reads that fires.
func (a *attacher) snapshot(ctx context.Context, slot catalog.CreatedSlot) error {
	m := a.cfg.Target.Mapping
	if err := catalog.BeginAtSnapshot(ctx, a.source, slot.Snapshot); err != nil {
		return err
	}
	if _, err := a.store.Exec(ctx, "truncate walhook.response_state, walhook.assessment"); err != nil {
		return fmt.Errorf("write the state of existing rows: %w", err)
	}
	if _, err := a.store.Exec(ctx, sql.ResolveIncidents.SQL, []string{cdc.SetAside}); err != nil {
		return fmt.Errorf("resolve the incidents of an earlier attach: %w", err)
	}
	if a.preflight.Assessment != nil {
		if _, err := catalog.CopyRows(ctx, a.source, a.store, m.AssessmentTable, m.AssessmentColumns(), "walhook.assessment "+catalog.AssessmentColumns,
			catalog.AssessmentConverter(m, a.preflight.Assessment, false), func(int64) {}, a.setAside(ctx, m.AssessmentTable, slot)); err != nil {
			return err
		}
	}
	total := int64(a.preflight.Respondent.Rows)
	began := time.Now()
	rows, err := catalog.CopyRows(ctx, a.source, a.store, m.Respondent, m.RespondentColumns(), "walhook.response_state "+catalog.StateColumns,
		catalog.StateConverter(m, a.preflight.Respondent), func(n int64) { a.cfg.Progress(n, total) }, a.setAside(ctx, m.Respondent, slot))
	if err != nil {
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

// complete writes what makes the state that was recorded an attachment.
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
	// Transaction ids of before may mean nothing to this server, and what is pending was committed long ago.
	if _, err := a.store.Exec(ctx, sql.ForgetXids.SQL); err != nil {
		return fmt.Errorf("let pending deliveries go on: %w", err)
	}
	if _, err := a.store.Exec(ctx, cdc.NormalizeWebhookIDs); err != nil {
		return fmt.Errorf("spell the ids of webhooks as the columns do: %w", err)
	}
	_, err = a.store.Exec(ctx, "update walhook.attachment set phase = 'attached', attached_at = now(), publication_rows = $1", a.publicationRows)
	return err
}

// setAside returns what records a row of the table that the store cannot take.
func (a *attacher) setAside(ctx context.Context, table cdc.Name, slot catalog.CreatedSlot) func(row []byte, cause error) error {
	return func(row []byte, cause error) error {
		refused := stream.RejectedRow{Table: table, Key: stream.KeyOf(row), LSN: slot.Consistent, Cause: cause}
		a.cfg.Note(refused.String())
		return refused.Record(ctx, a.store)
	}
}

// DetachConfig is what Detach needs.
type DetachConfig struct {
	SourceURL, StoreURL string
	Slot, Publication   string
	DropSchema          bool
	Note                func(string)
}

// Detach drops slot and publication, and the schema where told to. It may be repeated. Webhooks and log are kept otherwise.
func Detach(ctx context.Context, cfg DetachConfig) error {
	source, err := catalog.ConnectPrimary(ctx, cfg.SourceURL)
	if err != nil {
		return err
	}
	defer catalog.CloseQuietly(source)
	store, err := catalog.ConnectLocking(ctx, cfg.StoreURL)
	if err != nil {
		return err
	}
	defer catalog.CloseLocking(store)
	// Before anything is touched: the store may be that of another version, and source or store a copy.
	var version *sql.VersionError
	if err := sql.CheckVersion(ctx, store); err != nil && !(errors.As(err, &version) && version.Have == 0) {
		return err
	}
	if err := catalog.CheckOriginal(ctx, source, store); err != nil {
		return err
	}
	if err := catalog.LockAttach(ctx, store); err != nil {
		return err
	}
	free, err := catalog.TryLock(ctx, store, catalog.ReaderLock, 0)
	if err != nil {
		return err
	}
	if !free {
		return errors.New("a daemon is running on this store; stop it first")
	}
	attachment, err := catalog.ReadAttachmentIfInstalled(ctx, store)
	if err != nil {
		return err
	}
	if attachment != nil && (attachment.Slot != cfg.Slot || attachment.Publication != cfg.Publication) {
		return fmt.Errorf("slot %q and publication %q are attached, not %q and %q; set WALHOOK_SLOT and WALHOOK_PUBLICATION to what is attached",
			attachment.Slot, attachment.Publication, cfg.Slot, cfg.Publication)
	}
	if cfg.DropSchema {
		if err := checkSchemaOwned(ctx, store); err != nil {
			return err
		}
	}
	if attachment != nil {
		// The publication comes first: only its owner may drop it, and where this role is not, nothing has been lost.
		if err := dropPublication(ctx, source, attachment, cfg.Note); err != nil {
			return err
		}
		if err := detachSlots(ctx, cfg, source, attachment); err != nil {
			return err
		}
		if _, err := store.Exec(ctx, "delete from walhook.attachment"); err != nil {
			return fmt.Errorf("end the attachment: %w", err)
		}
	} else {
		cfg.Note("nothing is attached")
	}
	if !cfg.DropSchema {
		return nil
	}
	var webhooks, pending int64
	if version == nil {
		err := store.QueryRow(ctx, "select (select count(*) from walhook.webhook), (select count(*) from walhook.queue)").Scan(&webhooks, &pending)
		if err != nil {
			return fmt.Errorf("count what the schema holds: %w", err)
		}
	}
	if err := dropSchema(ctx, cfg, store, true); err != nil {
		return err
	}
	inSource, err := catalog.PlaceOf(ctx, source)
	if err != nil {
		return err
	}
	inStore, err := catalog.PlaceOf(ctx, store)
	if err != nil {
		return err
	}
	if !inSource.SameDatabase(inStore) {
		if err := dropSchema(ctx, cfg, source, false); err != nil {
			return err
		}
	}
	if version != nil {
		return nil
	}
	cfg.Note(fmt.Sprintf("dropped schema walhook with its log, %d webhooks and their secrets, and %d pending deliveries", webhooks, pending))
	return nil
}

// dropPublication drops the attachment's publication where this installation created it.
func dropPublication(ctx context.Context, source *pgx.Conn, a *catalog.Attachment, note func(string)) error {
	have, err := catalog.InspectPublication(ctx, source, a.Publication)
	if err != nil || have == nil {
		return err
	}
	if !a.OwnsPublication(have, a.Slot) {
		note(fmt.Sprintf("publication %q stays: walhook did not create it", a.Publication))
		return nil
	}
	if _, err := source.Exec(ctx, "drop publication if exists "+pgx.Identifier{a.Publication}.Sanitize()); err != nil {
		return fmt.Errorf("drop publication %q: %w; nothing was changed; %s", a.Publication, err, detachAdvice(ctx, source, a.Publication))
	}
	note(fmt.Sprintf("dropped publication %q", a.Publication))
	return nil
}

// detachSlots drops the slots that the store has recorded, where they are this database's.
func detachSlots(ctx context.Context, cfg DetachConfig, source *pgx.Conn, a *catalog.Attachment) error {
	for _, name := range []string{a.Slot, a.NextSlot} {
		slot, err := catalog.InspectSlot(ctx, source, name)
		if err != nil {
			return err
		}
		if slot.IsForeign() {
			cfg.Note(slot.DescribeForeign() + ", and is left alone")
		}
		if !slot.Exists || slot.IsForeign() {
			continue
		}
		if err := catalog.DropSlot(ctx, source, name); err != nil {
			return err
		}
		cfg.Note(fmt.Sprintf("dropped slot %q", name))
	}
	return nil
}

// detachAdvice says who may drop the publication.
func detachAdvice(ctx context.Context, source *pgx.Conn, publication string) string {
	var owner string
	if err := source.QueryRow(ctx, "select pg_catalog.pg_get_userbyid(pubowner) from pg_catalog.pg_publication where pubname = $1", publication).Scan(&owner); err != nil {
		owner = "the publication's owner"
	}
	return fmt.Sprintf("detach as %s, or, where a script of walhook plan made it, let its undo be run (docs/how-to/roles.md)", owner)
}

// checkSchemaOwned returns an error where the schema walhook belongs to somebody else, or is not walhook's.
func checkSchemaOwned(ctx context.Context, conn *pgx.Conn) error {
	foreign, err := sql.ForeignObject(ctx, conn)
	if err == nil && foreign != "" {
		err = fmt.Errorf("schema walhook in the store is not walhook's: it holds the %s; nothing was changed", foreign)
	}
	if err != nil {
		return err
	}
	owner, owned, err := schemaOwner(ctx, conn)
	if err == nil && !owned {
		err = fmt.Errorf("schema walhook belongs to %s; detach as that role, or without --drop-schema; nothing was changed", owner)
	}
	return err
}

// schemaOwner returns the owner of schema walhook, and whether the connected role may do what the owner may, as it may where there is none.
func schemaOwner(ctx context.Context, conn *pgx.Conn) (owner string, owned bool, err error) {
	err = conn.QueryRow(ctx, `select pg_catalog.pg_get_userbyid(n.nspowner), pg_catalog.pg_has_role(n.nspowner, 'usage') from pg_catalog.pg_namespace n
		where n.nspname = 'walhook'`).Scan(&owner, &owned)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", true, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("look for schema walhook: %w", err)
	}
	return owner, owned, nil
}

// dropSchema drops what this installation has in schema walhook of a database, and the group roles where no other database of the server
// needs them. ours is whether its store is there.
func dropSchema(ctx context.Context, cfg DetachConfig, conn *pgx.Conn, ours bool) error {
	_, owned, err := schemaOwner(ctx, conn)
	if err != nil {
		return err
	}
	if owned {
		script, err := sql.DropScript(cfg.Slot, ours)
		if err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, script); err != nil {
			return fmt.Errorf("drop schema walhook: %w", err)
		}
	}
	var stays bool
	if err := conn.QueryRow(ctx, "select pg_catalog.to_regnamespace('walhook') is not null").Scan(&stays); err != nil {
		return fmt.Errorf("look for schema walhook: %w", err)
	}
	if stays {
		cfg.Note(fmt.Sprintf("schema walhook in %s stays, with what others use", session.Address(&conn.Config().Config)))
	}
	for _, role := range sql.GroupRoles {
		_, err := conn.Exec(ctx, "drop role if exists "+role)
		switch cdc.SQLState(err) {
		case "2BP01", "42501": // dependent_objects_still_exist, insufficient_privilege: somebody else's
		default:
			if err != nil {
				return fmt.Errorf("drop role %s: %w", role, err)
			}
		}
	}
	return nil
}
