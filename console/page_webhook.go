package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// assessmentsListed is how many assessments the form offers; others are named by their id.
const assessmentsListed = 2000

// choice is an option of a list.
type choice struct{ Value, Label string }

// webhookForm is what the form of a webhook holds. Of a webhook that exists, URL, secret and headers are hidden until
// somebody asks for them; fields left empty keep their values.
type webhookForm struct {
	Assessment, OtherAssessment, URL, EventType, Organization, Description, Secret, Headers string
	Ordered, LogSuccesses, NewSecret                                                        bool
	Revealed                                                                                bool
}

// webhookData is what webhook.html shows.
type webhookData struct {
	ID          int64 // 0: a new one
	Form        webhookForm
	Assessments []choice
	Unlisted    bool // there may be assessments that the list leaves out
	Events      []string

	Health          webhookRow
	Signed          bool
	HeaderCount     int
	CreatedAt       time.Time
	UpdatedAt       time.Time
	SecretUntil     *time.Time // until then the previous secret is valid
	Activity        activity
	Test            *deliveryRow
	TestWaits       string // what the test waits for
	TestRefused     string // why no test was sent
	TestResponse    string // the response id that it was to have
	NewSecretToShow string
}

func webhookPath(id int64) string { return "/webhooks/" + strconv.FormatInt(id, 10) }

// choices reads what the form offers.
func (d *webhookData) choices(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `select a.assessment_id, coalesce(a.name || ' (' || a.assessment_id || ')', a.assessment_id)
			from walhook.known_assessment a
			order by a.name, length(a.assessment_id), a.assessment_id limit $1`, assessmentsListed+1)
	if err != nil {
		return err
	}
	if d.Assessments, err = pgx.CollectRows(rows, pgx.RowToStructByPos[choice]); err != nil {
		return err
	}
	d.Unlisted = len(d.Assessments) > assessmentsListed
	d.Assessments = d.Assessments[:min(len(d.Assessments), assessmentsListed)]
	current := d.Form.Assessment
	isCurrent := func(c choice) bool { return c.Value == current }
	if current != "" && !slices.ContainsFunc(d.Assessments, isCurrent) {
		d.Assessments = append(d.Assessments, choice{current, current})
	}
	return tx.QueryRow(ctx, `select walhook.event_names(), $1 or not exists (
			select from walhook.known_assessment a where a.external_id is not null or a.name is not null)`,
		d.Unlisted).Scan(&d.Events, &d.Unlisted)
}

// noWebhook refuses an id that no webhook has.
func noWebhook(id int64) error {
	return notFound(fmt.Sprintf("There is no webhook %d. It may have been deleted: see Changes.", id))
}

// read reads the webhook, and with reveal its URL, secret and headers, which PostgreSQL refuses to viewers.
func (d *webhookData) read(ctx context.Context, tx pgx.Tx, admin, reveal bool) error {
	h, f := &d.Health, &d.Form
	err := tx.QueryRow(ctx, `select h.id, h.assessment_id, h.assessment_name, h.host, h.event_type, h.state,
			h.organization_id, h.description, h.disabled_reason, h.last_error, h.failing_since_tz, h.disabled_at_tz,
			o.ordered, o.log_successes, o.signed, o.created_at, o.updated_at
		from walhook.webhook_health h join walhook.webhook_overview o on o.id = h.id where h.id = $1`, d.ID).Scan(
		&h.ID, &h.AssessmentID, &h.AssessmentName, &h.Host, &h.EventType, &h.State,
		&h.Organization, &h.Description, &h.Reason, &h.LastError, &h.FailingSince, &h.DisabledAt,
		&f.Ordered, &f.LogSuccesses, &d.Signed, &d.CreatedAt, &d.UpdatedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return noWebhook(d.ID)
	}
	if err != nil {
		return err
	}
	f.Assessment, f.Organization, f.Description = text(h.AssessmentID), text(h.Organization), text(h.Description)
	f.EventType = h.EventType
	if admin || reveal {
		if err := d.readSecrets(ctx, tx, reveal); err != nil {
			return err
		}
	}
	days, err := readActivity(ctx, tx, []int64{d.ID}, 400)
	d.Activity = days[d.ID]
	return err
}

// readSecrets reads what viewers may not see. The form gets it only with reveal.
func (d *webhookData) readSecrets(ctx context.Context, tx pgx.Tx, reveal bool) error {
	var url string
	var secret *string
	var headers map[string]string
	err := tx.QueryRow(ctx, `select url, secret, headers,
			case when previous_secret_until > now() then previous_secret_until end
		from walhook.webhook where id = $1`, d.ID).Scan(&url, &secret, &headers, &d.SecretUntil)
	if err != nil {
		return err
	}
	d.HeaderCount = len(headers)
	if reveal {
		d.Form.Revealed, d.Form.URL, d.Form.Secret, d.Form.Headers = true, url, text(secret), headerLines(headers)
	}
	return nil
}

// text returns "" for nil.
func text(t *string) string {
	if t == nil {
		return ""
	}
	return *t
}

func headerLines(headers map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		b.WriteString(name + ": " + headers[name] + "\n")
	}
	return b.String()
}

// parseHeaders returns lines of the form "Name: value" as a JSON object, or nil if there is none. Its error is a refusal.
func parseHeaders(lines string) (object *string, err error) {
	headers := map[string]string{}
	for line := range strings.Lines(lines) {
		line = strings.Trim(line, " \r\n")
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, invalid("headers", "Write each header on a line of its own, as Name: value.")
		}
		if _, twice := headers[name]; twice {
			return nil, invalid("headers", "A header appears twice. Each name may appear only once.")
		}
		headers[name] = strings.Trim(value, " ")
	}
	if len(headers) == 0 {
		return nil, nil
	}
	marshalled, err := json.Marshal(headers)
	text := string(marshalled)
	return &text, err
}

func formOf(r *http.Request) webhookForm {
	trimmed := func(name string) string { return strings.TrimSpace(r.PostFormValue(name)) }
	checked := func(name string) bool { return r.PostFormValue(name) != "" }
	return webhookForm{
		Assessment: r.PostFormValue("assessment_id"), OtherAssessment: trimmed("other_assessment"), URL: trimmed("url"),
		EventType: r.PostFormValue("event_type"), Organization: trimmed("organization_id"),
		Description: trimmed("description"), Secret: trimmed("secret"), Headers: r.PostFormValue("headers"),
		Ordered: checked("ordered"), LogSuccesses: checked("log_successes"), NewSecret: checked("new_secret"),
		Revealed: checked("revealed"),
	}
}

func (f *webhookForm) assessment() string {
	if f.OtherAssessment != "" {
		return f.OtherAssessment
	}
	return f.Assessment
}

func (s *Server) newWebhook(w http.ResponseWriter, r *http.Request, p *person) error {
	data := &webhookData{Form: webhookForm{
		Assessment: r.URL.Query().Get("assessment"), EventType: "response.completed", Ordered: true, LogSuccesses: true, NewSecret: true,
	}}
	if err := p.tx(r.Context(), func(tx pgx.Tx) error { return data.choices(r.Context(), tx) }); err != nil {
		return err
	}
	return s.render(w, r, p, http.StatusOK, "webhook.html", "Add Webhook", data)
}

func (s *Server) createWebhook(w http.ResponseWriter, r *http.Request, p *person) error {
	form := formOf(r)
	var id int64
	headers, err := parseHeaders(form.Headers)
	if err == nil {
		err = p.scan(r.Context(), []any{&id}, `insert into walhook.webhook
				(assessment_id, url, event_type, organization_id, description, ordered, log_successes, secret, headers)
			values (nullif($1, ''), $2, $3, nullif($4, ''), nullif($5, ''), $6, $7,
				case when $8 then walhook.new_secret() else nullif($9, '') end, $10::text::jsonb)
			returning id`,
			form.assessment(), form.URL, form.EventType, form.Organization, form.Description, form.Ordered,
			form.LogSuccesses, form.NewSecret && form.Secret == "", form.Secret, headers)
	}
	if err == nil {
		return s.redirect(w, r, webhookPath(id), p.said("Webhook added. Test it to see what the receiver answers."))
	}
	data := &webhookData{Form: form}
	if err := p.tx(r.Context(), func(tx pgx.Tx) error { return data.choices(r.Context(), tx) }); err != nil {
		return err
	}
	return s.renderRefused(w, r, p, err, "webhook.html", "Add Webhook", data)
}

func (s *Server) webhook(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	return s.showWebhook(w, r, p, http.StatusOK, false, &webhookData{ID: id})
}

// revealWebhook shows URL, secret and headers. It is a POST, so that no address reveals them by itself.
func (s *Server) revealWebhook(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	return s.showWebhook(w, r, p, http.StatusOK, true, &webhookData{ID: id})
}

// showWebhook shows the webhook whose id is in data.
func (s *Server) showWebhook(
	w http.ResponseWriter, r *http.Request, p *person, status int, reveal bool, data *webhookData,
) error {
	err := p.tx(r.Context(), func(tx pgx.Tx) error {
		if err := data.read(r.Context(), tx, p.admin, reveal); err != nil {
			return err
		}
		if test := number(r.URL.Query().Get("test")); test != nil {
			if err := data.readTest(r.Context(), tx, *test); err != nil && !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
		}
		return data.choices(r.Context(), tx)
	})
	if err != nil {
		return err
	}
	return s.render(w, r, p, status, "webhook.html", fmt.Sprintf("Webhook %d", data.ID), data)
}

func (s *Server) saveWebhook(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	form := formOf(r)
	headers, err := parseHeaders(form.Headers)
	if err == nil {
		err = p.tx(r.Context(), func(tx pgx.Tx) error {
			// A hidden field that is left empty keeps its value.
			tag, err := tx.Exec(r.Context(), `update walhook.webhook w
				set assessment_id = nullif($2, ''), url = case when $3 = '' and not $10 then w.url else $3 end,
				    event_type = $4, organization_id = nullif($5, ''), description = nullif($6, ''),
				    ordered = $7, log_successes = $8,
				    secret = case when $9 = '' and not $10 then w.secret else nullif($9, '') end,
				    headers = case when $11::text is null and not $10 then w.headers else $11::text::jsonb end
				where w.id = $1`,
				id, form.assessment(), form.URL, form.EventType, form.Organization, form.Description, form.Ordered,
				form.LogSuccesses, form.Secret, form.Revealed, headers)
			if err == nil && tag.RowsAffected() == 0 {
				return noWebhook(id)
			}
			return err
		})
	}
	if err == nil {
		return s.redirect(w, r, webhookPath(id), p.said("Webhook saved."))
	}
	data := &webhookData{ID: id}
	readErr := p.tx(r.Context(), func(tx pgx.Tx) error {
		if err := data.read(r.Context(), tx, p.admin, false); err != nil {
			return err
		}
		data.Form = form
		return data.choices(r.Context(), tx)
	})
	if readErr != nil {
		return readErr
	}
	return s.renderRefused(w, r, p, err, "webhook.html", fmt.Sprintf("Webhook %d", id), data)
}

func (s *Server) testWebhook(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	var queued int64
	response := strings.TrimSpace(r.PostFormValue("response_id"))
	err := p.scan(r.Context(), []any{&queued}, "select walhook.test_webhook($1, nullif($2, ''))", id, response)
	// No response matches, or the id cannot be one of a response: another id may do.
	var refused *refusal
	if errors.As(err, &refused) &&
		(refused.status == http.StatusUnprocessableEntity || refused.status == http.StatusNotFound) {
		data := &webhookData{ID: id, TestRefused: refused.sentence, TestResponse: response}
		return s.showWebhook(w, r, p, http.StatusUnprocessableEntity, false, data)
	}
	if err != nil {
		return err
	}
	// No fragment: browsers without JavaScript would not reload an address that has one.
	return s.redirect(w, r, webhookPath(id)+"?test="+strconv.FormatInt(queued, 10), p.said(""))
}

func (d *webhookData) readTest(ctx context.Context, tx pgx.Tx, id int64) (err error) {
	if d.Test, err = readDelivery(ctx, tx, id); err != nil || !d.Test.Pending() {
		return err
	}
	return tx.QueryRow(ctx, `select coalesce((select p.waits_for from walhook.pending p where p.delivery_id = $1), '')`,
		id).Scan(&d.TestWaits)
}

// testLive keeps the result of a test current.
func (s *Server) testLive(w http.ResponseWriter, r *http.Request, p *person) error {
	id := number(r.PathValue("delivery"))
	if id == nil {
		return notFound("There is no such delivery.")
	}
	return s.live(w, r, p, "webhook.html", "test", func(ctx context.Context, p *person) (any, error) {
		data := &webhookData{}
		return data, p.tx(ctx, func(tx pgx.Tx) error { return data.readTest(ctx, tx, *id) })
	})
}

// change runs a statement about a webhook, and shows the page to.
func (s *Server) change(
	w http.ResponseWriter, r *http.Request, p *person, id int64, statement, to, done string,
) error {
	err := p.tx(r.Context(), func(tx pgx.Tx) error {
		tag, err := tx.Exec(r.Context(), statement, id)
		if err == nil && tag.RowsAffected() == 0 {
			return noWebhook(id)
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.redirect(w, r, to, p.said(fmt.Sprintf("Webhook %d is %s.", id, done)))
}

func (s *Server) enableWebhook(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	return s.change(w, r, p, id, "update walhook.webhook set enabled = true where id = $1", webhookPath(id), "enabled")
}

func (s *Server) disableWebhook(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	return s.change(w, r, p, id, "update walhook.webhook set enabled = false where id = $1", webhookPath(id), "disabled")
}

func (s *Server) deleteWebhook(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	return s.change(w, r, p, id, "delete from walhook.webhook where id = $1", "/webhooks", "deleted")
}

func (s *Server) rotateSecret(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	data := &webhookData{ID: id}
	err := p.scan(r.Context(), []any{&data.NewSecretToShow}, "select walhook.rotate_secret($1)", id)
	if err != nil {
		return err
	}
	return s.showWebhook(w, r, p, http.StatusOK, false, data)
}

func (s *Server) copyWebhooks(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	var copied int
	to := strings.TrimSpace(r.PostFormValue("to"))
	err := p.scan(r.Context(), []any{&copied}, `select walhook.copy_webhooks(
		(select o.assessment_id from walhook.webhook_overview o where o.id = $1), $2::text)`, id, to)
	if err != nil {
		return err
	}
	flash := fmt.Sprintf("Copied to assessment %s: %s.", to, plural(copied, "webhook"))
	return s.redirect(w, r, webhookPath(id), p.said(flash))
}
