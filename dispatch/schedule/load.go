package schedule

import (
	"maps"
	"slices"
	"time"
)

// request is what a load asks for. It converts to sql.LoadRequest.
type request struct {
	Tests, Enabled []int64
	Keeps          []bool
	Ordered        []int64
	Moving, Held   []int64
	After          int64
	Room, RoomDue  int32
}

// Load is a load of pending deliveries for one endpoint: what it asks for, and what it has found.
type Load struct {
	EndpointID int64
	endpoint   *Endpoint
	Asked      request
	recorded   map[int64]bool // deliveries whose results were recorded meanwhile: whether they have ended

	Tests, Due []*Delivery
	Fresh      []FreshDelivery
	Retrying   int
	DueAt      time.Time
	Stale      bool // webhooks that this process does not know have the URL, and their deliveries may come first
}

// deliveries yields all deliveries that were found.
func (l *Load) deliveries(yield func(*Delivery) bool) {
	for _, list := range [][]*Delivery{l.Tests, l.Due} {
		for _, d := range list {
			if !yield(d) {
				return
			}
		}
	}
	for _, f := range l.Fresh {
		if !yield(f.Delivery) {
			return
		}
	}
}

// FreshDelivery is a delivery that was never tried.
type FreshDelivery struct {
	*Delivery
	KeepsOrder bool

	// Others is set with the first delivery about a response: the ids of other pending deliveries about it that are not
	// among those that this load has found.
	Others []int64
}

// newLoad returns a load that asks for what the endpoint has room for.
func (e *Endpoint) newLoad() *Load {
	l := &Load{EndpointID: e.id, endpoint: e, Asked: request{
		Ordered: e.ordered(), Held: slices.Collect(maps.Keys(e.held)), After: e.cursor,
		Room: int32(e.room()), RoomDue: int32(e.roomDue()),
	}}
	asked := &l.Asked
	for _, h := range e.hooks {
		if e.blocked(h) {
			// Its deliveries are not sent, but others wait behind them.
			asked.Moving = append(asked.Moving, h.ID)
			continue
		}
		asked.Tests = append(asked.Tests, h.ID)
		if h.Enabled {
			asked.Enabled, asked.Keeps = append(asked.Enabled, h.ID), append(asked.Keeps, h.Ordered)
		}
	}
	return l
}

const (
	// maxLoadRoom is how many never-tried deliveries one round trip asks for, for all of its endpoints together.
	maxLoadRoom = maxWindow
	// maxLoadEndpoints is how many endpoints one round trip asks for.
	maxLoadEndpoints = 128
)
