package cdc

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/sql"
)

// Observation is where stream and queue stand, as the databases tell.
type Observation struct {
	OK            bool             `json:"ok"`
	Position      string           `json:"position"`
	SlotStatus    string           `json:"slot_status"` // reserved, extended, unreserved, lost or missing
	SlotActive    bool             `json:"slot_active"`
	LagBytes      int64            `json:"lag_bytes"` // WAL that the slot holds back
	Daemons       int64            `json:"daemons"`
	Pending       int64            `json:"pending"`
	OldestSeconds float64          `json:"oldest_seconds"`
	Endpoints     []TroubledTarget `json:"endpoints_in_trouble"`
	Incidents     []OpenIncident   `json:"open_incidents"`
}

// TroubledTarget is an endpoint whose last attempts failed.
type TroubledTarget struct {
	Host     string `json:"host"` // scheme and host
	Failures int    `json:"failures"`
	Error    string `json:"error"`
}

// OpenIncident is an incident that has not been resolved.
type OpenIncident struct {
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"`
	Detail string    `json:"detail"`
}

// Observe reads it.
func Observe(ctx context.Context, sourceURL, storeURL, slot string) (*Observation, error) {
	store, err := ConnectStore(ctx, storeURL)
	if err != nil {
		return nil, err
	}
	defer closeQuietly(store)
	if err := sql.CheckVersion(ctx, store); err != nil {
		return nil, err
	}
	_, position, err := ReadAttached(ctx, store)
	if err != nil {
		return nil, err
	}
	source, err := ConnectSource(ctx, sourceURL)
	if err != nil {
		return nil, err
	}
	defer closeQuietly(source)
	s, err := inspectSlot(ctx, source, slot)
	if err != nil {
		return nil, err
	}
	o := &Observation{Position: position.String(), SlotStatus: s.WALStatus, SlotActive: s.ActivePID != nil, LagBytes: s.Retained}
	if !s.Exists {
		o.SlotStatus = "missing"
	}
	err = store.QueryRow(ctx, `
		select (select count(*) from walhook.daemon where expires_at > now()), (select count(*) from walhook.queue),
		       (select coalesce(extract(epoch from now() - min(committed_at)), 0)::float8 from walhook.queue)`).Scan(&o.Daemons, &o.Pending, &o.OldestSeconds)
	if err != nil {
		return nil, fmt.Errorf("look at the queue: %w", err)
	}
	rows, err := store.Query(ctx, `select walhook.display_url(url), failures, coalesce(last_error, '') from walhook.endpoint where failures > 0 order by failures desc limit 20`)
	if err != nil {
		return nil, fmt.Errorf("look at the endpoints: %w", err)
	}
	if o.Endpoints, err = pgx.CollectRows(rows, pgx.RowToStructByPos[TroubledTarget]); err != nil {
		return nil, fmt.Errorf("look at the endpoints: %w", err)
	}
	rows, err = store.Query(ctx, `select at, kind, detail from walhook.incident where resolved_at is null order by at desc limit 20`)
	if err != nil {
		return nil, fmt.Errorf("look at the incidents: %w", err)
	}
	if o.Incidents, err = pgx.CollectRows(rows, pgx.RowToStructByPos[OpenIncident]); err != nil {
		return nil, fmt.Errorf("look at the incidents: %w", err)
	}
	// What an administrator has switched off is no fault.
	troubled := slices.ContainsFunc(o.Incidents, func(i OpenIncident) bool { return i.Kind != "switched_off" })
	o.OK = s.continues(position) == nil && o.SlotActive && !troubled
	return o, nil
}
