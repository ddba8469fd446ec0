package setup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/stream"
	"walhook/sql"
)

// Observation is the state of stream and queue according to the databases. Its JSON is documented in
// docs/reference/status.md.
type Observation struct {
	At            time.Time         `json:"at"`
	OK            bool              `json:"ok"`          // no line fails
	Problems      []string          `json:"problems"`    // the texts of failing lines
	Unreachable   []string          `json:"unreachable"` // "store", "source": the databases that could not be connected to
	Lines         []StatusLine      `json:"lines"`
	Position      string            `json:"position"`    // "" if the store cannot be read
	SlotStatus    string            `json:"slot_status"` // one of SlotStatuses, or slotUnknown
	SlotActive    bool              `json:"slot_active"`
	LagBytes      int64             `json:"lag_bytes"` // WAL that the slot retains
	Daemons       int64             `json:"daemons"`
	SwitchedOn    bool              `json:"switched_on"` // the site's Use Webhooks switch
	Pending       int64             `json:"pending"`
	Estimated     bool              `json:"pending_estimated"` // Pending is an estimate from the server's statistics, as above 10,000
	OldestSeconds float64           `json:"oldest_seconds"`    // age of the oldest delivery that does not wait for a disabled webhook
	FailingCount  int64             `json:"endpoints_in_trouble_count"`
	Endpoints     []FailingEndpoint `json:"endpoints_in_trouble"` // at most maxListed
	OpenCount     int64             `json:"open_incidents_count"`
	Incidents     []OpenIncident    `json:"open_incidents"` // at most maxListed
}

// StatusLine is the verdict on one check of status.
type StatusLine struct {
	Name    string        `json:"name"`
	Verdict catalog.Level `json:"verdict"`
	Text    string        `json:"text"`
}

// slotUnknown is the status of a slot that could not be inspected.
const slotUnknown = "unknown"

// FailingEndpoint is an endpoint whose latest attempts failed.
type FailingEndpoint struct {
	Host         string  `json:"host"`     // scheme and host
	Webhooks     []int64 `json:"webhooks"` // ids of its enabled webhooks, at most maxListed
	Failures     int     `json:"failures"`
	Error        string  `json:"error"`
	SinceSeconds float64 `json:"since_seconds"`
}

// OpenIncident is an incident that has not been resolved.
type OpenIncident struct {
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"`
	Detail string    `json:"detail"`
}

// maxListed bounds how many endpoints, incidents and daemons are listed.
const maxListed = 20

// Observe reads the state. A check that cannot run fails. The cost does not grow with the queue.
func Observe(ctx context.Context, sourceURL, storeURL, slot string) *Observation {
	o := &Observation{
		At: time.Now().UTC(), Problems: []string{}, Unreachable: []string{}, SlotStatus: slotUnknown,
		Endpoints: []FailingEndpoint{}, Incidents: []OpenIncident{},
	}
	o.observe(ctx, sourceURL, storeURL, slot)
	order := []string{
		"store", "attachment", "source", "slot", "lag", "daemons", "daemon", "log", "switch", "queue", "endpoint",
		"incident",
	}
	slices.SortStableFunc(o.Lines, func(a, b StatusLine) int {
		return cmp.Compare(slices.Index(order, a.Name), slices.Index(order, b.Name))
	})
	for _, l := range o.Lines {
		if l.Verdict == catalog.Fail {
			o.Problems = append(o.Problems, l.Text)
		}
	}
	o.OK = len(o.Problems) == 0
	return o
}

func (o *Observation) line(verdict catalog.Level, name, format string, args ...any) {
	o.Lines = append(o.Lines, StatusLine{Name: name, Verdict: verdict, Text: fmt.Sprintf(format, args...)})
}

// observe checks the databases that can be reached. If they are not the attached ones, it reports only that.
func (o *Observation) observe(ctx context.Context, sourceURL, storeURL, slot string) {
	store := o.connect(ctx, "store", storeURL, catalog.ConnectStore)
	source := o.connect(ctx, "source", sourceURL, catalog.ConnectSource)
	for _, conn := range []*pgx.Conn{store, source} {
		if conn != nil {
			defer catalog.CloseQuietly(conn)
		}
	}
	if store != nil {
		version := sql.CheckVersion(ctx, store)
		if source != nil {
			err, copied := catalog.CheckOriginal(ctx, source, store), (*catalog.CopyError)(nil)
			if errors.As(err, &copied) || err != nil && version == nil {
				o.line(catalog.Fail, "attachment", "%v", err)
				return
			}
		}
		if version != nil {
			o.line(catalog.Fail, "store", "%v", version)
			store = nil
		}
	}
	var position *cdc.Position
	if store != nil {
		position = o.observeStore(ctx, store, slot)
	}
	if source != nil {
		o.observeSource(ctx, source, store, slot, position)
	}
}

// connect returns nil if walhook cannot work on the database.
func (o *Observation) connect(
	ctx context.Context, name, url string, connect func(context.Context, string) (*pgx.Conn, error),
) *pgx.Conn {
	conn, err := connect(ctx, url)
	if err != nil {
		o.Unreachable = append(o.Unreachable, name)
		o.line(catalog.Fail, name, "%v", err)
		return nil
	}
	var standby bool
	if err := conn.QueryRow(ctx, "select pg_catalog.pg_is_in_recovery()").Scan(&standby); err != nil {
		o.line(catalog.Fail, name, "check whether the server is a standby: %v", err)
	} else if standby {
		o.line(catalog.Fail, name, "the %s is a standby, which walhook cannot work on: connect to its primary", name)
	} else {
		return conn
	}
	catalog.CloseQuietly(conn)
	return nil
}

// observeStore checks the store, and returns the stored position, nil if it cannot be read.
func (o *Observation) observeStore(ctx context.Context, store *pgx.Conn, slot string) *cdc.Position {
	attachment, position, err := catalog.ReadAttached(ctx, store)
	if err != nil {
		o.line(catalog.Fail, "attachment", "%v", err)
		return nil
	}
	if attachment.Slot != slot {
		o.line(catalog.Fail, "attachment", "slot %q was attached, and WALHOOK_SLOT is %q: set it back", attachment.Slot,
			slot)
	}
	o.Position = position.String()
	for _, part := range []struct {
		name    string
		observe func(context.Context, *pgx.Conn) error
	}{
		{"daemons", o.observeDaemons},
		{"log", o.observeLog},
		{"queue", o.observeQueue},
		{"endpoint", o.observeEndpoints},
		{"incident", o.observeIncidents},
	} {
		if err := part.observe(ctx, store); err != nil {
			o.line(catalog.Fail, part.name, "cannot be read: %v", err)
		}
	}
	return &position
}

// observeSource checks the slot. Without a position it cannot know whether the slot continues there, or who reads it.
func (o *Observation) observeSource(ctx context.Context, source, store *pgx.Conn, slot string, position *cdc.Position) {
	s, err := catalog.InspectSlot(ctx, source, slot)
	var stored *storeReading
	if err == nil && position != nil {
		stored = &storeReading{before: *position, daemons: o.Daemons}
		if stored.after, _, err = catalog.ReadPosition(ctx, store); err == nil {
			args := sql.Args{"key": catalog.AttachLock}
			err = store.QueryRow(ctx, sql.SlotHandover.SQL, sql.SlotHandover.Bind(args)...).Scan(&stored.handover)
		}
	}
	if err != nil {
		o.line(catalog.Fail, "slot", "%v", err)
		return
	}
	o.SlotStatus, o.SlotActive, o.LagBytes = stream.SlotStatus(s), s.ActivePID != nil, s.Retained
	verdict, text := slotVerdict(s, stored)
	o.line(verdict, "slot", "%s", text)
	if s.Exists {
		verdict, text := catalog.OK, catalog.FormatBytes(s.Retained)+" of WAL are retained"
		if position != nil {
			text += "; the stored position is " + position.String()
		}
		if danger := stream.SlotDanger(s, 0); danger != "" {
			verdict, text = catalog.Warn, danger
		}
		if s.WALStatus == "lost" {
			verdict, text = catalog.Fail, "unknown: the slot was invalidated and retains no WAL"
		}
		o.line(verdict, "lag", "%s", text)
	}
}

// storeReading is the store's view of the slot: the stored positions before and after the slot was inspected, the
// number of live daemons, and whether one of them is about to read the slot again.
type storeReading struct {
	before, after cdc.Position
	daemons       int64
	handover      bool
}

// slotVerdict judges the slot. stored is nil if the store cannot be read.
func slotVerdict(s *catalog.Slot, stored *storeReading) (catalog.Level, string) {
	switch {
	case !s.Exists && stored == nil:
		return catalog.Fail, fmt.Sprintf("%q does not exist", s.Name)
	case !s.Exists:
		return catalog.Fail, fmt.Sprintf(
			"%q does not exist: walhook run or walhook reconcile creates a new one and fires what was missed", s.Name)
	case s.IsForeign():
		return catalog.Fail, s.DescribeForeign() + "; " + catalog.OtherSlotRemedy
	case stored != nil:
		if err := s.CheckPosition(stored.before, stored.after); err != nil {
			return catalog.Fail, err.Error()
		}
	}
	switch {
	case s.WALStatus == "lost":
		return catalog.Fail, s.DescribeLost()
	case s.WALStatus == "unreserved":
		return catalog.Fail, stream.SlotDanger(s, 0)
	case stored == nil && s.ActivePID == nil:
		return catalog.Fail, fmt.Sprintf("nobody reads slot %q, which keeps WAL meanwhile", s.Name)
	case stored == nil:
		return catalog.OK, fmt.Sprintf("%q is %s and read by process %d of the server", s.Name, stream.SlotStatus(s), *s.ActivePID)
	case s.ActivePID == nil && stored.daemons == 0:
		return catalog.Fail, fmt.Sprintf(
			"nobody reads slot %q, which keeps WAL meanwhile: start walhook run, or walhook detach", s.Name)
	case s.ActivePID == nil && stored.handover:
		return catalog.Warn, fmt.Sprintf(
			"nobody reads slot %q at the moment: the table is being compared, or a daemon is about to read it", s.Name)
	case s.ActivePID == nil:
		return catalog.Fail, fmt.Sprintf(
			"nobody reads slot %q, which keeps WAL meanwhile, although a daemon is running: /readyz and its log say why",
			s.Name,
		)
	case stored.daemons == 0:
		return catalog.Fail, fmt.Sprintf(
			"slot %q is read by process %d of the server, and no daemon of this store lives: see pg_stat_activity",
			s.Name, *s.ActivePID,
		)
	}
	return catalog.OK, fmt.Sprintf("%q is %s and read by a daemon", s.Name, stream.SlotStatus(s))
}

func (o *Observation) observeDaemons(ctx context.Context, store *pgx.Conn) error {
	if err := store.QueryRow(ctx, sql.Overview.SQL).Scan(&o.FailingCount, nil, nil, &o.Daemons, &o.SwitchedOn); err != nil {
		return fmt.Errorf("read the daemons and endpoints: %w", err)
	}
	if !o.SwitchedOn {
		o.line(catalog.Warn, "switch", "webhooks are switched off: nothing is queued and nothing is sent")
	}
	if o.Daemons == 0 {
		o.line(catalog.Fail, "daemons", "no daemon is running: start walhook run")
		return nil
	}
	reports, err := readDaemonReports(ctx, store)
	if err != nil {
		return err
	}
	var names []string
	for _, r := range reports {
		names = append(names, r.name)
		if verdict, trouble := r.judge(); verdict != catalog.OK {
			o.line(verdict, "daemon", "%s", trouble)
		}
	}
	text := strings.Join(names, ", ")
	if more := o.Daemons - int64(len(names)); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	o.line(catalog.OK, "daemons", "%d: %s", o.Daemons, text)
	return nil
}

func (o *Observation) observeLog(ctx context.Context, store *pgx.Conn) error {
	var ahead *time.Duration
	if err := store.QueryRow(ctx, sql.LogCovered.SQL).Scan(&ahead); err != nil {
		return fmt.Errorf("read how far ahead the log has partitions: %w", err)
	}
	switch {
	case ahead == nil && o.Daemons > 0:
		o.line(catalog.Fail, "log",
			"it has no partition for now, and results go to walhook.log_overflow: "+
				"the daemon's log and walhook.incident say why")
	case ahead == nil:
		o.line(catalog.OK, "log", "it has no partition for now: a daemon creates them")
	default:
		o.line(catalog.OK, "log", "it has partitions for the next %s", formatAhead(*ahead))
	}
	return nil
}

// formatAhead formats a duration, in days if it is long.
func formatAhead(d time.Duration) string {
	if days := d / (24 * time.Hour); days > 2 {
		return fmt.Sprintf("%d days", days)
	}
	return d.Round(time.Second).String()
}

func (o *Observation) observeQueue(ctx context.Context, store *pgx.Conn) error {
	depth, err := readQueueDepth(ctx, store)
	if err != nil {
		return err
	}
	o.Pending, o.Estimated, o.OldestSeconds = depth.pending, depth.estimated, depth.oldestSeconds
	text := depth.String() + " pending"
	if o.OldestSeconds > 0 {
		text += fmt.Sprintf(", the oldest for an enabled webhook for %.0f s", o.OldestSeconds)
	}
	o.line(catalog.OK, "queue", "%s", text)
	return nil
}

func (o *Observation) observeEndpoints(ctx context.Context, store *pgx.Conn) error {
	rows, err := store.Query(ctx, sql.TroubledEndpoints.SQL, sql.TroubledEndpoints.Bind(sql.Args{"max": maxListed})...)
	if err != nil {
		return fmt.Errorf("read the endpoints: %w", err)
	}
	if o.Endpoints, err = pgx.CollectRows(rows, pgx.RowToStructByPos[FailingEndpoint]); err != nil {
		return fmt.Errorf("read the endpoints: %w", err)
	}
	for _, e := range o.Endpoints {
		failures := "1 failure"
		if e.Failures > 1 {
			failures = fmt.Sprintf("%d failures in a row", e.Failures)
		}
		webhooks := "webhook "
		if len(e.Webhooks) > 1 {
			webhooks = "webhooks "
		}
		webhooks += strings.ReplaceAll(strings.Trim(fmt.Sprint(e.Webhooks), "[]"), " ", ", ")
		o.line(catalog.Warn, "endpoint", "%s (%s): %s, %s", e.Host, webhooks, failures, e.Error)
	}
	if more := o.FailingCount - int64(len(o.Endpoints)); more > 0 {
		o.line(catalog.Warn, "endpoint", "and %d more", more)
	}
	return nil
}

func (o *Observation) observeIncidents(ctx context.Context, store *pgx.Conn) error {
	rows, err := store.Query(ctx, sql.OpenIncidents.SQL, sql.OpenIncidents.Bind(sql.Args{"max": maxListed})...)
	if err != nil {
		return fmt.Errorf("read the incidents: %w", err)
	}
	var i OpenIncident
	_, err = pgx.ForEachRow(rows, []any{&i.At, &i.Kind, &i.Detail, &o.OpenCount}, func() error {
		i.At = i.At.UTC()
		o.Incidents = append(o.Incidents, i)
		verdict := catalog.Fail
		if i.Kind == cdc.SwitchedOff {
			verdict = catalog.Warn // intended by an administrator
		}
		o.line(verdict, "incident", "%s: %s (since %s)", i.Kind, i.Detail, i.At.Format(time.DateTime+"Z"))
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the incidents: %w", err)
	}
	if more := o.OpenCount - int64(len(o.Incidents)); more > 0 {
		o.line(catalog.Fail, "incident", "and %d more are open", more)
	}
	return nil
}

// queueDepth is the result of the query QueueDepth.
type queueDepth struct {
	pending       int64
	estimated     bool
	oldestSeconds float64 // age of the oldest delivery that does not wait for a disabled webhook
}

// readQueueDepth reads the queue's depth. It leaves the session in the mode of sql.ByIndex.
func readQueueDepth(ctx context.Context, store *pgx.Conn) (d queueDepth, err error) {
	if err := sql.ByIndex(ctx, store); err != nil {
		return d, err
	}
	if err := store.QueryRow(ctx, sql.QueueDepth.SQL).Scan(&d.pending, &d.estimated, &d.oldestSeconds); err != nil {
		return d, fmt.Errorf("read the queue: %w", err)
	}
	return d, nil
}

// String returns the number of deliveries.
func (d queueDepth) String() string { return FormatPending(d.pending, d.estimated) }

// FormatPending formats a number of pending deliveries, which may be an estimate.
func FormatPending(pending int64, estimated bool) string {
	if estimated {
		return fmt.Sprintf("about %d", pending)
	}
	return fmt.Sprint(pending)
}
