package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/sql"
)

// trackedIncident is an incident that stays open while the watch sees its cause.
type trackedIncident struct {
	known  bool   // the store was read or written since the watch began
	detail string // the recorded detail; "": the incident is not open
}

// trackIncident opens or updates the store's incident of a kind, or resolves it if detail is "". It reports whether
// the detail changed.
func (s *Stream) trackIncident(ctx context.Context, i *trackedIncident, kind, detail string) (changed bool, err error) {
	if i.known && i.detail == detail {
		return false, nil
	}
	query, args := sql.KeepIncident, sql.Args{"kind": kind, "detail": detail}
	if detail == "" {
		query, args = sql.ResolveIncidents, sql.Args{"kinds": []string{kind}}
	}
	err = s.withStore(ctx, func(store *pgx.Conn) error {
		_, err := store.Exec(ctx, query.SQL, query.Bind(args)...)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("record the incident: %w", err)
	}
	changed = i.detail != detail
	*i = trackedIncident{true, detail}
	return changed, nil
}

// trackTemporaryGap keeps an incident of a kind open while detail describes what makes the stream miss changes, and
// reports whether that changed. Once detail is "", it returns the gap that remains, if one was recorded: by tracked, by
// an earlier session, or elsewhere in this one if recorded is set.
func (s *Stream) trackTemporaryGap(
	ctx context.Context, tracked *trackedIncident, kind, detail string, recorded bool, remaining string,
) (changed bool, gap *cdc.GapError, err error) {
	if detail != "" {
		changed, err = s.trackIncident(ctx, tracked, kind, detail)
		return changed, nil, err
	}
	if tracked.known && tracked.detail == "" && !recorded {
		return false, nil, nil
	}
	open, err := s.openGap(ctx, kind)
	if err != nil {
		return false, nil, err
	}
	*tracked = trackedIncident{known: true}
	if open == nil {
		return false, nil, nil
	}
	return false, &cdc.GapError{Kind: kind, Detail: remaining}, nil
}

// withStore runs do with a connection of its own: the stream's belongs to the writer.
func (s *Stream) withStore(ctx context.Context, do func(*pgx.Conn) error) error {
	store, err := catalog.ConnectStore(ctx, s.cfg.StoreURL)
	if err != nil {
		return err
	}
	defer catalog.CloseQuietly(store)
	return do(store)
}

// openGap returns an open gap of one of these kinds, which an earlier session or another daemon recorded, or nil.
func openGap(ctx context.Context, store *pgx.Conn, kinds []string) (*cdc.GapError, error) {
	var gap cdc.GapError
	err := store.QueryRow(ctx, sql.OpenGap.SQL, sql.OpenGap.Bind(sql.Args{"kinds": kinds})...).
		Scan(&gap.Kind, &gap.Detail)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for open gaps: %w", err)
	}
	return &gap, nil
}

// openGap is openGap with a connection of its own.
func (s *Stream) openGap(ctx context.Context, kind string) (gap *cdc.GapError, err error) {
	err = s.withStore(ctx, func(store *pgx.Conn) error {
		gap, err = openGap(ctx, store, []string{kind})
		return err
	})
	return gap, err
}
