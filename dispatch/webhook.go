package dispatch

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"walhook/dispatch/post"
	"walhook/sql"
)

// webhook is a row of walhook.webhook. It is immutable: a reload replaces the webhooks that have changed.
type webhook struct {
	id             int64
	endpointID     int64
	version        int64 // xmin of its row: changes with every edit
	activation     int64 // changes with a new URL, and when it is enabled again
	enabled        bool
	ordered        bool
	logged         bool
	target         *post.Target
	targetErr      error // why target is nil
	url            string
	secret         string
	previousSecret string    // signs as well until previousUntil
	previousUntil  time.Time // by the store's clock

	// previousEndpoints are endpoints of previous URLs at which attempts may be in flight. Until those have ended,
	// nothing is sent to the current URL, because it might be sent twice.
	previousEndpoints []int64
}

// displayURL is the part of the URL that may be shown to everybody.
func (w *webhook) displayURL() string { return post.DisplayURL(w.url) }

// moving reports whether attempts may be in flight at a previous URL.
func (w *webhook) moving() bool { return len(w.previousEndpoints) > 0 }

// equivalent reports whether nothing differs that deliveries in memory depend on.
func (w *webhook) equivalent(o *webhook) bool {
	return o != nil && w.version == o.version && w.moving() == o.moving()
}

// versionOf returns the version of an endpoint: it changes with any of its webhooks. The query Enqueue computes the
// same.
func versionOf(hooks []*webhook) (version int64) {
	for _, h := range hooks {
		version += h.version * (h.id%1021 + 1)
	}
	return version
}

// webhooks are all webhooks at one moment.
type webhooks struct {
	version   string
	enabled   bool // the site's Use Webhooks switch
	hasMoves  bool // some webhook may have attempts in flight at a previous URL
	numericID bool // ResponseId is a JSON number
	byID      map[int64]*webhook
}

// loadVersion returns webhooks without the webhooks themselves. Their version changes with any webhook and the
// settings.
func loadVersion(ctx context.Context, pool *pgxpool.Pool) (*webhooks, error) {
	w := &webhooks{byID: map[int64]*webhook{}}
	var moves int64
	if err := pool.QueryRow(ctx, sql.WebhooksVersion.SQL).Scan(&w.version, &w.enabled, &moves, &w.numericID); err != nil {
		return nil, fmt.Errorf("look whether webhooks changed: %w", err)
	}
	w.hasMoves = moves > 0
	return w, nil
}

// loadWebhooks returns all webhooks. It reads only those that have changed, and reuses the others.
func loadWebhooks(ctx context.Context, pool *pgxpool.Pool, before *webhooks) (*webhooks, error) {
	// The version is read first: a change in between is then loaded twice, never missed.
	loaded, err := loadVersion(ctx, pool)
	if err != nil {
		return nil, err
	}
	changed, err := loaded.reuseUnchanged(ctx, pool, before)
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
		loaded.byID[w.id] = w
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("load the webhooks: %w", err)
	}
	return loaded, nil
}

// reuseUnchanged adds the webhooks that have not changed, and returns the ids of the others.
func (w *webhooks) reuseUnchanged(ctx context.Context, pool *pgxpool.Pool, before *webhooks) (changed []int64, err error) {
	rows, err := pool.Query(ctx, sql.WebhookVersions.SQL)
	if err != nil {
		return nil, fmt.Errorf("look which webhooks changed: %w", err)
	}
	var id, version int64
	var left []int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &version, &left}, func() error {
		if old := before.byID[id]; old != nil && old.version == version && slices.Equal(old.previousEndpoints, left) {
			w.byID[id] = old
			return nil
		}
		changed = append(changed, id)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look which webhooks changed: %w", err)
	}
	return changed, nil
}

// scanWebhook reads a webhook. It reuses the target if that is the same.
func scanWebhook(rows pgx.Rows, before *webhooks) (*webhook, error) {
	var (
		w         webhook
		eventType string

		secret, previous *string
		until            *time.Time
		left             *time.Duration
	)
	if err := rows.Scan(
		&w.id, &w.url, &eventType, &w.enabled, &w.ordered, &w.logged, &secret, &previous, &until, &left,
		&w.endpointID, &w.version, &w.activation, &w.previousEndpoints,
	); err != nil {
		return nil, fmt.Errorf("load the webhooks: %w", err)
	}
	var secrets []string
	if secret != nil {
		w.secret = *secret
		secrets = append(secrets, *secret)
	}
	if secret != nil && previous != nil && until != nil {
		w.previousSecret, w.previousUntil = *previous, *until
		secrets = append(secrets, *previous)
	}
	if old := before.byID[w.id]; old != nil && old.url == w.url &&
		old.secret == w.secret && old.previousSecret == w.previousSecret && old.previousUntil.Equal(w.previousUntil) {
		w.target, w.targetErr = old.target, old.targetErr
		return &w, nil
	}
	w.target, w.targetErr = post.NewTarget(w.url, secrets...)
	if w.target != nil && w.previousSecret != "" {
		w.target.RetireLastSecret(time.Now().Add(*left))
	}
	return &w, nil
}
