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

// webhookForm is what the form of a webhook holds. Of a webhook that exists, URL, secret and headers are hidden until they are asked for; left empty, they stay.
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
	Unlisted    bool // an assessment may be one that is not listed
	Events      []string

	Health          webhookRow
	Signed          bool
	HeaderCount     int
	CreatedAt       time.Time
	UpdatedAt       time.Time
	SecretUntil     *time.Time // how long the previous secret is valid
	Activity        activity
	Test            *deliveryRow
	TestWaits       string // what the test waits for
	TestRefused     string // why there is no test
	TestResponse    string // the id that it was to have
	NewSecretToShow string
}

// said returns the flash, followed by what PostgreSQL had to say.
func (p *person) said(flash string) string {
	return strings.Join(append([]string{flash}, p.notices...), " ")
}

func pathID(r *http.Request, what string) (int64, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return 0, notFound(fmt.Sprintf("There is no such %s.", what))
	}
	return id, nil
}

func webhookPath(id int64) string { return "/webhooks/" + strconv.FormatInt(id, 10) }

// choices reads what the form offers.
func (d *webhookData) choices(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `select a.assessment_id, coalesce(a.name || ' (' || a.assessment_id || ')', a.assessment_id)
		from walhook.known_assessment a order by a.name, length(a.assessment_id), a.assessment_id limit $1`, assessmentsListed+1)
	if err != nil {
		return err
	}
	if d.Assessments, err = pgx.CollectRows(rows, pgx.RowToStructByPos[choice]); err != nil {
		return err
	}
	d.Unlisted = len(d.Assessments) > assessmentsListed
	d.Assessments = d.Assessments[:min(len(d.Assessments), assessmentsListed)]
	if current := d.Form.Assessment; current != "" && !slices.ContainsFunc(d.Assessments, func(c choice) bool { return c.Value == current }) {
		d.Assessments = append(d.Assessments, choice{current, current})
	}
	return tx.QueryRow(ctx, `select $1 or not exists (select from walhook.known_assessment a where a.external_id is not null or a.name is not null), walhook.event_names()`,
		d.Unlisted).Scan(&d.Unlisted, &d.Events)
}

// read reads the webhook, and with reveal what is secret of it: PostgreSQL refuses that to viewers.
func (d *webhookData) read(ctx context.Context, tx pgx.Tx, admin, reveal bool) error {
	h := &d.Health
	err := tx.QueryRow(ctx, `select h.id, h.assessment_id, h.assessment_name, h.host, h.event_type, h.state, h.organization_id, h.description, h.disabled_reason,
			h.last_error, h.failing_since_tz, h.disabled_at_tz, o.ordered, o.log_successes, o.signed, o.created_at, o.updated_at
		from walhook.webhook_health h join walhook.webhook_overview o on o.id = h.id where h.id = $1`, d.ID).Scan(
		&h.ID, &h.AssessmentID, &h.AssessmentName, &h.Host, &h.EventType, &h.State, &h.Organization, &h.Description, &h.Reason,
		&h.LastError, &h.FailingSince, &h.DisabledAt, &d.Form.Ordered, &d.Form.LogSuccesses, &d.Signed, &d.CreatedAt, &d.UpdatedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return notFound(fmt.Sprintf("There is no webhook %d. It may have been deleted: see Changes.", d.ID))
	}
	if err != nil {
		return err
	}
	d.Form.Assessment, d.Form.Organization, d.Form.Description, d.Form.EventType = text(h.AssessmentID), text(h.Organization), text(h.Description), h.EventType
	if admin || reveal {
		var url string
		var secret *string
		var headers map[string]string
		err := tx.QueryRow(ctx, "select url, secret, headers, case when previous_secret_until > now() then previous_secret_until end from walhook.webhook where id = $1", d.ID).
			Scan(&url, &secret, &headers, &d.SecretUntil)
		if err != nil {
			return err
		}
		d.HeaderCount = len(headers)
		if reveal {
			d.Form.Revealed, d.Form.URL, d.Form.Secret, d.Form.Headers = true, url, text(secret), headerLines(headers)
		}
	}
	days, err := readActivity(ctx, tx, []int64{d.ID}, 400)
	d.Activity = days[d.ID]
	return err
}

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

// parseHeaders returns the JSON object that a text of lines "Name: value" means, or the sentence that says why it means none.
func parseHeaders(lines string) (object []byte, fault error) {
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
	return json.Marshal(headers)
}

func formOf(r *http.Request) webhookForm {
	return webhookForm{
		Assessment: r.PostFormValue("assessment_id"), OtherAssessment: strings.TrimSpace(r.PostFormValue("other_assessment")), URL: strings.TrimSpace(r.PostFormValue("url")),
		EventType: r.PostFormValue("event_type"), Organization: strings.TrimSpace(r.PostFormValue("organization_id")),
		Description: strings.TrimSpace(r.PostFormValue("description")), Secret: strings.TrimSpace(r.PostFormValue("secret")), Headers: r.PostFormValue("headers"),
		Ordered: r.PostFormValue("ordered") != "", LogSuccesses: r.PostFormValue("log_successes") != "", NewSecret: r.PostFormValue("new_secret") != "",
		Revealed: r.PostFormValue("revealed") != "",
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
		err = p.tx(r.Context(), func(tx pgx.Tx) error {
			return tx.QueryRow(r.Context(), `insert into walhook.webhook (assessment_id, url, event_type, organization_id, description, ordered, log_successes, secret, headers)
				values (nullif($1, ''), $2, $3, nullif($4, ''), nullif($5, ''), $6, $7, case when $8 then walhook.new_secret() else nullif($9, '') end, $10::text::jsonb) returning id`,
				form.assessment(), form.URL, form.EventType, form.Organization, form.Description, form.Ordered, form.LogSuccesses, form.NewSecret && form.Secret == "",
				form.Secret, nullable(headers)).Scan(&id)
		})
	}
	if err == nil {
		return s.redirect(w, r, webhookPath(id), p.said("Webhook added. Test it to see what the receiver answers."))
	}
	data := &webhookData{Form: form}
	if readErr := p.tx(r.Context(), func(tx pgx.Tx) error { return data.choices(r.Context(), tx) }); readErr != nil {
		return readErr
	}
	return s.renderRefused(w, r, p, err, "webhook.html", "Add Webhook", data)
}

func nullable(object []byte) *string {
	if object == nil {
		return nil
	}
	text := string(object)
	return &text
}

func (s *Server) webhook(w http.ResponseWriter, r *http.Request, p *person) error {
	return s.showWebhook(w, r, p, http.StatusOK, false, &webhookData{})
}

// revealWebhook shows URL, secret and headers. It is a POST, so that no address reveals them by itself.
func (s *Server) revealWebhook(w http.ResponseWriter, r *http.Request, p *person) error {
	return s.showWebhook(w, r, p, http.StatusOK, true, &webhookData{})
}

func (s *Server) showWebhook(w http.ResponseWriter, r *http.Request, p *person, status int, reveal bool, data *webhookData) error {
	id, err := pathID(r, "webhook")
	if err != nil {
		return err
	}
	data.ID = id
	err = p.tx(r.Context(), func(tx pgx.Tx) error {
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
	return s.render(w, r, p, status, "webhook.html", fmt.Sprintf("Webhook %d", id), data)
}

func (s *Server) saveWebhook(w http.ResponseWriter, r *http.Request, p *person) error {
	id, err := pathID(r, "webhook")
	if err != nil {
		return err
	}
	form := formOf(r)
	headers, err := parseHeaders(form.Headers)
	if err == nil {
		err = p.tx(r.Context(), func(tx pgx.Tx) error {
			// What is hidden and left empty stays.
			tag, err := tx.Exec(r.Context(), `update walhook.webhook w
				set assessment_id = nullif($2, ''), url = case when $3 = '' and not $10 then w.url else $3 end, event_type = $4, organization_id = nullif($5, ''),
				    description = nullif($6, ''), ordered = $7, log_successes = $8,
				    secret = case when $9 = '' and not $10 then w.secret else nullif($9, '') end,
				    headers = case when $11::text is null and not $10 then w.headers else $11::text::jsonb end
				where w.id = $1`,
				id, form.assessment(), form.URL, form.EventType, form.Organization, form.Description, form.Ordered, form.LogSuccesses, form.Secret, form.Revealed, nullable(headers))
			if err == nil && tag.RowsAffected() == 0 {
				return notFound(fmt.Sprintf("There is no webhook %d. It may have been deleted: see Changes.", id))
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

func (s *Server) testWebhook(w http.ResponseWriter, r *http.Request, p *person) error {
	id, err := pathID(r, "webhook")
	if err != nil {
		return err
	}
	var queued int64
	about := strings.TrimSpace(r.PostFormValue("response_id"))
	err = p.tx(r.Context(), func(tx pgx.Tx) error {
		return tx.QueryRow(r.Context(), "select walhook.test_webhook($1, nullif($2, ''))", id, about).Scan(&queued)
	})
	// Without a response that matches, or with an id that cannot be one, another id may do.
	var refused *refusal
	if errors.As(err, &refused) && (refused.status == http.StatusUnprocessableEntity || refused.status == http.StatusNotFound) {
		return s.showWebhook(w, r, p, http.StatusUnprocessableEntity, false, &webhookData{TestRefused: refused.sentence, TestResponse: about})
	}
	if err != nil {
		return err
	}
	// No fragment: browsers without JavaScript would not reload an address that has one.
	return s.redirect(w, r, webhookPath(id)+"?test="+strconv.FormatInt(queued, 10), strings.TrimSpace(p.said("")))
}

func (d *webhookData) readTest(ctx context.Context, tx pgx.Tx, id int64) (err error) {
	if d.Test, err = readDelivery(ctx, tx, id); err != nil || !d.Test.Pending() {
		return err
	}
	return tx.QueryRow(ctx, "select coalesce((select p.waits_for from walhook.pending p where p.delivery_id = $1), '')", id).Scan(&d.TestWaits)
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

// change runs a statement about a webhook and goes back to its page.
func (s *Server) change(w http.ResponseWriter, r *http.Request, p *person, done, statement string) error {
	id, err := pathID(r, "webhook")
	if err != nil {
		return err
	}
	err = p.tx(r.Context(), func(tx pgx.Tx) error {
		tag, err := tx.Exec(r.Context(), statement, id)
		if err == nil && tag.RowsAffected() == 0 {
			return notFound(fmt.Sprintf("There is no webhook %d. It may have been deleted: see Changes.", id))
		}
		return err
	})
	if err != nil {
		return err
	}
	to := webhookPath(id)
	if strings.HasPrefix(statement, "delete") {
		to = "/webhooks"
	}
	return s.redirect(w, r, to, p.said(fmt.Sprintf(done, id)))
}

func (s *Server) enableWebhook(w http.ResponseWriter, r *http.Request, p *person) error {
	return s.change(w, r, p, "Webhook %d is enabled.", "update walhook.webhook set enabled = true where id = $1")
}

func (s *Server) disableWebhook(w http.ResponseWriter, r *http.Request, p *person) error {
	return s.change(w, r, p, "Webhook %d is disabled.", "update walhook.webhook set enabled = false where id = $1")
}

func (s *Server) deleteWebhook(w http.ResponseWriter, r *http.Request, p *person) error {
	return s.change(w, r, p, "Webhook %d is deleted.", "delete from walhook.webhook where id = $1")
}

func (s *Server) rotateSecret(w http.ResponseWriter, r *http.Request, p *person) error {
	id, err := pathID(r, "webhook")
	if err != nil {
		return err
	}
	var secret string
	err = p.tx(r.Context(), func(tx pgx.Tx) error {
		return tx.QueryRow(r.Context(), "select walhook.rotate_secret($1)", id).Scan(&secret)
	})
	if err != nil {
		return err
	}
	return s.showWebhook(w, r, p, http.StatusOK, false, &webhookData{NewSecretToShow: secret})
}

func (s *Server) copyWebhooks(w http.ResponseWriter, r *http.Request, p *person) error {
	id, err := pathID(r, "webhook")
	if err != nil {
		return err
	}
	var copied int
	to := strings.TrimSpace(r.PostFormValue("to"))
	err = p.tx(r.Context(), func(tx pgx.Tx) error {
		return tx.QueryRow(r.Context(), "select walhook.copy_webhooks((select o.assessment_id from walhook.webhook_overview o where o.id = $1), $2::text)", id, to).Scan(&copied)
	})
	if err != nil {
		return err
	}
	return s.redirect(w, r, webhookPath(id), p.said(fmt.Sprintf("Copied to assessment %s: %s.", to, plural(copied, "webhook"))))
}

// question is what confirm.html asks before something is done that cannot be undone.
type question struct {
	Sentences    []string
	Button       string
	Action, Back string
	Danger       bool
	Fields       []choice // hidden
}

func (s *Server) ask(w http.ResponseWriter, r *http.Request, p *person, title string, q *question) error {
	return s.render(w, r, p, http.StatusOK, "confirm.html", title, q)
}

// askAbout asks about a webhook, with what is pending for it.
func (s *Server) askAbout(w http.ResponseWriter, r *http.Request, p *person, title string, q func(host, pending string) *question) error {
	id, err := pathID(r, "webhook")
	if err != nil {
		return err
	}
	var host, pending string
	err = p.tx(r.Context(), func(tx pgx.Tx) error {
		return tx.QueryRow(r.Context(), "select o.host, walhook.pending_of(o.id) from walhook.webhook_overview o where o.id = $1", id).Scan(&host, &pending)
	})
	if err != nil {
		return err
	}
	asked := q(host, pending+" pending deliveries")
	if pending == "1" {
		asked = q(host, "1 pending delivery")
	}
	asked.Action, asked.Back = r.URL.Path, webhookPath(id)
	return s.ask(w, r, p, fmt.Sprintf(title, id), asked)
}

func (s *Server) askDelete(w http.ResponseWriter, r *http.Request, p *person) error {
	return s.askAbout(w, r, p, "Delete webhook %d?", func(host, pending string) *question {
		ends := pending + " end as failed."
		switch pending {
		case "0 pending deliveries":
			ends = "No delivery is pending."
		case "1 pending delivery":
			ends = pending + " ends as failed."
		}
		return &question{Sentences: []string{
			"This webhook sends nothing more to " + host + ".", ends, "The log keeps its deliveries, but they cannot be redelivered.",
		}, Button: "Delete webhook", Danger: true}
	})
}

func (s *Server) askDisable(w http.ResponseWriter, r *http.Request, p *person) error {
	return s.askAbout(w, r, p, "Disable webhook %d?", func(host, pending string) *question {
		waits := pending + " wait until it is enabled again."
		switch pending {
		case "0 pending deliveries":
			waits = "No delivery is pending."
		case "1 pending delivery":
			waits = pending + " waits until it is enabled again."
		}
		return &question{Sentences: []string{"Events that happen while it is disabled are not sent to " + host + ".", waits}, Button: "Disable webhook", Danger: true}
	})
}

func (s *Server) askRotate(w http.ResponseWriter, r *http.Request, p *person) error {
	return s.askAbout(w, r, p, "Rotate the secret of webhook %d?", func(host, _ string) *question {
		return &question{Sentences: []string{
			"A new secret is created and shown to you.",
			"For 24 hours requests to " + host + " are signed with both secrets, so that the receiver can switch to the new one without losing any.",
		}, Button: "Rotate secret"}
	})
}
