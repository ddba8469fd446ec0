package post

import (
	"fmt"
	"net/http"
	"time"
)

// OutcomeKind is what an attempt means for its delivery.
type OutcomeKind uint8

// The kinds of Outcome.
const (
	Success OutcomeKind = iota + 1 // answered with 2xx
	Retry                          // failed; to be retried while attempts are left
	Gone                           // answered with 410: the delivery has failed for good, and the webhook is to be disabled
	Aborted                        // cancelled by this process, such as at shutdown: does not count as an attempt
)

// String returns the kind's name.
func (k OutcomeKind) String() string {
	switch k {
	case Success:
		return "success"
	case Retry:
		return "retry"
	case Gone:
		return "gone"
	case Aborted:
		return "aborted"
	default:
		return "unknown"
	}
}

// Outcome is the outcome of one attempt. Error is safe to store, log and show: it has no more of the webhook's URL than
// scheme and host.
type Outcome struct {
	Kind       OutcomeKind
	HTTPStatus int    // 0: there was no reply
	Error      string // empty on success

	// RetryAfter is the least wait that the receiver asked for, by 429 or 503, within the client's bound; 0: none. It
	// lengthens the backoff and never shortens it.
	RetryAfter time.Duration

	// SlowEndpoint means that the reply (429, 502, 503 or 504) is about the endpoint as a whole, not about this
	// message.
	SlowEndpoint bool

	Started  time.Time
	Duration time.Duration
}

// Misconfigured is the outcome of an attempt that could not be made because of the webhook itself, from the error of
// [NewTarget]. It is retried like any other failure, since an administrator may correct the webhook meanwhile.
func Misconfigured(err error, now time.Time) Outcome {
	return Outcome{Kind: Retry, Error: "webhook is misconfigured: " + err.Error(), Started: now}
}

// fromStatus fills in what the status alone decides. Detail and location are safe already.
func (o *Outcome) fromStatus(status int, detail, location string) {
	o.HTTPStatus = status
	switch {
	case status >= 200 && status < 300:
		o.Kind = Success
		return
	case status == http.StatusGone:
		o.Kind = Gone
	default:
		o.Kind = Retry
	}
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		o.SlowEndpoint = true
	}
	o.Error = statusLine(status)
	switch {
	case location != "":
		o.Error += ": redirect to " + location + " not followed"
	case status >= 300 && status < 400:
		o.Error += ": redirects are not followed"
	case detail != "":
		o.Error += ": " + detail
	}
}

// statusLine uses our own words for the status: the receiver's may hold anything.
func statusLine(status int) string {
	if text := http.StatusText(status); text != "" {
		return fmt.Sprintf("HTTP %d %s", status, text)
	}
	return fmt.Sprintf("HTTP %d", status)
}
