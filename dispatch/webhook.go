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

// webhook is what the senders know of a row of walhook.webhook. It never changes; a reload replaces those that changed.
type webhook struct {
	id         int64
	endpointID int64
	edition    int64 // xmin of its row: another after every edit
	activation int64 // another after a new URL, and after it was enabled again
	enabled    bool
	ordered    bool
	logged     bool
	target     *post.Target
	broken     error // why target is nil
	url        string
	secret     string
	previous   string    // the secret before, used as well
	until      time.Time // of previous, as the store has it

	// leftAt are the endpoints of URLs that it had before, where attempts may be in flight. Until these have ended nothing is
	// sent to the present one: it would be sent twice.
	leftAt []int64
}

// display is its URL as everybody may see it.
func (w *webhook) display() string { return post.DisplayURL(w.url) }

// moving reports whether attempts may be in flight at a URL that the webhook had before.
func (w *webhook) moving() bool { return len(w.leftAt) > 0 }

// same reports whether nothing changed that deliveries in memory depend on.
func (w *webhook) same(o *webhook) bool {
	return o != nil && w.edition == o.edition && w.moving() == o.moving()
}

// editionOf tells one state of a URL's webhooks from any other, as the store tells it in Enqueue.
func editionOf(hooks []*webhook) (edition int64) {
	for _, h := range hooks {
		edition += h.edition * (h.id%1021 + 1)
	}
	return edition
}

// webhooks are all webhooks at one moment.
type webhooks struct {
	version string
	enabled bool // the site's Use Webhooks switch
	moves   bool // webhooks have left URLs
	numeric bool // the key is a JSON number
	byID    map[int64]*webhook
}

// loadVersion returns webhooks of which only that is known which can be told without reading them all. Their version is a text
// that changes with any webhook and the settings.
func loadVersion(ctx context.Context, pool *pgxpool.Pool) (*webhooks, error) {
	w := &webhooks{byID: map[int64]*webhook{}}
	var moves int64
	if err := pool.QueryRow(ctx, sql.WebhooksVersion.SQL).Scan(&w.version, &w.enabled, &moves, &w.numeric); err != nil {
		return nil, fmt.Errorf("look whether webhooks changed: %w", err)
	}
	w.moves = moves > 0
	return w, nil
}

// loadWebhooks returns all webhooks. Of those known before it reads only the ones that changed; the others are taken over as they are.
func loadWebhooks(ctx context.Context, pool *pgxpool.Pool, before *webhooks) (*webhooks, error) {
	// The version is read first: a change in between is then loaded twice, never missed.
	loaded, err := loadVersion(ctx, pool)
	if err != nil {
		return nil, err
	}
	changed, err := loaded.takeUnchanged(ctx, pool, before)
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

// takeUnchanged takes over the webhooks that are as they were before, and returns the ids of the others.
func (w *webhooks) takeUnchanged(ctx context.Context, pool *pgxpool.Pool, before *webhooks) (changed []int64, err error) {
	rows, err := pool.Query(ctx, sql.WebhookEditions.SQL)
	if err != nil {
		return nil, fmt.Errorf("look which webhooks changed: %w", err)
	}
	var id, edition int64
	var left []int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &edition, &left}, func() error {
		if old := before.byID[id]; old != nil && old.edition == edition && slices.Equal(old.leftAt, left) {
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

// scanWebhook reads a webhook. Its target is taken over from before where it is the same.
func scanWebhook(rows pgx.Rows, before *webhooks) (*webhook, error) {
	var (
		w         webhook
		eventType string

		secret, previous *string
		until            *time.Time
		left             *time.Duration
	)
	if err := rows.Scan(&w.id, &w.url, &eventType, &w.enabled, &w.ordered, &w.logged, &secret, &previous, &until, &left, &w.endpointID, &w.edition, &w.activation, &w.leftAt); err != nil {
		return nil, fmt.Errorf("load the webhooks: %w", err)
	}
	var secrets []string
	if secret != nil {
		w.secret = *secret
		secrets = append(secrets, *secret)
	}
	if secret != nil && previous != nil && until != nil {
		w.previous, w.until = *previous, *until
		secrets = append(secrets, *previous)
	}
	if old := before.byID[w.id]; old != nil && old.url == w.url && old.secret == w.secret && old.previous == w.previous && old.until.Equal(w.until) {
		w.target, w.broken = old.target, old.broken
		return &w, nil
	}
	w.target, w.broken = post.NewTarget(w.url, secrets...)
	if w.target != nil && w.previous != "" {
		w.target.RetireLastSecret(time.Now().Add(*left))
	}
	return &w, nil
}
