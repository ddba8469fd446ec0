package console

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
)

// overviewData is what overview.html shows.
type overviewData struct {
	SwitchedOn, Streams, PendingMore           bool
	Reason                                     string // why it does not stream
	LagBytes                                   *int64
	LagSeconds                                 *float64
	Daemons, Pending, InTrouble, OpenIncidents int64
	Enabled, Disabled                          int64
	OldestPending                              *time.Time
	Endpoints                                  []troubledEndpoint
	Incidents                                  []openIncident
	Day                                        day
	At                                         time.Time
}

type troubledEndpoint struct {
	Host     string
	Webhooks []int64
	Failures int
	Error    string
	Since    *time.Time
}

type openIncident struct {
	At           time.Time
	Kind, Detail string
}

// listed bounds the lists of the overview.
const listed = 5

func (s *Server) overview(w http.ResponseWriter, r *http.Request, p *person) error {
	data, err := readOverview(r.Context(), p)
	if err != nil {
		return err
	}
	return s.render(w, r, p, http.StatusOK, "overview.html", "Overview", data)
}

func (s *Server) overviewLive(w http.ResponseWriter, r *http.Request, p *person) error {
	return s.live(w, r, p, "overview.html", "live", func(ctx context.Context, p *person) (any, error) {
		return readOverview(ctx, p)
	})
}

func readOverview(ctx context.Context, p *person) (*overviewData, error) {
	d := &overviewData{}
	return d, p.tx(ctx, func(tx pgx.Tx) error {
		var reason *string
		err := tx.QueryRow(ctx, `select switched_on, streams, reason, lag_bytes, lag_seconds, daemons,
				pending, pending_more, oldest_pending_at, endpoints_in_trouble, open_incidents,
				webhooks_enabled, webhooks_disabled, now() from walhook.overview`).
			Scan(&d.SwitchedOn, &d.Streams, &reason, &d.LagBytes, &d.LagSeconds, &d.Daemons,
				&d.Pending, &d.PendingMore, &d.OldestPending, &d.InTrouble, &d.OpenIncidents,
				&d.Enabled, &d.Disabled, &d.At)
		if err != nil {
			return err
		}
		d.Reason = text(reason)
		rows, err := tx.Query(ctx, `select host, webhook_ids, failures, last_error, failing_since
			from walhook.troubled_endpoint order by failures desc, endpoint_id limit $1`, listed)
		if err != nil {
			return err
		}
		if d.Endpoints, err = pgx.CollectRows(rows, pgx.RowToStructByPos[troubledEndpoint]); err != nil {
			return err
		}
		rows, err = tx.Query(ctx, "select at, kind, detail from walhook.incident where resolved_at is null order by at desc limit $1", listed)
		if err != nil {
			return err
		}
		if d.Incidents, err = pgx.CollectRows(rows, pgx.RowToStructByPos[openIncident]); err != nil {
			return err
		}
		rows, err = tx.Query(ctx, "select hour, deliveries, failures, estimated from walhook.hourly_deliveries()")
		if err != nil {
			return err
		}
		d.Day.hours, err = pgx.CollectRows(rows, pgx.RowToStructByPos[dayHour])
		d.Day.zone = p.zone
		return err
	})
}

// Lag says how far the stream is behind.
func (d *overviewData) Lag() string {
	switch {
	case d.LagSeconds == nil:
		return "unknown"
	case *d.LagSeconds < 1:
		return "none"
	}
	return age(time.Duration(*d.LagSeconds * float64(time.Second)))
}

// LagSize is the WAL that is not stored yet.
func (d *overviewData) LagSize() string {
	if d.LagBytes == nil {
		return ""
	}
	return size(*d.LagBytes) + " of WAL"
}

// Waiting is the age of the oldest pending delivery.
func (d *overviewData) Waiting() string {
	if d.OldestPending == nil {
		return ""
	}
	return "oldest " + age(d.At.Sub(*d.OldestPending))
}

// Ago is how long something has lasted.
func (d *overviewData) Ago(since *time.Time) string {
	if since == nil {
		return ""
	}
	return age(d.At.Sub(*since))
}

// size shows a number of bytes.
func size(bytes int64) string {
	const unit = 1024
	if bytes < unit {
		return plural(int(bytes), "byte")
	}
	value, name := float64(bytes), ""
	for _, name = range []string{"kB", "MB", "GB", "TB"} {
		if value /= unit; value < unit {
			break
		}
	}
	return fmt.Sprintf("%.1f %s", value, name)
}
