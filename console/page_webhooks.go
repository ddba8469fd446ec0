package console

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	webhooksPerPage = 50
	activityAtMost  = 100 // per webhook and hour, in the list
)

// webhookRoutes are the pages about webhooks.
func (s *Server) webhookRoutes() []route {
	return []route{
		{"GET", "/webhooks", s.webhooks},
		{"POST", "/webhooks", s.createWebhook},
		{"GET", "/webhooks/new", s.newWebhook},
		{"GET", "/webhooks/{id}", withID("webhook", s.webhook)},
		{"POST", "/webhooks/{id}", withID("webhook", s.saveWebhook)},
		{"POST", "/webhooks/{id}/reveal", withID("webhook", s.revealWebhook)},
		{"POST", "/webhooks/{id}/test", withID("webhook", s.testWebhook)},
		{"GET", "/webhooks/{id}/test/{delivery}/live", s.testLive},
		{"POST", "/webhooks/{id}/enable", withID("webhook", s.enableWebhook)},
		{"GET", "/webhooks/{id}/disable", withID("webhook", s.askDisable)},
		{"POST", "/webhooks/{id}/disable", withID("webhook", s.disableWebhook)},
		{"GET", "/webhooks/{id}/rotate", withID("webhook", s.askRotate)},
		{"POST", "/webhooks/{id}/rotate", withID("webhook", s.rotateSecret)},
		{"POST", "/webhooks/{id}/copy", withID("webhook", s.copyWebhooks)},
		{"GET", "/webhooks/{id}/delete", withID("webhook", s.askDelete)},
		{"POST", "/webhooks/{id}/delete", withID("webhook", s.deleteWebhook)},
	}
}

// webhookRow is a webhook in the list.
type webhookRow struct {
	ID                                     int64
	AssessmentID, AssessmentName           *string
	Host, EventType, State                 string
	Organization, Description, Reason, URL *string
	LastError                              *string
	Trouble                                int16
	FailingSince, DisabledAt               *time.Time
	Activity                               activity
}

// webhooksData is what webhooks.html shows.
type webhooksData struct {
	Rows                []webhookRow
	Search, State, Sort string
	ShowURLs            bool
	Next, First         string // addresses; "": none
	ToggleURLs          string
	Any                 bool // there are webhooks, perhaps not on this page
}

// States are what the filter offers.
func (d *webhooksData) States() []string { return []string{"failing", "disabled", "active"} }

func (s *Server) webhooks(w http.ResponseWriter, r *http.Request, p *person) error {
	query := r.URL.Query()
	data := &webhooksData{
		Search: strings.TrimSpace(query.Get("q")), State: query.Get("state"), Sort: query.Get("sort"), ShowURLs: query.Get("urls") != "",
	}
	if data.Sort != "newest" {
		data.Sort = "trouble"
	}
	after := strings.Split(query.Get("after"), "-")
	var trouble, id *int64
	if len(after) == 2 {
		trouble, id = number(after[0]), number(after[1])
	}
	err := p.tx(r.Context(), func(tx pgx.Tx) error { return data.read(r.Context(), tx, trouble, id) })
	if err != nil {
		return err
	}
	data.addresses(query)
	return s.render(w, r, p, http.StatusOK, "webhooks.html", "Webhooks", data)
}

func (d *webhooksData) read(ctx context.Context, tx pgx.Tx, trouble, id *int64) error {
	order := map[string]string{
		"trouble": "($1::bigint is null or (h.trouble, h.id) > ($1, $2)) order by h.trouble, h.id",
		"newest":  "($1::bigint is null or h.id < $2) order by h.id desc",
	}[d.Sort]
	_, sorted, _ := strings.Cut(order, " order by ")
	url := "null::text"
	if d.ShowURLs {
		url = "(select w.url from walhook.webhook w where w.id = h.id)"
	}
	rows, err := tx.Query(ctx, `with found as materialized (
			select h.id from walhook.webhook_health h
			where ($3 = '' or h.state = $3)
			  and ($4 = '' or concat_ws(' ', h.id, h.assessment_id, h.assessment_name, h.event_type, h.organization_id,
			                           h.description) ilike $5
			       or h.host ilike $5) -- last, because it takes longer than all the others
			  and `+order+` limit $6)
		select h.id, h.assessment_id, h.assessment_name, h.host, h.event_type, h.state, h.organization_id, h.description,
			h.disabled_reason, `+url+`, h.last_error, h.trouble, h.failing_since_tz, h.disabled_at_tz
		from found f join walhook.webhook_health h on h.id = f.id order by `+sorted,
		trouble, id, d.State, d.Search, "%"+likeEscaper.Replace(d.Search)+"%", webhooksPerPage+1)
	if err != nil {
		return err
	}
	d.Rows, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (webhookRow, error) {
		var w webhookRow
		return w, row.Scan(&w.ID, &w.AssessmentID, &w.AssessmentName, &w.Host, &w.EventType, &w.State, &w.Organization,
			&w.Description, &w.Reason, &w.URL, &w.LastError, &w.Trouble, &w.FailingSince, &w.DisabledAt)
	})
	if err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, "select exists (select from walhook.webhook_overview)").Scan(&d.Any); err != nil {
		return err
	}
	shown := d.Rows[:min(len(d.Rows), webhooksPerPage)]
	ids := make([]int64, len(shown))
	for i := range shown {
		ids[i] = shown[i].ID
	}
	days, err := readActivity(ctx, tx, ids, activityAtMost)
	for i := range shown {
		shown[i].Activity = days[shown[i].ID]
	}
	return err
}

var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// addresses removes the row that only shows that there is a next page, and sets the links.
func (d *webhooksData) addresses(query url.Values) {
	with := func(key, value string) string {
		changed := url.Values{}
		for _, name := range []string{"q", "state", "sort", "urls"} {
			if v := query.Get(name); v != "" {
				changed.Set(name, v)
			}
		}
		if changed.Del(key); value != "" {
			changed.Set(key, value)
		}
		return "/webhooks?" + changed.Encode()
	}
	if len(d.Rows) > webhooksPerPage {
		d.Rows = d.Rows[:webhooksPerPage]
		last := d.Rows[webhooksPerPage-1]
		d.Next = with("after", strconv.Itoa(int(last.Trouble))+"-"+strconv.FormatInt(last.ID, 10))
	}
	if query.Get("after") != "" {
		d.First = with("after", "")
	}
	d.ToggleURLs = with("urls", "1")
	if d.ShowURLs {
		d.ToggleURLs = with("urls", "")
	}
}

// number returns nil if the text is not a number.
func number(text string) *int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil
	}
	return &n
}
