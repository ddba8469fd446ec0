package sql

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// DeliveryFilter selects rows of walhook.visible_delivery, the newest first: those without an attempt, then by the end
// of the last attempt. Zero values do not filter.
type DeliveryFilter struct {
	WebhookID    int64
	EventType    string
	Status       DeliveryStatus
	ResponseID   string
	Since, Until time.Time // of the end of the last attempt; Until is exclusive
	After        *DeliveryPlace
	Limit        int
	OfFew        bool // few of the webhooks are visible: look for the newest of each
}

// DeliveryStatus is a status in walhook.delivery_log.
type DeliveryStatus string

// A pending delivery is still tried; the others have ended.
const (
	Pending   DeliveryStatus = "pending"
	Succeeded DeliveryStatus = "success"
	Failed    DeliveryStatus = "failed"
)

// DeliveryPlace is the place of a delivery in that order.
type DeliveryPlace struct {
	DeliveredAt *time.Time // nil: it has had no attempt
	DeliveryID  int64
}

// Statement returns the statement that selects these deliveries, and its arguments. It has conditions only for what is
// asked, so that the server finds the index for them and reads a page instead of the log.
func (f DeliveryFilter) Statement() (statement string, args []any) {
	arg := func(value any) string {
		args = append(args, value)
		return "$" + strconv.Itoa(len(args))
	}
	limit := arg(f.Limit)
	var common []string
	if f.WebhookID != 0 {
		common = append(common, "d.webhook_id = "+arg(f.WebhookID))
	}
	if f.EventType != "" {
		// As a function, of which the planner expects a third of the rows. Of an equation it expects so few that it sorts them.
		common = append(common, "texteq(d.event_type, "+arg(f.EventType)+")")
	}
	switch f.Status { // as literals, by which the planner leaves out what has no such row
	case Pending:
		common = append(common, "d.status = 'pending'")
	case Succeeded:
		common = append(common, "d.status = 'success'")
	case Failed:
		common = append(common, "d.status = 'failed'")
	}
	if f.ResponseID != "" {
		common = append(common, "d.response_id = "+arg(f.ResponseID))
	}

	page := func(order string, conditions ...string) string {
		from := "walhook.visible_delivery"
		if f.OfFew {
			from, conditions = "walhook.delivery_log", append(conditions, "d.webhook_id = v.id")
		}
		end := " order by " + order + " limit " + limit
		rows := "select d.* from " + from + " d where " + strings.Join(slices.Concat(common, conditions), " and ") + end
		if f.OfFew {
			rows = "select d.* from walhook.visible_webhook v cross join lateral (" + rows + ") d" + end
		}
		return "(" + rows + ")"
	}
	var pages []string
	waiting := f.Since.IsZero() && f.Until.IsZero() && (f.Status == "" || f.Status == Pending)
	switch {
	case f.After == nil && waiting:
		pages = append(pages, page("d.delivery_id desc", "d.status = 'pending'", "d.delivered_at is null"))
	case f.After != nil && f.After.DeliveredAt == nil && waiting:
		pages = append(pages, page("d.delivery_id desc", "d.status = 'pending'", "d.delivered_at is null", "d.delivery_id < "+arg(f.After.DeliveryID)))
	}

	attempted := []string{"d.delivered_at is not null"}
	if f.After != nil && f.After.DeliveredAt != nil {
		at := arg(*f.After.DeliveredAt)
		attempted = append(attempted, "(d.delivered_at, d.delivery_id) < (walhook.local_time("+at+"::timestamptz), "+arg(f.After.DeliveryID)+")")
	}
	// The indexes have local times, of which the clock repeats an hour each autumn.
	if !f.Since.IsZero() {
		since := arg(f.Since) + "::timestamptz"
		attempted = append(attempted, "d.delivered_at_tz >= "+since,
			"d.delivered_at >= least(walhook.local_time("+since+"), walhook.local_time("+since+" + interval '1 hour') - interval '1 hour')")
	}
	if !f.Until.IsZero() {
		until := arg(f.Until) + "::timestamptz"
		attempted = append(attempted, "d.delivered_at_tz < "+until,
			"d.delivered_at < greatest(walhook.local_time("+until+"), walhook.local_time("+until+" - interval '1 hour') + interval '1 hour')")
	}
	pages = append(pages, page("d.delivered_at desc, d.delivery_id desc", attempted...))
	return "select d.* from (" + strings.Join(pages, " union all ") + ") d order by d.delivered_at desc, d.delivery_id desc limit " + limit, args
}
