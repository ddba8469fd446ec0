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

// incidentReconcile is the kind of incident that tells of a comparison.
const incidentReconcile = "reconcile"

// ReconcileConfig is what Reconcile needs.
type ReconcileConfig struct {
	SourceURL, StoreURL string
	Target              Target
	Queue               Queue
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
	// Elsewhere tells that nothing was done, since another daemon reads the slot.
	Elsewhere bool
}

// Reconcile makes a new slot, compares its snapshot with the recorded state, fires what was missed and lets the stream go on
// from there. State, deliveries and position are one store transaction: killed half-way it has not happened, and what it left
// is found as a gap and closed by the next one. No daemon may be reading the slot meanwhile.
//
// The rows tell the last of several changes: where a response finished twice since the old position, one event fires.
func Reconcile(ctx context.Context, cfg ReconcileConfig) (Reconciled, error) {
	store, err := ConnectStore(ctx, cfg.StoreURL)
	if err != nil {
		return Reconciled{}, err
	}
	defer closeQuietly(store)
	if err := sql.CheckVersion(ctx, store); err != nil {
		return Reconciled{}, err
	}
	var reader bool
	if err := store.QueryRow(ctx, "select pg_try_advisory_lock($1)", ReaderLock).Scan(&reader); err != nil {
		return Reconciled{}, fmt.Errorf("lock the store: %w", err)
	}
	if !reader {
		return Reconciled{Elsewhere: true}, nil
	}
	if err := lockAttach(ctx, store); err != nil {
		return Reconciled{}, err
	}
	attachment, _, err := ReadAttached(ctx, store)
	if err != nil {
		return Reconciled{}, err
	}
	if err := attachment.Matches(cfg.Target.Slot, cfg.Target.Publication, cfg.Target.Mapping); err != nil {
		return Reconciled{}, err
	}
	if cfg.Gap != nil {
		if _, err := store.Exec(ctx, sql.OpenIncident.SQL, sql.OpenIncident.Bind(sql.Args{"kind": cfg.Gap.Kind, "detail": cfg.Gap.Detail})...); err != nil {
			return Reconciled{}, fmt.Errorf("record the incident: %w", err)
		}
	}
	return (&reconciler{cfg: cfg, store: store}).run(ctx)
}

type reconciler struct {
	cfg   ReconcileConfig
	store *pgx.Conn

	publicationRows string
}

func (r *reconciler) run(ctx context.Context) (result Reconciled, err error) {
	cfg := r.cfg
	source, err := ConnectSource(ctx, cfg.SourceURL)
	if err != nil {
		return result, err
	}
	defer closeQuietly(source)
	replication, err := ConnectReplication(ctx, cfg.SourceURL)
	if err != nil {
		return result, err
	}
	defer closeQuietly(replication)
	system, err := pglogrepl.IdentifySystem(ctx, replication)
	if err != nil {
		return result, fmt.Errorf("identify the source: %w", err)
	}
	preflight, err := Inspect(ctx, source, cfg.Target)
	if err != nil {
		return result, err
	}
	if refusals := preflight.Refusals(); len(refusals) > 0 {
		return result, fmt.Errorf("the stream cannot be taken up again: %s", reasons(refusals))
	}
	if s := preflight.Slot; s.Exists && (s.Type != "logical" || s.Plugin != "pgoutput" || !s.Here) {
		return result, fmt.Errorf("slot %q is not a logical pgoutput slot of this database; drop it, or choose another WALHOOK_SLOT", s.Name)
	}
	if err := mendPublication(ctx, source, preflight); err != nil {
		return result, err
	}
	if preflight.Slot.Exists {
		cfg.Note(fmt.Sprintf("dropping slot %q", cfg.Target.Slot))
		if err := dropSlot(ctx, source, cfg.Target.Slot); err != nil {
			return result, err
		}
	}
	// Read before the slot is made: who changes the publication from now on is found out.
	published, err := inspectPublication(ctx, source, cfg.Target.Publication)
	if err != nil {
		return result, err
	}
	r.publicationRows = published.rowsOf(preflight.Respondent, preflight.Assessment)
	cfg.Note(fmt.Sprintf("creating slot %q", cfg.Target.Slot))
	created, err := createSlot(ctx, replication, source, cfg.Target.Slot, preflight.Version, cfg.Note)
	if err != nil {
		return result, err
	}
	if err := beginAtSnapshot(ctx, source, created.snapshot); err != nil {
		return result, err
	}
	result, err = r.compare(ctx, source, preflight, system, created)
	if err != nil {
		cfg.Queue.Discarded()
		return result, err
	}
	cfg.Queue.Committed()
	return result, nil
}

// compare is the one store transaction.
func (r *reconciler) compare(ctx context.Context, source *pgx.Conn, preflight *Preflight, system pglogrepl.IdentifySystemResult, slot newSlot) (Reconciled, error) {
	began := time.Now()
	tx, err := r.store.Begin(ctx)
	if err != nil {
		return Reconciled{}, fmt.Errorf("compare the table with the recorded state: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	c := &comparison{
		source: source, store: r.store, mapping: r.cfg.Target.Mapping, respondent: preflight.Respondent, assessment: preflight.Assessment,
		queue: r.cfg.Queue, at: slot.consistent, note: r.cfg.Note, progress: r.cfg.Progress,
	}
	outcome, err := c.run(ctx)
	if err != nil {
		return Reconciled{}, err
	}
	var assessmentOID uint32
	if preflight.Assessment != nil {
		assessmentOID = preflight.Assessment.OID
	}
	text := fmt.Sprintf("compared %d rows with the recorded state: %d differed, %d were gone, %d events fired", outcome.rows, outcome.differing, outcome.gone, outcome.events.All())
	if r.cfg.Gap != nil {
		text = r.cfg.Gap.Detail + "; made a new slot and " + text
	}
	for _, statement := range []struct {
		sql  string
		args []any
	}{
		{sql.SetPosition.SQL, sql.SetPosition.Bind(sql.Args{"lsn": slot.consistent.String()})},
		{
			"update walhook.attachment set system_identifier = $1, respondent_oid = $2, assessment_oid = $3, publication_rows = $4",
			[]any{system.SystemID, int64(preflight.Respondent.OID), int64(assessmentOID), r.publicationRows},
		},
		// Transaction ids of before may mean nothing to this server, and what is pending was committed long ago.
		{"update walhook.queue set xid = null where xid is not null", nil},
		{sql.ResolveIncidents.SQL, []any{gapKinds}},
		{sql.NoteIncident.SQL, sql.NoteIncident.Bind(sql.Args{"kind": incidentReconcile, "detail": text})},
	} {
		if _, err := r.store.Exec(ctx, statement.sql, statement.args...); err != nil {
			return Reconciled{}, fmt.Errorf("complete the comparison: %w", err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return Reconciled{}, fmt.Errorf("complete the comparison: %w", err)
	}
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
		if err != nil {
			return fmt.Errorf("%s; %w", strings.TrimSuffix(gap.Detail, "."), err)
		}
		return nil
	}
}
