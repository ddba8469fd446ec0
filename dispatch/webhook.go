package dispatch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"walhook/dispatch/post"
	"walhook/dispatch/schedule"
	"walhook/sql"
)

// loadVersion returns webhooks without the webhooks themselves. Their version changes with any webhook and the
// settings.
func loadVersion(ctx context.Context, pool *pgxpool.Pool) (*schedule.Webhooks, error) {
	w := &schedule.Webhooks{ByID: map[int64]*schedule.Webhook{}}
	var moves int64
	if err := pool.QueryRow(ctx, sql.WebhooksVersion.SQL).Scan(&w.Version, &w.Enabled, &moves, &w.NumericID); err != nil {
		return nil, fmt.Errorf("check whether webhooks changed: %w", err)
	}
	w.HasMoves = moves > 0
	return w, nil
}

// loadWebhooks returns all webhooks. It reads only those that have changed, and reuses the others.
func loadWebhooks(ctx context.Context, pool *pgxpool.Pool, before *schedule.Webhooks) (*schedule.Webhooks, error) {
	// The version is read first: a change in between is then loaded twice, never missed.
	loaded, err := loadVersion(ctx, pool)
	if err != nil {
		return nil, err
	}
	changed, err := reuseUnchanged(ctx, pool, loaded, before)
	if err != nil || len(changed) == 0 {
		return loaded, err
	}
	rows, err := pool.Query(ctx, sql.LoadWebhooks.SQL, sql.LoadWebhooks.Bind(sql.Args{"webhook_ids": changed})...)
	if err != nil {
		return nil, fmt.Errorf("load the webhooks: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		w, err := scanWebhook(rows, before)
		if err != nil {
			return nil, err
		}
		loaded.ByID[w.ID] = w
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("load the webhooks: %w", err)
	}
	return loaded, nil
}

// reuseUnchanged adds the webhooks that have not changed, and returns the ids of the others.
func reuseUnchanged(ctx context.Context, pool *pgxpool.Pool, loaded, before *schedule.Webhooks) (changed []int64, err error) {
	rows, err := pool.Query(ctx, sql.WebhookVersions.SQL)
	if err != nil {
		return nil, fmt.Errorf("find which webhooks changed: %w", err)
	}
	var id, version int64
	var left []int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &version, &left}, func() error {
		if old := before.ByID[id]; old != nil && old.Version == version && slices.Equal(old.PreviousEndpoints, left) {
			loaded.ByID[id] = old
			return nil
		}
		changed = append(changed, id)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("find which webhooks changed: %w", err)
	}
	return changed, nil
}

// scanWebhook reads a webhook. It reuses the target if that is the same.
func scanWebhook(rows pgx.Rows, before *schedule.Webhooks) (*schedule.Webhook, error) {
	var (
		w         schedule.Webhook
		eventType string

		secret, previous *string
		until            *time.Time
		left             *time.Duration
	)
	if err := rows.Scan(
		&w.ID, &w.URL, &eventType, &w.Enabled, &w.Ordered, &w.Logged, &secret, &previous, &until, &w.Headers, &left,
		&w.EndpointID, &w.Version, &w.Activation, &w.PreviousEndpoints,
	); err != nil {
		return nil, fmt.Errorf("load the webhooks: %w", err)
	}
	var secrets []string
	if secret != nil {
		w.Secret = *secret
		secrets = append(secrets, *secret)
	}
	if secret != nil && previous != nil && until != nil {
		w.PreviousSecret, w.PreviousUntil = *previous, *until
		secrets = append(secrets, *previous)
	}
	if old := before.ByID[w.ID]; old != nil && old.URL == w.URL &&
		old.Secret == w.Secret && old.PreviousSecret == w.PreviousSecret && old.PreviousUntil.Equal(w.PreviousUntil) &&
		maps.Equal(old.Headers, w.Headers) {
		w.Target, w.TargetErr = old.Target, old.TargetErr
		return &w, nil
	}
	w.Target, w.TargetErr = post.NewTarget(w.URL, secrets...)
	if w.Target == nil {
		return &w, nil
	}
	w.Target.SetHeaders(w.Headers)
	if w.PreviousSecret != "" {
		w.Target.RetireLastSecret(time.Now().Add(*left))
	}
	return &w, nil
}
