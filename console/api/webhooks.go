package api

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"
)

var (
	createFields = map[string]kind{
		"url": text, "event_type": text, "assessment_id": id, "organization_id": id, "description": text, "headers": object, "ordered": boolean,
	}
	changeFields = map[string]kind{
		"url": text, "event_type": text, "assessment_id": id, "organization_id": id, "description": text, "headers": object, "ordered": boolean,
		"enabled": boolean, "log_successes": boolean,
	}
	// What automation platforms call these fields.
	aliases = map[string]string{"target_url": "url", "targetUrl": "url", "hookUrl": "url", "event": "event_type"}
)

func me(r *request) (reply, error) {
	if _, err := r.query(); err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusOK, body: r.key}, nil
}

func listWebhooks(r *request) (reply, error) {
	query, err := r.query("url", "event_type", "assessment_id", "cursor", "limit")
	if err != nil {
		return reply{}, err
	}
	limit, err := limit(query, 50)
	if err != nil {
		return reply{}, err
	}
	event, err := r.event(query)
	if err != nil {
		return reply{}, err
	}
	var after int64
	if cursor := query.Get("cursor"); cursor != "" {
		if err := readCursor(cursor, &after); err != nil {
			return reply{}, err
		}
	}
	rows, err := r.tx.Query(r.Context(), `
		select p.id, row_to_json(p)
		  from (select w.* from walhook.api_webhook w
		         where w.id > $1 and ($2 = '' or w.url = $2) and ($3 = '' or w.event_type = $3)
		           and ($4 = '' or w.assessment_id = $4)
		         order by w.id limit $5) p
		 order by p.id`,
		after, strings.TrimSpace(query.Get("url")), event, query.Get("assessment_id"), limit+1)
	if err != nil {
		return reply{}, fmt.Errorf("list webhooks: %w", err)
	}
	var ids []int64
	var data []json.RawMessage
	var id int64
	var webhook json.RawMessage
	if _, err := pgx.ForEachRow(rows, []any{&id, &webhook}, func() error {
		ids, data = append(ids, id), append(data, webhook)
		webhook = nil
		return nil
	}); err != nil {
		return reply{}, fmt.Errorf("list webhooks: %w", err)
	}
	if len(data) > limit {
		return r.list(data[:limit], query, ids[limit-1]), nil
	}
	return r.list(data, query, nil), nil
}

// webhook returns the webhook as JSON, as far as the key may see it, and a header with its ETag.
func (r *request) webhook(id int64) (webhook json.RawMessage, header http.Header, err error) {
	err = r.tx.QueryRow(r.Context(), "select row_to_json(w) from walhook.api_webhook w where w.id = $1", id).Scan(&webhook)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil, notFound("webhook")
	case err != nil:
		return nil, nil, fmt.Errorf("read webhook: %w", err)
	}
	return webhook, http.Header{"Etag": {fmt.Sprintf(`"%x"`, sha256.Sum256(webhook))}}, nil
}

func createWebhook(r *request) (reply, error) {
	fields, err := r.fields(createFields, aliases)
	if err != nil {
		return reply{}, err
	}
	if _, ok := fields["ordered"]; !ok {
		fields["ordered"] = true
	}
	var id int64
	var secret *string
	if err := r.tx.QueryRow(r.Context(), `
		select c.id, c.new_secret
		  from jsonb_to_record($1) f (url text, event_type text, assessment_id text, organization_id text,
		                              description text, headers jsonb, ordered boolean)
		 cross join lateral walhook.create_webhook(f.url, f.event_type, f.assessment_id, f.organization_id,
		                                           f.description, f.headers, f.ordered) c`, fields).
		Scan(&id, &secret); err != nil {
		return reply{}, fmt.Errorf("create webhook: %w", err)
	}
	webhook, header, err := r.webhook(id)
	if err != nil {
		return reply{}, err
	}
	header.Set("Location", fmt.Sprintf("%s%s/webhooks/%d", r.api.URL, prefix, id))
	if secret == nil {
		return reply{status: http.StatusOK, header: header, body: webhook}, nil
	}
	quoted, err := json.Marshal(secret)
	if err != nil {
		return reply{}, err
	}
	withSecret := json.RawMessage(strings.TrimSuffix(string(webhook), "}") + `,"secret":` + string(quoted) + "}")
	return reply{status: http.StatusCreated, header: header, body: withSecret}, nil
}

func getWebhook(r *request) (reply, error) {
	id, err := r.pathID("webhook")
	if err != nil {
		return reply{}, err
	}
	webhook, header, err := r.webhook(id)
	return reply{status: http.StatusOK, header: header, body: webhook}, err
}

func changeWebhook(r *request) (reply, error) {
	id, err := r.pathID("webhook")
	if err != nil {
		return reply{}, err
	}
	fields, err := r.fields(changeFields, aliases)
	if err != nil {
		return reply{}, err
	}
	if err := r.checkMatch(id); err != nil {
		return reply{}, err
	}
	if _, err := r.tx.Exec(r.Context(), `
		update walhook.visible_webhook w
		   set (url, event_type, assessment_id, organization_id, description, headers, ordered, enabled, log_successes) = (
		         select f.url, f.event_type, f.assessment_id, f.organization_id, f.description, f.headers, f.ordered, f.enabled, f.log_successes
		           from jsonb_populate_record(w, $2) f)
		 where w.id = $1`, id, fields); err != nil {
		return reply{}, fmt.Errorf("change webhook: %w", err)
	}
	webhook, header, err := r.webhook(id)
	return reply{status: http.StatusOK, header: header, body: webhook}, err
}

// checkMatch refuses an edit if the webhook's ETag is not in If-Match. Until the transaction ends, nobody else can edit the
// webhook.
func (r *request) checkMatch(id int64) error {
	match := r.Header.Get("If-Match")
	if match == "" {
		return nil
	}
	tag, err := r.tx.Exec(r.Context(), "select from walhook.visible_webhook v where v.id = $1 for update", id)
	if err != nil {
		return fmt.Errorf("lock webhook: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil // the edit reports that there is none
	}
	_, header, err := r.webhook(id)
	if err == nil && !matches(match, header.Get("ETag")) {
		err = problem{
			Status: http.StatusPreconditionFailed,
			Detail: "The webhook has changed since this ETag was read. GET it again before you edit it.",
		}
	}
	return err
}

// matches reports whether the header If-Match names the tag.
func matches(match, tag string) bool {
	for one := range strings.SplitSeq(match, ",") {
		if one = strings.TrimSpace(one); one == "*" || one == tag {
			return true
		}
	}
	return false
}

func deleteWebhook(r *request) (reply, error) {
	id, err := r.pathID("webhook")
	if err != nil {
		return reply{}, err
	}
	if err := r.checkMatch(id); err != nil {
		return reply{}, err
	}
	if _, err := r.tx.Exec(r.Context(), "select walhook.delete_webhook($1)", id); err != nil {
		return reply{}, fmt.Errorf("delete webhook: %w", err)
	}
	return reply{status: http.StatusNoContent}, nil
}

func testWebhook(r *request) (reply, error) {
	webhookID, err := r.pathID("webhook")
	if err != nil {
		return reply{}, err
	}
	fields, err := r.fields(map[string]kind{"response_id": id}, nil)
	if err != nil {
		return reply{}, err
	}
	return r.queued("delivery_id", "select walhook.test_webhook($1, $2::text)", webhookID, fields["response_id"])
}

func redeliverFailed(r *request) (reply, error) {
	id, err := r.pathID("webhook")
	if err != nil {
		return reply{}, err
	}
	fields, err := r.fields(map[string]kind{"since": text}, nil)
	if err != nil {
		return reply{}, err
	}
	sent, _ := fields["since"].(string)
	since, err := readTime("since", sent)
	if err != nil {
		return reply{}, err
	}
	if since.IsZero() {
		return r.queued("queued", "select walhook.redeliver_failed($1, now() - interval '1 day')", id)
	}
	return r.queued("queued", "select walhook.redeliver_failed($1, $2)", id, since)
}

// queued runs a statement that queues deliveries, and answers with the number that it returns.
func (r *request) queued(what, statement string, args ...any) (reply, error) {
	var number int64
	if err := r.tx.QueryRow(r.Context(), statement, args...).Scan(&number); err != nil {
		return reply{}, fmt.Errorf("queue deliveries: %w", err)
	}
	return reply{status: http.StatusAccepted, body: map[string]int64{what: number}}, nil
}
