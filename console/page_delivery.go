package console

import (
	"context"
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

// attemptRow is an attempt of a delivery.
type attemptRow struct {
	Number     int
	At         time.Time
	DurationMS int
	HTTPStatus *int
	Error      *string
	Succeeded  bool
}

// header is one of a request.
type header struct{ Name, Value string }

// deliveryData is what delivery.html shows.
type deliveryData struct {
	D           *deliveryRow
	Waits       *string // what a pending delivery waits for
	CommittedAt time.Time
	Headers     []header
	Own         []header // the webhook's own, as they are now; for administrators
	URL         string   // "": the URL and the values of Own are hidden
	Body        string
	Attempts    []attemptRow
	Redelivered []int64 // deliveries that repeat this one
}

func readDelivery(ctx context.Context, tx pgx.Tx, id int64) (*deliveryRow, error) {
	rows, err := tx.Query(ctx, `select `+deliveryColumns+`
		from walhook.delivery_log d left join walhook.webhook_overview o on o.id = d.webhook_id
		where d.delivery_id = $1`, id)
	if err != nil {
		return nil, err
	}
	return pgx.CollectOneRow(rows, func(row pgx.CollectableRow) (*deliveryRow, error) {
		d := &deliveryRow{}
		return d, d.scan(row)
	})
}

// readDeliveryPage reads a delivery, and with reveal the URL and the webhook's own headers, which PostgreSQL refuses to
// viewers.
func readDeliveryPage(ctx context.Context, p *person, id int64, reveal bool) (*deliveryData, error) {
	data := &deliveryData{}
	return data, p.tx(ctx, func(tx pgx.Tx) error {
		var err error
		if data.D, err = readDelivery(ctx, tx, id); errors.Is(err, pgx.ErrNoRows) {
			return notFound(fmt.Sprintf("There is no delivery %d. "+
				"Old log entries may have been dropped, and some webhooks do not log successes.", id))
		} else if err != nil {
			return err
		}
		if err := data.readRequest(ctx, tx, p.admin, reveal); err != nil {
			return err
		}
		return data.readAttempts(ctx, tx)
	})
}

func (d *deliveryData) readRequest(ctx context.Context, tx pgx.Tx, admin, reveal bool) error {
	var headers map[string]string
	err := tx.QueryRow(ctx, `select r.committed_at_tz, r.headers, r.body,
			(select x.waits_for from walhook.pending x where x.delivery_id = r.delivery_id),
			(select array_agg(l.delivery_id order by l.delivery_id) from walhook.delivery_log l
			 where l.response_id = $2 and l.redelivery_of = $1)
		from walhook.delivery_request r where r.delivery_id = $1`, d.D.ID, d.D.ResponseID).
		Scan(&d.CommittedAt, &headers, &d.Body, &d.Waits, &d.Redelivered)
	if err != nil {
		return err
	}
	d.Headers = sortedHeaders(headers)
	if d.D.Host == nil || !admin && !reveal {
		return nil
	}
	var url string
	var own map[string]string
	err = tx.QueryRow(ctx, "select url, headers from walhook.webhook where id = $1", d.D.WebhookID).Scan(&url, &own)
	if d.Own = sortedHeaders(own); reveal {
		d.URL = url
	}
	return err
}

func (d *deliveryData) readAttempts(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `select attempt, attempted_at_tz, duration_ms, http_status, error, succeeded
		from walhook.delivery_attempt where delivery_id = $1 order by attempt desc limit 200`, d.D.ID)
	if err != nil {
		return err
	}
	d.Attempts, err = pgx.CollectRows(rows, pgx.RowToStructByPos[attemptRow])
	if err == nil && len(d.Attempts) == 0 && d.D.Attempts == 1 && text(d.D.Status) == "success" {
		// Only the log has a success at the first attempt.
		d.Attempts = []attemptRow{{
			Number: 1, At: *d.D.DeliveredAt, DurationMS: -1, HTTPStatus: d.D.HTTPStatus, Succeeded: true,
		}}
	}
	return err
}

func sortedHeaders(headers map[string]string) (sorted []header) {
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		sorted = append(sorted, header{name, headers[name]})
	}
	return sorted
}

func (s *Server) delivery(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	return s.showDelivery(w, r, p, id, false)
}

// revealDelivery shows what is hidden of the request. It is a POST, so that no address reveals it by itself.
func (s *Server) revealDelivery(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	return s.showDelivery(w, r, p, id, true)
}

func (s *Server) showDelivery(w http.ResponseWriter, r *http.Request, p *person, id int64, reveal bool) error {
	data, err := readDeliveryPage(r.Context(), p, id, reveal)
	if err != nil {
		return err
	}
	return s.render(w, r, p, http.StatusOK, "delivery.html", fmt.Sprintf("Delivery %d", id), data)
}

// deliveryLive keeps a pending delivery current.
func (s *Server) deliveryLive(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	return s.live(w, r, p, "delivery.html", "state", func(ctx context.Context, p *person) (any, error) {
		return readDeliveryPage(ctx, p, id, false)
	})
}

func (s *Server) redeliver(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	var queued int64
	if err := p.scan(r.Context(), []any{&queued}, "select walhook.redeliver($1)", id); err != nil {
		return err
	}
	flash := fmt.Sprintf("Delivery %d is queued again as this one.", id)
	if queued == id {
		flash = "The next attempt is due now."
	}
	return s.redirect(w, r, "/deliveries/"+strconv.FormatInt(queued, 10), p.said(flash))
}

// explained is a row of walhook.explain.
type explained struct {
	EventType, Happened *string
	WebhookID           *int64
	Host                *string
	Matched             *bool
	Reason              *string
	DeliveryID          *int64
	Status              *string
	Attempts            *int
	Error               *string
	NextAttemptAt       *time.Time
}

// responseData is what response.html shows.
type responseData struct {
	ID         string
	Rows       []explained
	Deliveries []deliveryRow
}

func (s *Server) findResponse(w http.ResponseWriter, r *http.Request, p *person) error {
	id := r.URL.Query().Get("id")
	if to := responsePath(id); strings.HasPrefix(to, "/responses/") {
		return s.redirect(w, r, to, "")
	}
	return s.showResponse(w, r, p, id)
}

func (s *Server) response(w http.ResponseWriter, r *http.Request, p *person) error {
	return s.showResponse(w, r, p, r.PathValue("id"))
}

func (s *Server) showResponse(w http.ResponseWriter, r *http.Request, p *person, id string) error {
	data := &responseData{ID: id}
	if strings.ContainsRune(id, 0) {
		return notFound("No response has this id.")
	}
	err := p.tx(r.Context(), func(tx pgx.Tx) error {
		rows, err := tx.Query(r.Context(), `select event_type, happened, webhook_id, host, matched, reason,
				delivery_id, status, attempts, error, next_attempt_at_tz
			from walhook.explain($1::text)`, id)
		if err != nil {
			return err
		}
		if data.Rows, err = pgx.CollectRows(rows, pgx.RowToStructByPos[explained]); err != nil {
			return err
		}
		data.Deliveries, err = readDeliveries(r.Context(), tx, filterArgs{response: &id}, pageKey{}, deliveriesPerPage)
		return err
	})
	if err != nil {
		return err
	}
	return s.render(w, r, p, http.StatusOK, "response.html", "Response "+id, data)
}
