package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/dispatch/post"
)

// delivery is the JSON of a row d of the log.
const delivery = `json_build_object(
	'delivery_id', d.delivery_id, 'webhook_id', d.webhook_id, 'event_type', d.event_type, 'response_id', d.response_id, 'status', d.status,
	'attempts', d.attempts, 'delivered_at', d.delivered_at_tz, 'http_status', d.http_status, 'error', d.error, 'next_attempt_at', d.next_attempt_at_tz,
	'test', d.test, 'recovered', d.recovered, 'redelivery_of', d.redelivery_of, 'message_id', d.message_id)`

// place is a delivery's place in the list. A cursor contains it.
type place struct {
	DeliveredAt *time.Time `json:"t,omitempty"`
	DeliveryID  int64      `json:"d"`
}

func listDeliveries(r *request) (reply, error) {
	query, err := r.query("webhook_id", "event_type", "status", "response_id", "since", "until", "cursor", "limit")
	if err != nil {
		return reply{}, err
	}
	event, err := r.event(query)
	if err != nil {
		return reply{}, err
	}
	var webhook *int64
	if sent := query.Get("webhook_id"); sent != "" {
		id, ok := readID(sent)
		if !ok {
			return reply{}, badField("webhook_id", "webhook_id must be the id of a webhook, a number.")
		}
		webhook = &id
	}
	switch query.Get("status") {
	case "", "pending", "success", "failed":
	default:
		return reply{}, badField("status", "status must be pending, success or failed.")
	}
	since, err := readTime("since", query.Get("since"))
	if err != nil {
		return reply{}, err
	}
	until, err := readTime("until", query.Get("until"))
	if err != nil {
		return reply{}, err
	}
	limit, err := limit(query, 50)
	if err != nil {
		return reply{}, err
	}
	var before place
	if cursor := query.Get("cursor"); cursor != "" {
		if err := readCursor(cursor, &before); err != nil {
			return reply{}, err
		}
	}

	rows, err := r.tx.Query(r.Context(), "select d.delivered_at_tz, d.delivery_id, d.status is not null, "+delivery+`
		from walhook.delivery_page($1, nullif($2, ''), nullif($3, ''), null, nullif($4, ''), $5, $6,
			walhook.local_time($7), nullif($8, 0), $9) d`,
		webhook, event, query.Get("status"), query.Get("response_id"), given(since), given(until),
		before.DeliveredAt, before.DeliveryID, limit+1)
	if err != nil {
		return reply{}, fmt.Errorf("list deliveries: %w", err)
	}
	var places []place
	var data []json.RawMessage
	var at place
	var found bool
	var one json.RawMessage
	if _, err := pgx.ForEachRow(rows, []any{&at.DeliveredAt, &at.DeliveryID, &found, &one}, func() error {
		places, data = append(places, at), append(data, one)
		at, one = place{}, nil
		return nil
	}); err != nil {
		return reply{}, fmt.Errorf("list deliveries: %w", err)
	}
	switch n := len(data); {
	case n > 0 && !found: // the last row shows how far the search went
		return r.list(data[:n-1], query, places[n-1]), nil
	case n > limit:
		return r.list(data[:limit], query, places[limit-1]), nil
	}
	return r.list(data, query, nil), nil
}

// given returns nil for no time.
func given(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func getDelivery(r *request) (reply, error) {
	id, err := r.pathID("delivery")
	if err != nil {
		return reply{}, err
	}
	var one, attempts json.RawMessage
	err = r.tx.QueryRow(r.Context(), `
		select `+delivery+`, coalesce((
		         select json_agg(json_build_object('attempt', a.attempt, 'attempted_at', a.attempted_at_tz, 'duration_ms', a.duration_ms,
		                                           'http_status', a.http_status, 'error', a.error, 'succeeded', a.succeeded) order by a.attempt)
		           from walhook.delivery_attempt a where a.delivery_id = d.delivery_id), '[]')
		  from walhook.visible_delivery d where d.delivery_id = $1`, id).Scan(&one, &attempts)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return reply{}, notFound("delivery")
	case err != nil:
		return reply{}, fmt.Errorf("read delivery: %w", err)
	}
	with := strings.TrimSuffix(string(one), "}") + `,"delivery_attempts":` + string(attempts) + "}"
	return reply{status: http.StatusOK, body: json.RawMessage(with)}, nil
}

func redeliver(r *request) (reply, error) {
	id, err := r.pathID("delivery")
	if err != nil {
		return reply{}, err
	}
	if _, err := r.fields(nil, nil); err != nil {
		return reply{}, err
	}
	return r.queued("delivery_id", "select walhook.redeliver($1)", id)
}

// samples answers with bodies, byte for byte as webhooks get them.
func samples(r *request) (reply, error) {
	query, err := r.query("event_type", "assessment_id", "limit")
	if err != nil {
		return reply{}, err
	}
	limit, err := limit(query, 10)
	if err != nil {
		return reply{}, err
	}
	rows, err := r.tx.Query(r.Context(), `
		select s.event, s.happened_at, s.response_id, s.numeric_id from walhook.samples(nullif($1, ''), nullif($2, ''), $3) s`,
		query.Get("event_type"), query.Get("assessment_id"), limit)
	if err != nil {
		return reply{}, fmt.Errorf("read samples: %w", err)
	}
	bodies := []json.RawMessage{}
	var event, response string
	var happened time.Time
	var numeric bool
	if _, err := pgx.ForEachRow(rows, []any{&event, &happened, &response, &numeric}, func() error {
		bodies = append(bodies, post.AppendBody(nil, event, happened, response, numeric))
		return nil
	}); err != nil {
		return reply{}, fmt.Errorf("read samples: %w", err)
	}
	return reply{status: http.StatusOK, body: bodies}, nil
}
