package cdc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"walhook/sql"
)

// Kinds of incidents that are over as they are told.
const (
	incidentReconcile = "reconcile" // a comparison
	incidentTakeover  = "takeover"  // another daemon reads the slot
	incidentCopy      = "copy"      // a copy was attached anew
)

// ReconcileConfig is what Reconcile needs.
type ReconcileConfig struct {
	SourceURL, StoreURL string
	Target              Target
	Queue               Queue
	Horizon             *Horizon
	Log                 *slog.Logger
	Note                func(string)
	Progress            func(rows, total int64)

	// Gap is why it is done; nil: somebody asked for it.
	Gap *GapError
}

// Reconciled is what came of it.
type Reconciled struct {
	Rows, Differing, Gone int64
	Events                EventCounts
	Elsewhere             bool // nothing was done, since another daemon reads the slot by now, or somebody has closed the gap
}

// Reconcile compares a snapshot of the table with the recorded state, fires what was missed and lets the stream go on from
// there. State, deliveries and position are one store transaction: killed half-way it has not happened.
//
// Where the slot is sound and somebody asked, the slot is first consumed up to the snapshot, so that what it holds fires as
// always; a daemon that reads it steps aside meanwhile. Otherwise a new slot is made, and what an interrupted attempt leaves is
// found as a gap and closed by the next one; the rows then tell the last of several changes: where a response finished twice
// since the old position, one event fires. A gap is left to another daemon that reads the slot by now.
func Reconcile(ctx context.Context, cfg ReconcileConfig) (Reconciled, error) {
	began := time.Now()
	store, err := connectLocking(ctx, cfg.StoreURL)
	if err != nil {
		return Reconciled{}, err
	}
	defer closeLocking(store)
	if err := sql.CheckVersion(ctx, store); err != nil {
		return Reconciled{}, err
	}
	r := &reconciler{cfg: cfg, store: store}
	if err := r.checkIdentity(ctx); err != nil {
		return Reconciled{}, err
	}
	reader, err := r.lockReader(ctx)
	if err != nil || !reader {
		return Reconciled{Elsewhere: err == nil}, err
	}
	if err := lockAttach(ctx, store); err != nil {
		return Reconciled{}, err
	}
	if cfg.Gap != nil {
		// Who had the locks may have closed it, as every comparison does, and what the slot has brought since must not be compared away.
		var closed bool
		args := sql.GapClosed.Bind(sql.Args{"kinds": comparedKinds, "within": time.Since(began)})
		if err := store.QueryRow(ctx, sql.GapClosed.SQL, args...).Scan(&closed); err != nil || closed {
			return Reconciled{Elsewhere: closed}, err
		}
	}
	attachment, position, err := ReadAttached(ctx, store)
	if err != nil {
		return Reconciled{}, err
	}
	if err := attachment.Matches(cfg.Target); err != nil {
		return Reconciled{}, err
	}
	r.attachment = attachment
	if cfg.Gap != nil {
		if err := r.openIncident(ctx, cfg.Gap); err != nil {
			return Reconciled{}, err
		}
	}
	if cfg.Gap == nil || cfg.Gap.alongside() {
		result, err := r.alongside(ctx, attachment, position)
		if !errors.As(err, &r.cfg.Gap) {
			if err != nil && cfg.Gap != nil {
				r.tell(ctx, cfg.Gap, err)
			}
			return result, err
		}
		cfg.Note(r.cfg.Gap.Detail)
		if err := r.openIncident(ctx, r.cfg.Gap); err != nil {
			return Reconciled{}, err
		}
	}
	gap := r.cfg.Gap
	result, err := r.anew(ctx)
	if err != nil {
		r.tell(ctx, gap, err)
		return result, &entrustedError{err}
	}
	return result, nil
}

// Adopt makes a copy the original, or creates a new slot for the original, by a comparison that fires what was missed. store is a
// session that holds the locks of attach and of the reader.
func Adopt(ctx context.Context, cfg ReconcileConfig, store *pgx.Conn, id identity) error {
	r := &reconciler{cfg: cfg, store: store, adopting: &id}
	_, err := r.anew(ctx)
	return err
}

func (r *reconciler) openIncident(ctx context.Context, gap *GapError) error {
	if _, err := r.store.Exec(ctx, sql.OpenIncident.SQL, sql.OpenIncident.Bind(sql.Args{"kind": gap.Kind, "detail": gap.Detail})...); err != nil {
		return fmt.Errorf("record the incident: %w", err)
	}
	return nil
}

// entrustedError says that a gap was not closed, and that whoever reads the slot next finds it: recorded in the store, or by itself.
type entrustedError struct{ error }

func (e *entrustedError) Unwrap() error { return e.error }

// tell lets people read in the incident what keeps the gap open, which often is a statement that somebody has to run.
func (r *reconciler) tell(ctx context.Context, gap *GapError, why error) {
	if _, err := r.store.Exec(ctx, sql.HinderIncident.SQL, sql.HinderIncident.Bind(sql.Args{"kind": gap.Kind, "hindrance": why.Error()})...); err != nil {
		r.cfg.Log.Debug("the incident cannot be told more of", "error", err)
	}
}

type reconciler struct {
	cfg        ReconcileConfig
	store      *pgx.Conn   // holds the locks
	attachment *Attachment // as it was before
	adopting   *identity   // of a copy that becomes the original; nil: source and store are the original
}

// checkIdentity returns a *CopyError where there is nothing to compare with, before any lock is taken.
func (r *reconciler) checkIdentity(ctx context.Context) error {
	source, err := connectPrimary(ctx, r.cfg.SourceURL)
	if err != nil {
		return err
	}
	defer closeQuietly(source)
	return checkIdentity(ctx, source, r.store)
}

// lockReader makes sure that nobody else reads the slot. Where somebody asked for the comparison, it waits for the daemon that
// does, which steps aside once it sees that. Where a gap was found, it waits for the session that found it, which the server may
// take a moment to end: that another daemon has the lock is known only after.
func (r *reconciler) lockReader(ctx context.Context) (won bool, err error) {
	if r.cfg.Gap != nil {
		return tryLock(ctx, r.store, ReaderLock, leftoverGrace)
	}
	if won, err = tryLock(ctx, r.store, ReaderLock, 0); err != nil || won {
		return won, err
	}
	r.cfg.Note("waiting for the daemon that reads the slot to step aside")
	if _, err := r.store.Exec(ctx, "select pg_advisory_lock($1)", ReaderLock); err != nil {
		return false, fmt.Errorf("wait for the daemon that reads the slot: %w", err)
	}
	return true, nil
}

// alongside compares where the slot is sound: at the snapshot of a slot that lives for the moment, up to which the stream is
// consumed before. It returns a *GapError where the slot is not.
func (r *reconciler) alongside(ctx context.Context, a *Attachment, position Position) (Reconciled, error) {
	cfg := r.cfg
	source, err := connectPrimary(ctx, cfg.SourceURL)
	if err != nil {
		return Reconciled{}, err
	}
	defer closeQuietly(source)
	exporter, err := ConnectReplication(ctx, cfg.SourceURL)
	if err != nil {
		return Reconciled{}, err
	}
	defer closeQuietly(exporter)
	status := &Status{}
	stream := NewStream(StreamConfig{
		SourceURL: cfg.SourceURL, StoreURL: cfg.StoreURL, Slot: cfg.Target.Slot, Publication: cfg.Target.Publication,
		Mapping: cfg.Target.Mapping, Queue: cfg.Queue, Horizon: cfg.Horizon, Status: status, Log: cfg.Log,
		Guard: NewGuard(GuardConfig{
			SourceURL: cfg.SourceURL, Slot: cfg.Target.Slot, Publication: cfg.Target.Publication, Mapping: cfg.Target.Mapping, Status: status, Log: cfg.Log,
		}),
	})
	if _, err := stream.verify(ctx, source, exporter, a, position); err != nil {
		return Reconciled{}, err
	}
	preflight, err := Inspect(ctx, source, cfg.Target, exporter)
	if err != nil {
		return Reconciled{}, err
	}
	if refusals := preflight.Refusals(); len(refusals) > 0 {
		return Reconciled{}, fmt.Errorf("the table cannot be read: %s", reasons(refusals))
	}
	snapshot, err := createSlot(ctx, exporter, source, slotSpec{name: temporarySlot(cfg.Target.Slot), temporary: true}, cfg.Note)
	if err != nil {
		return Reconciled{}, err
	}
	if err := beginAtSnapshot(ctx, source, snapshot.snapshot); err != nil {
		return Reconciled{}, err
	}
	closeQuietly(exporter) // the snapshot lives on in our transaction
	cfg.Note(fmt.Sprintf("consuming slot %q up to %s", cfg.Target.Slot, snapshot.consistent))
	if err := r.catchUp(ctx, stream, snapshot.consistent); err != nil {
		return Reconciled{}, err
	}
	if r.attachment, err = ReadAttachment(ctx, r.store); err != nil { // the stream may have met another type of the key
		return Reconciled{}, err
	}
	return r.compare(ctx, source, preflight, snapshot.consistent, false, alsoWrite{sql.ResolveIncidents.SQL, []any{alongsideKinds}})
}

// catchUp consumes the slot up to a point, through a store connection of its own: the stream sets its session up for look-ups,
// and the comparison joins whole tables.
func (r *reconciler) catchUp(ctx context.Context, stream *Stream, until pglogrepl.LSN) error {
	store, err := ConnectStore(ctx, r.cfg.StoreURL)
	if err != nil {
		return err
	}
	defer closeQuietly(store)
	for {
		err := stream.stream(ctx, store, nil, until)
		var silent *silentError
		var refused *refusedBatchError
		if !errors.As(err, &refused) && (!errors.As(err, &silent) || silent.limit >= silenceCap) {
			return err
		}
		r.cfg.Note(err.Error() + "; connecting again")
	}
}

// anew compares at the snapshot of a new slot, from which the stream goes on.
func (r *reconciler) anew(ctx context.Context) (result Reconciled, err error) {
	cfg := r.cfg
	source, err := connectPrimary(ctx, cfg.SourceURL)
	if err != nil {
		return result, err
	}
	defer closeQuietly(source)
	replication, err := ConnectReplication(ctx, cfg.SourceURL)
	if err != nil {
		return result, err
	}
	defer closeQuietly(replication)
	attachment, err := ReadAttachment(ctx, r.store)
	if err != nil {
		return result, err
	}
	r.attachment = attachment
	id, err := inspectIdentity(ctx, source, r.store, attachment)
	if err == nil && r.adopting == nil {
		err = id.err()
	}
	if err != nil {
		return result, err
	}
	system, err := pglogrepl.IdentifySystem(ctx, replication)
	if err != nil {
		return result, fmt.Errorf("identify the source: %w", err)
	}
	if system.SystemID != id.source.System {
		return result, fmt.Errorf("the replication connection leads to server %s and not to %s; let WALHOOK_DATABASE_URL name one server", system.SystemID, id.source.System)
	}
	preflight, err := Inspect(ctx, source, cfg.Target, replication)
	if err != nil {
		return result, err
	}
	if refusals := preflight.Refusals(); len(refusals) > 0 {
		return result, fmt.Errorf("the stream cannot be taken up again: %s", reasons(refusals))
	}
	if preflight.Slot.foreign() {
		return result, fmt.Errorf("%s; %s", preflight.Slot.whose(), otherSlotRemedy)
	}
	if refusals := preflight.publication.refusals(preflight.havePublication, attachment); len(refusals) > 0 {
		return result, fmt.Errorf("the stream cannot be taken up again: %s", reasons(refusals))
	}
	if err := mendPublication(ctx, source, preflight, attachment); err != nil {
		return result, err
	}
	if preflight.Slot.Exists {
		cfg.Note(fmt.Sprintf("dropping slot %q", cfg.Target.Slot))
		if err := dropSlot(ctx, source, cfg.Target.Slot); err != nil {
			return result, err
		}
	}
	created := preflight.havePublication == nil || attachment.created(preflight.havePublication, cfg.Target.Slot)
	publish := attachment.Publish
	if r.adopting != nil {
		if attachment.NextSlot != "" { // of an adoption that was interrupted
			if err := dropSlot(ctx, source, attachment.NextSlot); err != nil {
				return result, err
			}
		}
		if _, err := r.store.Exec(ctx, sql.RecordNextSlot.SQL, cfg.Target.Slot); err != nil {
			return result, fmt.Errorf("record the slot: %w", err)
		}
		publish = cfg.Target.Publish
	}
	// Read before the slot is made: who changes the publication from now on is found out.
	published, err := inspectPublication(ctx, source, cfg.Target.Publication)
	if err != nil {
		return result, err
	}
	var assessmentOID uint32
	if preflight.Assessment != nil {
		assessmentOID = preflight.Assessment.OID
	}
	cfg.Note(fmt.Sprintf("creating slot %q", cfg.Target.Slot))
	slot, err := createSlot(ctx, replication, source, lastingSlot(cfg.Target.Slot, preflight.Version), cfg.Note)
	if err != nil {
		return result, err
	}
	if err := beginAtSnapshot(ctx, source, slot.snapshot); err != nil {
		return result, err
	}
	also := []alsoWrite{
		{sql.RenewAttachment.SQL, sql.RenewAttachment.Bind(sql.Args{
			"system_identifier": id.source.System, "database": id.source.Database, "database_oid": int64(id.source.OID), "slot": cfg.Target.Slot,
			"publication": cfg.Target.Publication, "publication_created": created, "publish": publish,
			"publication_rows": published.rowsOf(preflight.Respondent, preflight.Assessment),
			"respondent_oid":   int64(preflight.Respondent.OID), "assessment_oid": int64(assessmentOID),
		})},
		{sql.RecordStorePlace.SQL, sql.RecordStorePlace.Bind(id.store.args())},
		// Transaction ids of before may mean nothing to this server, and what is pending was committed long ago.
		{sql.ForgetXids.SQL, nil},
		{sql.ResolveIncidents.SQL, []any{comparedKinds}},
	}
	if r.adopting != nil {
		for _, q := range []sql.Query{sql.ForgetDaemons, sql.ForgetOwners, sql.ForgetMoves} {
			also = append(also, alsoWrite{q.SQL, nil})
		}
	}
	return r.compare(ctx, source, preflight, slot.consistent, true, also...)
}

// alsoWrite is a statement of the comparison's transaction.
type alsoWrite struct {
	sql  string
	args []any
}

// compare is the one store transaction, with what is to be written besides. The source is in one that sees the table as it was
// at the given point, on a new slot's beginning or not.
func (r *reconciler) compare(ctx context.Context, source *pgx.Conn, preflight *Preflight, at pglogrepl.LSN, newSlot bool, also ...alsoWrite) (result Reconciled, err error) {
	began := time.Now()
	defer func() {
		if err != nil {
			r.cfg.Queue.Discarded()
		}
	}()
	r.cfg.Queue.Began() // what whoever read the slot before queued last may not be known here, and comes first
	tx, err := r.store.Begin(ctx)
	if err != nil {
		return result, fmt.Errorf("compare the table with the recorded state: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if newSlot {
		if err := recordOrigin(ctx, r.store); err != nil {
			return result, err
		}
	}
	types := columnTypesOf(r.cfg.Target.Mapping, preflight.Respondent, preflight.Assessment)
	typesJSON, err := types.json()
	if err != nil {
		return result, err
	}
	c := &comparison{
		source: source, store: r.store, mapping: r.cfg.Target.Mapping, respondent: preflight.Respondent, assessment: preflight.Assessment,
		queue: r.cfg.Queue, at: at, note: r.cfg.Note, progress: r.cfg.Progress,
		before: r.attachment.Types, types: types, followed: !newSlot,
		replaced: r.adopting == nil && preflight.Respondent.OID != r.attachment.RespondentOID,
	}
	outcome, err := c.run(ctx)
	if err != nil {
		return result, err
	}
	text := fmt.Sprintf("compared %d rows with the recorded state: %d differed, %d were gone, %d events fired", outcome.rows, outcome.differing, outcome.gone, outcome.events.All())
	if outcome.refused > 0 {
		text += fmt.Sprintf(", %d were set aside", outcome.refused)
	}
	if c.unmatched {
		text += "; rows whose keys could not be matched with what was recorded fired nothing"
	}
	incident := text
	if r.cfg.Gap != nil {
		incident = r.cfg.Gap.Detail + "; " + text
		if newSlot {
			incident = r.cfg.Gap.Detail + "; made a new slot and " + text
		}
	}
	for _, w := range append(also,
		alsoWrite{"update walhook.attachment set column_types = $1, numeric_id = $2", []any{typesJSON, types[roleKey].isInteger()}},
		alsoWrite{respellWebhooks, nil},
		alsoWrite{sql.SetPosition.SQL, sql.SetPosition.Bind(sql.Args{"lsn": at.String()})},
		alsoWrite{sql.NoteIncident.SQL, sql.NoteIncident.Bind(sql.Args{"kind": incidentReconcile, "detail": incident})},
		alsoWrite{"select pg_notify('walhook', '')", nil}, // for the senders of other processes
	) {
		if _, err := r.store.Exec(ctx, w.sql, w.args...); err != nil {
			return result, fmt.Errorf("complete the comparison: %w", err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return result, fmt.Errorf("complete the comparison: %w", err)
	}
	r.cfg.Queue.keyed(types[roleKey])
	r.cfg.Queue.Committed(ctx)
	r.cfg.Note(text + " in " + time.Since(began).Round(time.Millisecond).String())
	return Reconciled{Rows: outcome.rows, Differing: outcome.differing, Gone: outcome.gone, Events: outcome.events}, nil
}

// Mender returns a StreamConfig.Mend that closes gaps with Reconcile, and counts them in the status.
func Mender(cfg ReconcileConfig, status *Status) func(context.Context, *GapError) error {
	return func(ctx context.Context, gap *GapError) error {
		cfg.Gap = gap
		result, err := Reconcile(ctx, cfg)
		if ctx.Err() == nil {
			status.compared(result, err)
		}
		var version *sql.VersionError
		if errors.As(err, &version) {
			return &FatalError{err}
		}
		if err == nil && result.Elsewhere {
			err = &entrustedError{errors.New("another daemon reads the slot by now and closes it, or somebody has closed it")}
		}
		if err != nil {
			return fmt.Errorf("%s; %w", strings.TrimSuffix(gap.Detail, "."), err)
		}
		return nil
	}
}
