package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/sethvargo/go-retry"
	"go.opentelemetry.io/otel/trace"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/sql"
)

const (
	reconnectMin = 200 * time.Millisecond
	reconnectCap = 5 * time.Second

	// stableAfter is how long a session must last to reset the backoff.
	stableAfter = 10 * time.Second

	// staleWalsenderGrace is how long a stale walsender of ours may hold the slot before it is terminated.
	staleWalsenderGrace = time.Second

	// staleSessionGrace is how long a stale session of ours may hold the slot, or the reader lock in the store.
	staleSessionGrace = 3 * time.Second

	// drainTimeout bounds how long a clean stop waits for the store: for the transaction in flight and the last
	// position. Anything that is not stored by then is read from the slot again.
	drainTimeout = 3 * time.Second
)

// Config configures a Stream. All fields but Reconcile and Tracer are required.
type Config struct {
	SourceURL, StoreURL string
	Original            *catalog.Original
	Slot, Publication   string
	Mapping             cdc.Mapping
	Queue               cdc.Queue
	Horizon             *Horizon
	Status              *Status
	Guard               *Guard // run by the caller
	Log                 *slog.Logger
	Tracer              trace.Tracer // creates a span for each store transaction; nil: no traces

	// Reconcile closes a gap; after it returns nil, the stream starts again. If it is nil, a gap ends Run.
	Reconcile func(context.Context, *cdc.GapError) error
}

// Stream reads the slot while no other daemon does, and stands by otherwise.
type Stream struct {
	cfg           Config
	yielded       bool   // gave the slot to a reconciliation, not to another daemon
	lastReaderPID uint32 // server process of this daemon's last session as the reader
	silence       adaptiveTimeout

	reportedGap      *cdc.GapError     // last gap that was logged
	lostPrecondition trackedIncident   // a precondition of attach does not hold
	hiddenKey        trackedIncident   // a replica identity lacks the key
	unlogged         trackedIncident   // the WAL lacks the changes of a table
	retypeFailedAt   time.Time         // when the last reconciliation of a retyped column failed
	openRetypeGap    *cdc.GapError     // the open incident of one of SlotKeptKinds when the session began
	partitionFiles   map[string]uint32 // files of the partitions at the last check
	isolateNext      bool              // the store rejected something that comes next
	takeoverPending  bool              // another daemon read the slot before, which is not recorded yet
}

// New returns a Stream; Run starts it.
func New(cfg Config) *Stream {
	return &Stream{cfg: cfg, silence: adaptiveTimeout{initial: silenceLimit}}
}

// Run streams until the context ends, and reconnects when a connection breaks. It returns nil after a clean stop, a
// *FatalError if a retry cannot help, a *CopyError if source or store is no longer the original, and a *GapError if
// Config.Reconcile is nil.
func (s *Stream) Run(ctx context.Context) error {
	defer s.cfg.Status.setPhase(PhaseStarting, "")
	backoff := newReconnect()
	var open *cdc.GapError // not closed yet
	for {
		began := time.Now()
		err := s.session(ctx, open)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errYielded) {
			s.yielded = true
			s.cfg.Log.Info("yielded the slot to a requested comparison", "slot", s.cfg.Slot)
			backoff = newReconnect()
			continue
		}
		var refused *rejectedBatchError
		if errors.As(err, &refused) {
			s.cfg.Log.Warn("the store refused a batch; isolating the row", "error", err)
			continue
		}
		var fatal *cdc.FatalError
		var copied *catalog.CopyError
		var gap *cdc.GapError
		switch {
		case errors.As(err, &fatal), errors.As(err, &copied):
			return err
		case errors.As(err, &gap):
			if s.cfg.Reconcile == nil {
				return err
			}
			open = gap
			s.reportGap(gap)
			s.cfg.Status.setPhase(PhaseReconciling, gap.Detail)
			if err = s.cfg.Reconcile(ctx, gap); err == nil {
				open = nil
				backoff = newReconnect()
				continue
			}
			if errors.As(err, &fatal) || errors.As(err, &copied) {
				return err
			}
			var entrusted *deferredGapError
			if gap.KeepsSlot() {
				open, s.retypeFailedAt = nil, time.Now() // the stream can continue without it
			}
			if errors.As(err, &entrusted) {
				open = nil // another daemon may close it before this one reads the slot again
			}
		}
		if time.Since(began) > stableAfter {
			backoff = newReconnect()
		}
		pause, _ := backoff.Next()
		s.cfg.Status.setPhase(PhaseRetrying, err.Error())
		s.cfg.Log.Warn("stream broke; reconnecting", "error", err, "in", pause.Round(time.Millisecond))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// reportGap reports a gap as soon as it is known. Until the store has answered the transaction in flight, the stream
// cannot close it, and the guard protects the source.
func (s *Stream) reportGap(gap *cdc.GapError) {
	if s.reportedGap == gap {
		return
	}
	s.reportedGap = gap
	s.cfg.Status.setPhase(PhaseRetrying, gap.Detail)
	if gap.KeepsSlot() {
		s.cfg.Log.Warn("comparing the table", "kind", gap.Kind, "detail", gap.Detail)
		return
	}
	s.cfg.Log.Error("the stream may have missed changes", "kind", gap.Kind, "detail", gap.Detail)
}

func newReconnect() retry.Backoff {
	return retry.WithJitterPercent(20, retry.WithCappedDuration(reconnectCap, retry.NewExponential(reconnectMin)))
}

// session is the lifetime of one pair of connections: elect, verify, stream.
func (s *Stream) session(ctx context.Context, open *cdc.GapError) error {
	store, err := catalog.ConnectLocking(ctx, s.cfg.StoreURL)
	if err != nil {
		return err
	}
	defer catalog.CloseLocking(store)
	if err := sql.CheckVersion(ctx, store); err != nil {
		var version *sql.VersionError
		if errors.As(err, &version) {
			return &cdc.FatalError{Err: err}
		}
		return err
	}
	// Check before the stream does anything: the new connections may lead to other databases than the last ones.
	if err := s.cfg.Original.CheckStore(ctx, store); err != nil {
		return err
	}
	source, err := s.cfg.Original.ConnectSource(ctx, s.cfg.SourceURL)
	if err != nil {
		return err
	}
	catalog.CloseQuietly(source)
	if err := s.elect(ctx, store); err != nil {
		return err
	}
	s.cfg.Status.setPhase(PhaseStarting, "opening the stream")
	return s.stream(ctx, store, open, 0)
}

// stream consumes the slot from the stored position, until a given LSN or, if that is 0, until it fails. It refuses
// to stream while a gap is open: the cause may be gone while changes are still missing. The caller holds the reader
// lock.
func (s *Stream) stream(ctx context.Context, store *pgx.Conn, open *cdc.GapError, until pglogrepl.LSN) error {
	links := s.dial(ctx)
	defer links.close()
	if err := sql.ByIndex(ctx, store); err != nil {
		return err
	}
	// Read this under the lock: until then another daemon may write.
	attachment, err := catalog.ReadAttachment(ctx, store)
	if err != nil {
		return err
	}
	if err := attachment.Check(s.target(attachment)); err != nil {
		return err
	}
	if o := s.cfg.Original; o != nil && o.Moved {
		if err := catalog.RecordPlaces(ctx, store, o.Source, o.Store); err != nil {
			return err
		}
	}
	if s.takeoverPending {
		if err := s.noteTakeover(ctx, store); err != nil {
			return err
		}
		s.takeoverPending = false
	}
	position, turn, err := acquireFence(ctx, store)
	if err != nil {
		return err
	}

	if err := links.await(); err != nil {
		return err
	}
	replication := links.replication
	tables, err := s.verify(ctx, links.source, replication, attachment, position)
	catalog.CloseQuietly(links.source)
	links.source = nil
	if err != nil {
		return err
	}
	if open == nil {
		if open, err = openGap(ctx, store, cdc.GapKinds); err != nil {
			return err
		}
	}
	if open == nil {
		open = s.checkPartitions(tables)
	}
	if open != nil {
		return open
	}
	// The source may be another server than before, and connections to the former one may still work.
	s.cfg.Guard.reconnect()
	if s.openRetypeGap, err = openGap(ctx, store, cdc.SlotKeptKinds); err != nil {
		return err
	}
	text, err := catalog.SendRawText(ctx, replication, s.cfg.SourceURL)
	if err != nil {
		return err
	}
	defer text.Close()
	if err := s.start(ctx, replication, text, position); err != nil {
		return err
	}
	reader := newReader(s.cfg, attachment, position, partitionedTables(tables)...)
	reader.conn, reader.endLSN, reader.silence, reader.decoder.text = replication, until, s.silence.forPosition(position), text
	return s.pump(ctx, store, reader, attachment, turn)
}

// target is the configuration that must be attached.
func (s *Stream) target(a *catalog.Attachment) catalog.Target {
	t := catalog.Target{Slot: s.cfg.Slot, Publication: s.cfg.Publication, Mapping: s.cfg.Mapping}
	if a != nil {
		t.Publish = a.Publish
	}
	return t
}

// links are a session's connections to the source. They are opened concurrently while the store is queried, because
// each needs several round trips.
type links struct {
	replication *pgconn.PgConn
	source      *pgx.Conn

	opening sync.WaitGroup
	cancel  context.CancelFunc
	errs    [3]error
}

func (s *Stream) dial(ctx context.Context) *links {
	l := &links{}
	ctx, l.cancel = context.WithCancel(ctx)
	l.opening.Go(func() { l.replication, l.errs[0] = ConnectReplication(ctx, s.cfg.SourceURL) })
	l.opening.Go(func() { l.source, l.errs[1] = catalog.ConnectSource(ctx, s.cfg.SourceURL) })
	l.opening.Go(func() { l.errs[2] = s.cfg.Horizon.Reconnect(ctx) })
	return l
}

// await waits until all connections are open or have failed.
func (l *links) await() error {
	l.opening.Wait()
	return cmp.Or(l.errs[:]...)
}

func (l *links) close() {
	l.cancel()
	l.opening.Wait()
	if l.replication != nil {
		catalog.CloseQuietly(l.replication)
	}
	if l.source != nil {
		catalog.CloseQuietly(l.source)
	}
}

// verify returns the mapped tables and checks that the slot continues at the stored position.
func (s *Stream) verify(
	ctx context.Context, source *pgx.Conn, replication *pgconn.PgConn, a *catalog.Attachment, position cdc.Position,
) ([]*catalog.Table, error) {
	system, err := pglogrepl.IdentifySystem(ctx, replication)
	if err != nil {
		return nil, fmt.Errorf("identify the source: %w", err)
	}
	here, same, err := catalog.Locate(ctx, source, a.Place())
	if err != nil {
		return nil, err
	}
	if !same || system.SystemID != a.SystemIdentifier {
		return nil, &catalog.CopyError{
			Detail: fmt.Sprintf(
				"walhook is attached to %s, and the application's database is %s, or server %s for replication",
				a.Place(), here, system.SystemID,
			),
		}
	}
	slot, err := catalog.InspectSlot(ctx, source, s.cfg.Slot)
	if err != nil {
		return nil, err
	}
	if !slot.Exists {
		return nil, s.cfg.Guard.missingSlotGap()
	}
	if err := slot.CheckPosition(position, position); err != nil {
		return nil, err
	}
	tables, gap, err := s.inspect(ctx, source, a)
	if gap != nil {
		return nil, gap
	}
	if err != nil {
		return nil, err
	}
	return tables, nil
}

// pump runs reader, writer and watch until one of them fails, the context ends, or the reader's end point is reached.
func (s *Stream) pump(ctx context.Context, store *pgx.Conn, r *reader, a *catalog.Attachment, turn int64) error {
	// The reader outlives the context until the writer's last transaction is acknowledged.
	readerCtx, stopReader := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReader()
	writerCtx, stopWriter := context.WithCancel(ctx)
	defer stopWriter()
	storeCtx, cancelStore := extendContext(ctx, drainTimeout)
	defer cancelStore()

	aside, err := readSetAside(ctx, store)
	if err != nil {
		return err
	}
	w := newWriter(s.cfg, store, r, turn)
	w.setAside = aside
	w.key = a.Types[catalog.RoleKey]
	w.storeCtx = storeCtx
	if s.isolateNext {
		w.isolateLeft, s.isolateNext = isolateItems, false
	}
	s.cfg.Queue.Began()
	s.cfg.Status.recordPosition(r.from)
	s.cfg.Status.setPhase(PhaseStreaming, "")
	s.cfg.Log.Info("streaming", "slot", s.cfg.Slot, "lsn", r.from.String())

	readerDone := make(chan error, 1)
	go func() {
		err := r.run(readerCtx)
		stopWriter()
		readerDone <- err
	}()
	watchDone := make(chan error, 1)
	go func() {
		err := s.watch(writerCtx, a)
		var gap *cdc.GapError
		if errors.As(err, &gap) && s.cfg.Reconcile != nil {
			s.reportGap(gap)
		}
		stopWriter()
		watchDone <- err
	}()
	writerErr := w.run(writerCtx)
	stopWriter()
	if ctx.Err() != nil && errors.Is(writerErr, context.Canceled) {
		writerErr = w.flush(storeCtx)
	}
	if cdc.IsRejected(writerErr) {
		s.isolateNext = true
		if w.isolateLeft == 0 {
			writerErr = &rejectedBatchError{writerErr}
		}
	}
	stopReader()
	readerErr := <-readerDone
	// An error of the watch explains errors of the others.
	for _, err := range []error{<-watchDone, readerErr, writerErr} {
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errEndReached) {
			var silent *silenceError
			if errors.As(err, &silent) {
				s.silence.expired(r.from, silent)
			}
			return s.classifyError(err)
		}
	}
	if errors.Is(writerErr, errEndReached) {
		return nil
	}
	return ctx.Err()
}

// extendContext returns a context that ends a while after its parent.
func extendContext(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(grace, cancel)
		context.AfterFunc(longer, func() { timer.Stop() })
	})
	return longer, func() {
		stop()
		cancel()
	}
}

// classifyError converts errors that mean a gap to a *GapError, and returns others unchanged.
func (s *Stream) classifyError(err error) error {
	var (
		missing *MissingColumnError
		retyped *ConditionError
	)
	switch {
	case errors.As(err, &missing), errors.As(err, &retyped):
		return &cdc.GapError{Kind: cdc.ColumnMissing, Detail: err.Error()}
	case cdc.SQLState(err) == pgerrcode.UndefinedObject:
		return &cdc.GapError{
			Kind:   cdc.PublicationChanged,
			Detail: fmt.Sprintf("publication %q does not exist at the stream's position: %s", s.cfg.Publication, err),
		}
	case cdc.SQLState(err) == pgerrcode.ObjectNotInPrerequisiteState:
		return &cdc.GapError{Kind: cdc.SlotLost, Detail: fmt.Sprintf("slot %q was invalidated: %s", s.cfg.Slot, err)}
	}
	return err
}
