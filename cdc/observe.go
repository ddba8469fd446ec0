package cdc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/sql"
)

// Observation is where stream and queue stand, as the databases tell. docs/operations.md has its JSON.
type Observation struct {
	At            time.Time        `json:"at"`
	OK            bool             `json:"ok"`
	Problems      []string         `json:"problems"` // why it is not OK; else empty
	Position      string           `json:"position"`
	SlotStatus    string           `json:"slot_status"` // one of SlotStatuses
	SlotActive    bool             `json:"slot_active"`
	LagBytes      int64            `json:"lag_bytes"` // WAL that the slot holds back
	Daemons       int64            `json:"daemons"`
	SwitchedOn    bool             `json:"switched_on"` // the site's Use Webhooks switch
	Pending       int64            `json:"pending"`
	Estimated     bool             `json:"pending_estimated"` // Pending is one from the server's statistics, as it is beyond 10,000
	OldestSeconds float64          `json:"oldest_seconds"`    // age of the oldest that does not wait for a disabled webhook
	Troubled      int64            `json:"endpoints_in_trouble_count"`
	Endpoints     []TroubledTarget `json:"endpoints_in_trouble"` // at most observedRows
	Incidents     []OpenIncident   `json:"open_incidents"`       // at most observedRows
}

// TroubledTarget is an endpoint whose last attempts failed.
type TroubledTarget struct {
	Host         string  `json:"host"`     // scheme and host
	Webhooks     []int64 `json:"webhooks"` // ids of those enabled that go there, at most observedRows
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

// observedRows bounds how many endpoints and incidents are told of.
const observedRows = 20

// Observe reads it. The cost does not grow with the queue.
func Observe(ctx context.Context, sourceURL, storeURL, slot string) (*Observation, error) {
	store, err := ConnectStore(ctx, storeURL)
	if err != nil {
		return nil, err
	}
	defer closeQuietly(store)
	if err := sql.CheckVersion(ctx, store); err != nil {
		return nil, err
	}
	source, err := ConnectSource(ctx, sourceURL)
	if err != nil {
		return nil, err
	}
	defer closeQuietly(source)
	if err := checkIdentity(ctx, source, store); err != nil {
		return nil, err
	}
	_, position, err := ReadAttached(ctx, store)
	if err != nil {
		return nil, err
	}
	s, err := inspectSlot(ctx, source, slot)
	if err != nil {
		return nil, err
	}
	o := &Observation{At: time.Now().UTC(), Position: position.String(), SlotStatus: s.status(), SlotActive: s.ActivePID != nil, LagBytes: s.Retained}
	if err := o.lookAtStore(ctx, store); err != nil {
		return nil, err
	}
	o.Problems = []string{}
	if err := s.continues(position); err != nil {
		o.Problems = append(o.Problems, err.Error())
	}
	if s.Exists && !o.SlotActive {
		o.Problems = append(o.Problems, fmt.Sprintf("nobody reads slot %q, which keeps WAL meanwhile: start walhook run, or look in its log", slot))
	}
	for _, i := range o.Incidents {
		if i.Kind != "switched_off" { // an administrator wants it so
			o.Problems = append(o.Problems, i.Kind+": "+i.Detail)
		}
	}
	o.OK = len(o.Problems) == 0
	return o, nil
}

func (o *Observation) lookAtStore(ctx context.Context, store *pgx.Conn) (err error) {
	depth, err := lookAtQueue(ctx, store)
	if err != nil {
		return err
	}
	o.Pending, o.Estimated, o.OldestSeconds = depth.pending, depth.estimated, depth.oldestSeconds
	if err := store.QueryRow(ctx, sql.Overview.SQL).Scan(&o.Troubled, nil, nil, &o.Daemons, &o.SwitchedOn); err != nil {
		return fmt.Errorf("look at the daemons and endpoints: %w", err)
	}
	rows, err := store.Query(ctx, sql.TroubledEndpoints.SQL, sql.TroubledEndpoints.Bind(sql.Args{"max": observedRows})...)
	if err != nil {
		return fmt.Errorf("look at the endpoints: %w", err)
	}
	if o.Endpoints, err = pgx.CollectRows(rows, pgx.RowToStructByPos[TroubledTarget]); err != nil {
		return fmt.Errorf("look at the endpoints: %w", err)
	}
	rows, err = store.Query(ctx, sql.OpenIncidents.SQL, sql.OpenIncidents.Bind(sql.Args{"max": observedRows})...)
	if err != nil {
		return fmt.Errorf("look at the incidents: %w", err)
	}
	if o.Incidents, err = pgx.CollectRows(rows, pgx.RowToStructByPos[OpenIncident]); err != nil {
		return fmt.Errorf("look at the incidents: %w", err)
	}
	for i := range o.Incidents {
		o.Incidents[i].At = o.Incidents[i].At.UTC()
	}
	return nil
}

// queueDepth is how much is pending, as the query QueueDepth tells.
type queueDepth struct {
	pending       int64
	estimated     bool
	oldestSeconds float64 // age of the oldest that does not wait for a disabled webhook
}

// lookAtQueue asks for it, and leaves the session one that looks rows up by index.
func lookAtQueue(ctx context.Context, store *pgx.Conn) (d queueDepth, err error) {
	if err := sql.ByIndex(ctx, store); err != nil {
		return d, err
	}
	if err := store.QueryRow(ctx, sql.QueueDepth.SQL).Scan(&d.pending, &d.estimated, &d.oldestSeconds); err != nil {
		return d, fmt.Errorf("look at the queue: %w", err)
	}
	return d, nil
}

// String is the number of deliveries in words.
func (d queueDepth) String() string { return PendingText(d.pending, d.estimated) }

// PendingText tells how many deliveries are pending, and that it is an estimate where it is one.
func PendingText(pending int64, estimated bool) string {
	if estimated {
		return fmt.Sprintf("about %d", pending)
	}
	return fmt.Sprint(pending)
}
