package console

import (
	"cmp"
	"context"
	"encoding/csv"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	deliveriesPerPage = 50
	deliveriesPerRead = 2000 // of a CSV file
	localLayout       = "2006-01-02T15:04"
	keyLayout         = "2006-01-02T15:04:05.999999"
)

// deliveryRoutes are the pages about deliveries and responses.
func (s *Server) deliveryRoutes() []route {
	return []route{
		{"GET", "/deliveries", s.deliveries},
		{"GET", "/deliveries/live", s.deliveriesLive},
		{"GET", "/deliveries/csv", s.deliveriesCSV},
		{"GET", "/deliveries/redeliver", s.askRedeliverAll},
		{"POST", "/deliveries/redeliver", s.redeliverAll},
		{"GET", "/deliveries/{id}", withID("delivery", s.delivery)},
		{"GET", "/deliveries/{id}/live", withID("delivery", s.deliveryLive)},
		{"POST", "/deliveries/{id}/redeliver", withID("delivery", s.redeliver)},
		{"POST", "/deliveries/{id}/reveal", withID("delivery", s.revealDelivery)},
		{"GET", "/responses", s.findResponse},
		{"GET", "/responses/{id}", s.response},
	}
}

// deliveryRow is a delivery, as the log shows it.
type deliveryRow struct {
	ID, WebhookID              int64
	Host                       *string // nil: the webhook was deleted
	ResponseID, EventType      string
	Status                     *string // nil: the row shows how far the search went
	Attempts                   int
	HTTPStatus                 *int
	Error                      *string
	Test, Recovered            bool
	RedeliveryOf               *int64
	DeliveredAtLocal           *time.Time
	DeliveredAt, NextAttemptAt *time.Time
}

// deliveryColumns are those of deliveryRow; d is walhook.delivery_log, or a page of it.
const deliveryColumns = `d.delivery_id, d.webhook_id, o.host, d.response_id, d.event_type, d.status, d.attempts,
	d.http_status, d.error, d.test, d.recovered, d.redelivery_of, d.delivered_at, d.delivered_at_tz, d.next_attempt_at_tz`

func (d *deliveryRow) scan(row pgx.CollectableRow) error {
	return row.Scan(&d.ID, &d.WebhookID, &d.Host, &d.ResponseID, &d.EventType, &d.Status, &d.Attempts,
		&d.HTTPStatus, &d.Error, &d.Test, &d.Recovered, &d.RedeliveryOf, &d.DeliveredAtLocal, &d.DeliveredAt, &d.NextAttemptAt)
}

// Pending reports whether the delivery awaits its first attempt or a retry.
func (d *deliveryRow) Pending() bool { return text(d.Status) == "pending" }

// State is the status in a word that says whether an attempt has failed.
func (d *deliveryRow) State() string {
	if d.Pending() && d.Attempts > 0 {
		return "retrying"
	}
	return text(d.Status)
}

// Response is the address of the page about the response.
func (d *deliveryRow) Response() string { return responsePath(d.ResponseID) }

// Answer says what came back.
func (d *deliveryRow) Answer() string {
	switch {
	case d.HTTPStatus != nil:
		return "HTTP " + strconv.Itoa(*d.HTTPStatus)
	case d.Attempts > 0 && text(d.Status) != "success":
		return "no answer"
	}
	return ""
}

// responsePath returns the address of the page about a response, whose id may be any text. Browsers resolve the paths .
// and .. themselves, so these ids become a parameter.
func responsePath(id string) string {
	if id == "" || id == "." || id == ".." {
		return "/responses?id=" + url.QueryEscape(id)
	}
	return "/responses/" + url.PathEscape(id)
}

// filter has what the log is filtered by, as it appears in the address.
type filter struct {
	Webhook, Event, Status, HTTPStatus, Response, Since, Until string
}

// filterNames are the parameters of an address that filter.
var filterNames = []string{"webhook", "event", "status", "http_status", "response", "since", "until"}

func filterOf(values url.Values) filter {
	get := func(name string) string { return strings.TrimSpace(values.Get(name)) }
	return filter{get("webhook"), get("event"), get("status"), get("http_status"), values.Get("response"), get("since"), get("until")}
}

func (f *filter) query() url.Values {
	values := url.Values{}
	for i, value := range []string{f.Webhook, f.Event, f.Status, f.HTTPStatus, f.Response, f.Since, f.Until} {
		if value != "" {
			values.Set(filterNames[i], value)
		}
	}
	return values
}

// filterArgs are the arguments of walhook.delivery_page and its siblings; nil: not filtered.
type filterArgs struct {
	webhook       *int64
	event, status *string
	httpStatus    *int64
	response      *string
	since, until  *time.Time
}

// args parses what was typed. Times are in the site's zone.
func (f *filter) args(p *person) (a filterArgs, err error) {
	optional := func(t string) *string {
		if t == "" {
			return nil
		}
		return &t
	}
	a.event, a.status, a.response = optional(f.Event), optional(f.Status), optional(f.Response)
	if a.status != nil && !slices.Contains([]string{"pending", "success", "failed"}, *a.status) {
		return a, invalid("status", "The status must be pending, success or failed.")
	}
	if f.Webhook != "" {
		if a.webhook = number(f.Webhook); a.webhook == nil {
			return a, invalid("webhook", "Enter the webhook's id, a number.")
		}
	}
	if f.HTTPStatus != "" {
		if a.httpStatus = number(f.HTTPStatus); a.httpStatus == nil || *a.httpStatus < 100 || *a.httpStatus > 999 {
			return a, invalid("http_status", "Write an HTTP status, such as 500.")
		}
	}
	if a.since, err = p.moment("since", f.Since); err == nil {
		a.until, err = p.moment("until", f.Until)
	}
	return a, err
}

// moment reads a time of the site's zone.
func (p *person) moment(column, typed string) (*time.Time, error) {
	if typed == "" {
		return nil, nil
	}
	loc := p.zone.loc
	if loc == nil {
		loc = time.UTC
	}
	for _, layout := range []string{localLayout, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, typed, loc); err == nil {
			return &t, nil
		}
	}
	return nil, invalid(column, "Enter a time such as 2026-01-31T15:00.")
}

// pageKey is where a page of the log begins: after the delivery with this last attempt, local, and id.
type pageKey struct {
	at *time.Time // nil: after a delivery without an attempt
	id *int64     // nil: at the newest
}

func parseKey(typed string) (k pageKey) {
	at, id, _ := strings.Cut(typed, "~")
	if k.id = number(id); k.id == nil {
		return pageKey{}
	}
	if t, err := time.Parse(keyLayout, at); err == nil {
		k.at = &t
	}
	return k
}

func (d *deliveryRow) key() string {
	at := ""
	if d.DeliveredAtLocal != nil {
		at = d.DeliveredAtLocal.Format(keyLayout)
	}
	return at + "~" + strconv.FormatInt(d.ID, 10)
}

func readDeliveries(ctx context.Context, tx pgx.Tx, a filterArgs, k pageKey, limit int) ([]deliveryRow, error) {
	rows, err := tx.Query(ctx, `select `+deliveryColumns+`
		from walhook.delivery_page($1, $2, $3, $4::integer, $5, $6, $7, $8::timestamp, $9, $10) d
		left join walhook.webhook_overview o on o.id = d.webhook_id`,
		a.webhook, a.event, a.status, a.httpStatus, a.response, a.since, a.until, k.at, k.id, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (d deliveryRow, err error) { return d, d.scan(row) })
}

// deliveriesData is what deliveries.html shows.
type deliveriesData struct {
	Filter      filter
	Rows        []deliveryRow
	Events      []string
	Next, First string // addresses; "": none
	Live, CSV   string
	Redeliver   string // address of the question; "": nothing of what is filtered can have failed
	SearchedTo  *time.Time
	Filtered    bool
	Zone        string
}

// Hidden is the filter, for a form.
func (d *deliveriesData) Hidden() url.Values { return d.Filter.query() }

// Statuses are what the filter offers.
func (d *deliveriesData) Statuses() []string { return []string{"pending", "success", "failed"} }

func (s *Server) readDeliveriesPage(ctx context.Context, p *person, query url.Values) (*deliveriesData, error) {
	data := &deliveriesData{Filter: filterOf(query), Zone: p.zone.name}
	filtered := data.Filter.query()
	data.Filtered = len(filtered) > 0
	args, wrong := data.Filter.args(p)
	err := p.tx(ctx, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "select walhook.event_names()").Scan(&data.Events); err != nil || wrong != nil {
			return err
		}
		var err error
		data.Rows, err = readDeliveries(ctx, tx, args, parseKey(query.Get("before")), deliveriesPerPage+1)
		return err
	})
	if err != nil || wrong != nil {
		return data, cmp.Or(err, wrong)
	}
	address := func(path string, more ...string) string {
		values := data.Filter.query()
		for i := 0; i < len(more); i += 2 {
			values.Set(more[i], more[i+1])
		}
		if len(values) == 0 {
			return path
		}
		return path + "?" + values.Encode()
	}
	if n := len(data.Rows); n > 0 && data.Rows[n-1].Status == nil {
		stop := data.Rows[n-1]
		data.Rows, data.SearchedTo, data.Next = data.Rows[:n-1], stop.DeliveredAt, address("/deliveries", "before", stop.key())
	} else if n > deliveriesPerPage {
		data.Rows = data.Rows[:deliveriesPerPage]
		data.Next = address("/deliveries", "before", data.Rows[deliveriesPerPage-1].key())
	}
	if query.Get("before") != "" {
		data.First = address("/deliveries")
	} else {
		data.Live = address("/deliveries/live")
	}
	data.CSV = address("/deliveries/csv")
	if s := data.Filter.Status; s == "" || s == "failed" {
		data.Redeliver = address("/deliveries/redeliver")
	}
	return data, nil
}

func (s *Server) deliveries(w http.ResponseWriter, r *http.Request, p *person) error {
	data, err := s.readDeliveriesPage(r.Context(), p, r.URL.Query())
	if err != nil {
		return s.renderRefused(w, r, p, err, "deliveries.html", "Deliveries", data)
	}
	return s.render(w, r, p, http.StatusOK, "deliveries.html", "Deliveries", data)
}

// deliveriesLive keeps the newest deliveries current.
func (s *Server) deliveriesLive(w http.ResponseWriter, r *http.Request, p *person) error {
	return s.live(w, r, p, "deliveries.html", "rows", func(ctx context.Context, p *person) (any, error) {
		filter := filterOf(r.URL.Query())
		return s.readDeliveriesPage(ctx, p, filter.query())
	})
}

// cell quotes text from outside that a spreadsheet would run as a formula.
func cell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r\n|", rune(text[0])) && number(text) == nil {
		return "'" + text
	}
	return text
}

// deliveriesCSV sends every delivery that matches the filters, page by page, so that no transaction takes long.
func (s *Server) deliveriesCSV(w http.ResponseWriter, r *http.Request, p *person) error {
	f := filterOf(r.URL.Query())
	args, err := f.args(p)
	if err != nil {
		return err
	}
	var out *csv.Writer
	for key := (pageKey{}); ; {
		var rows []deliveryRow
		err := p.tx(r.Context(), func(tx pgx.Tx) error {
			rows, err = readDeliveries(r.Context(), tx, args, key, deliveriesPerRead)
			return err
		})
		if err != nil {
			if out == nil {
				return err
			}
			panic(http.ErrAbortHandler) // the file is cut short, and the browser says so
		}
		if out == nil {
			w.Header().Set("Content-Type", "text/csv; charset=utf-8")
			w.Header().Set("Content-Disposition", `attachment; filename="deliveries.csv"`)
			out = csv.NewWriter(w)
			_ = out.Write([]string{
				"delivery_id", "webhook_id", "host", "delivered_at", "delivered_at_utc", "response_id", "event_type",
				"status", "attempts", "http_status", "error", "test",
			})
		}
		for _, d := range rows {
			if d.Status != nil {
				_ = out.Write(d.record())
			}
		}
		out.Flush()
		// A short page is the last one, unless its last row shows how far the search went.
		if n := len(rows); out.Error() != nil || n == 0 || n < deliveriesPerRead && rows[n-1].Status != nil {
			return nil
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute))
		last := rows[len(rows)-1]
		key = pageKey{last.DeliveredAtLocal, &last.ID}
	}
}

func (d *deliveryRow) record() []string {
	local, utc, status := "", "", ""
	if d.DeliveredAtLocal != nil {
		local, utc = d.DeliveredAtLocal.Format("2006-01-02 15:04:05"), d.DeliveredAt.UTC().Format(time.RFC3339)
	}
	if d.HTTPStatus != nil {
		status = strconv.Itoa(*d.HTTPStatus)
	}
	return []string{
		strconv.FormatInt(d.ID, 10), strconv.FormatInt(d.WebhookID, 10), cell(text(d.Host)), local, utc,
		cell(d.ResponseID), d.EventType, text(d.Status), strconv.Itoa(d.Attempts), status, cell(text(d.Error)), strconv.FormatBool(d.Test),
	}
}

func (s *Server) askRedeliverAll(w http.ResponseWriter, r *http.Request, p *person) error {
	f := filterOf(r.URL.Query())
	args, err := f.args(p)
	if err != nil {
		return err
	}
	var failed string
	err = p.scan(r.Context(), []any{&failed}, "select walhook.count_failed($1, $2, $3::integer, $4, $5, $6)",
		args.webhook, args.event, args.httpStatus, args.response, args.since, args.until)
	if err != nil {
		return err
	}
	what := "Nothing that matches the filters has failed, or all of it has been redelivered already."
	switch failed {
	case "0":
	case "1":
		what = "1 failed delivery is sent again, as a new delivery with its original webhook-id."
	default:
		what = failed + " failed deliveries are sent again, as new deliveries with their original webhook-id."
	}
	q := &question{
		Sentences: []string{what, "Tests, deliveries of deleted webhooks, and deliveries whose redelivery " +
			"has succeeded or is pending are left out."},
		Button: "Redeliver all that failed", Action: "/deliveries/redeliver", Back: "/deliveries?" + f.query().Encode(),
	}
	if failed == "0" {
		q.Button = ""
	}
	for name, values := range f.query() {
		q.Fields = append(q.Fields, choice{name, values[0]})
	}
	return s.ask(w, r, p, "Redeliver all that failed?", q)
}

func (s *Server) redeliverAll(w http.ResponseWriter, r *http.Request, p *person) error {
	if err := r.ParseForm(); err != nil {
		return err
	}
	f := filterOf(r.PostForm)
	args, err := f.args(p)
	if err != nil {
		return err
	}
	var queued int64
	err = p.scan(r.Context(), []any{&queued}, "select walhook.redeliver_matching($1, $2, $3::integer, $4, $5, $6)",
		args.webhook, args.event, args.httpStatus, args.response, args.since, args.until)
	if err != nil {
		return err
	}
	flash := counted(count(queued), "delivery is", "deliveries are") + " queued again."
	return s.redirect(w, r, "/deliveries?"+f.query().Encode(), p.said(flash))
}
