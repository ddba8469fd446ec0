package schedule

import (
	"time"

	"walhook/dispatch/post"
)

// Webhook is a row of walhook.webhook. It is immutable: a reload replaces the webhooks that have changed.
type Webhook struct {
	ID             int64
	EndpointID     int64
	Version        int64 // xmin of its row: changes with every edit
	Activation     int64 // changes with a new URL, and when it is enabled again
	Enabled        bool
	Ordered        bool
	Logged         bool
	Target         *post.Target
	TargetErr      error // why target is nil
	URL            string
	Secret         string
	PreviousSecret string    // signs as well until PreviousUntil
	PreviousUntil  time.Time // by the store's clock
	Headers        map[string]string

	// PreviousEndpoints are endpoints of previous URLs at which attempts may be in flight. Until those have ended,
	// nothing is sent to the current URL, because it might be sent twice.
	PreviousEndpoints []int64
}

// DisplayURL is the part of the URL that may be shown to everybody.
func (w *Webhook) DisplayURL() string { return post.DisplayURL(w.URL) }

// Moving reports whether attempts may be in flight at a previous URL.
func (w *Webhook) Moving() bool { return len(w.PreviousEndpoints) > 0 }

// equivalent reports whether nothing differs that decides which deliveries belong in memory, and in what order. An
// attempt takes everything else from its webhook when it starts, so an edit of every description loads no delivery.
func (w *Webhook) equivalent(o *Webhook) bool {
	return o != nil && w.EndpointID == o.EndpointID && w.Activation == o.Activation &&
		w.Enabled == o.Enabled && w.Ordered == o.Ordered && w.Moving() == o.Moving()
}

// versionOf returns the version of an endpoint: it changes with any of its webhooks. The query Enqueue computes the
// same.
func versionOf(hooks []*Webhook) (version int64) {
	for _, h := range hooks {
		version += h.Version * (h.ID%1021 + 1)
	}
	return version
}

// Webhooks are all webhooks at one moment.
type Webhooks struct {
	Version   string
	Enabled   bool // the site's Use Webhooks switch
	HasMoves  bool // some webhook may have attempts in flight at a previous URL
	NumericID bool // ResponseId is a JSON number
	ByID      map[int64]*Webhook
}
