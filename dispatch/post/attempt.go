package post

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// maxReply is how many bytes of a reply's body are read. A connection can be used again only when the body was read to
// its end; a longer one costs the connection.
const maxReply = 64 << 10

// maxDrain is how long the body of a success may take, for its connection to be used again.
const maxDrain = time.Second

// Request is one message for one target.
type Request struct {
	Target    *Target
	MessageID string
	Test      bool // a test delivery, which the header walhook-test marks

	// Body must not be changed after the call, not even after its return: the transport may still be sending it.
	Body []byte
}

// These values are shared by all requests: the transport does not write to headers.
var (
	contentType = []string{"application/json"}
	isTest      = []string{"true"}
)

// Attempt makes one POST and returns its outcome, which includes every error.
//
// Only the status decides. The body of a 2xx is read so that the connection can be used again, and any other body is
// only detail. If ctx ends before the status arrives, the outcome is Aborted.
func (c *Client) Attempt(ctx context.Context, r Request) Outcome {
	started := time.Now()
	o := c.attempt(ctx, r, started)
	o.Started, o.Duration = started, time.Since(started)
	return o
}

func (c *Client) attempt(parent context.Context, r Request, started time.Time) Outcome {
	signature, err := r.Target.signer.Sign(r.MessageID, started, r.Body)
	if err != nil {
		return Outcome{Kind: Retry, Error: "message could not be signed"}
	}
	ctx, cancel := context.WithTimeout(parent, c.timeout)
	defer cancel()
	var at progress
	req, err := c.newRequest(at.trace(ctx), r, started, signature)
	if err != nil {
		return Misconfigured(err, started)
	}
	resp, err := c.connections.transport().RoundTrip(req)
	if err != nil {
		return c.failed(parent, ctx, at.phase(), err)
	}
	defer resp.Body.Close()

	var o Outcome
	buf := replyBuffers.Get().(*[replyBuffer]byte)
	defer replyBuffers.Put(buf)
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		o.fromStatus(resp.StatusCode, "", "")
		late := time.AfterFunc(maxDrain, cancel)
		defer late.Stop()
		_, _, _ = readReply(resp, buf[:])
		return o
	}
	at.reach(phaseReading)
	head, more, err := readReply(resp, buf[:])
	hide := r.Target.redactor()
	o.fromStatus(resp.StatusCode, hide.detail(head, more || err != nil), hide.redact(location(resp)))
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
		o.RetryAfter = ParseRetryAfter(resp.Header.Get("Retry-After"), time.Now(), c.retryCap)
	}
	return o
}

func (c *Client) newRequest(ctx context.Context, r Request, at time.Time, signature string) (*http.Request, error) {
	u, auth, err := r.Target.address()
	if err != nil {
		return nil, err
	}
	bare := http.Request{Method: http.MethodPost, URL: u, Host: u.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	req := bare.WithContext(ctx)
	// One array behind the values of this attempt saves an allocation each.
	values := [...]string{r.MessageID, strconv.FormatInt(at.Unix(), 10), signature}
	req.Header = make(http.Header, 8+len(r.Target.headers))
	req.Header["Content-Type"] = contentType
	req.Header["User-Agent"] = c.userAgent
	// In lower case, as Standard Webhooks spells them. For HTTP it makes no difference.
	req.Header["webhook-id"] = values[0:1:1]
	req.Header["webhook-timestamp"] = values[1:2:2]
	if signature != "" {
		req.Header["webhook-signature"] = values[2:3:3]
	}
	if r.Test {
		req.Header["walhook-test"] = isTest
	}
	if auth != "" && r.Target.headers["authorization"] == nil {
		req.Header["Authorization"] = []string{auth}
	}
	maps.Copy(req.Header, r.Target.headers)
	req.ContentLength = int64(len(r.Body))
	// With GetBody the transport moves on to another connection if nothing was sent on the first, and only then. A POST
	// that the server may have seen is an attempt, which the caller counts and repeats.
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.Body)), nil }
	req.Body, _ = req.GetBody()
	return req, nil
}

// failed returns the outcome of an attempt without a reply: aborted by the caller, timed out, or another error.
func (c *Client) failed(parent, ctx context.Context, at phase, err error) Outcome {
	switch {
	case parent.Err() != nil:
		return Outcome{Kind: Aborted, Error: "aborted (" + at.String() + ")"}
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || isTimeout(err):
		return Outcome{Kind: Retry, Error: "timeout after " + c.timeout.String() + " (" + at.String() + ")"}
	default:
		return Outcome{Kind: Retry, Error: describe(err, at)}
	}
}

const replyBuffer = 2 * detailWindow

var replyBuffers = sync.Pool{New: func() any { return new([replyBuffer]byte) }}

// readReply reads the body to its end or past maxReply, and returns its first bytes, at most detailWindow, kept in buf.
// more reports whether the body went on after them.
func readReply(resp *http.Response, buf []byte) (head []byte, more bool, err error) {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		// The body is the connection itself, which carries no reply.
		return nil, false, nil
	}
	total, kept := 0, 0
	for total <= maxReply {
		var n int
		if kept < detailWindow {
			n, err = resp.Body.Read(buf[kept:detailWindow])
			kept += n
		} else {
			n, err = resp.Body.Read(buf[detailWindow:])
		}
		total += n
		if err != nil {
			break
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return buf[:kept], total > kept, err
}

// maxLocation is how many bytes a scheme, a name (RFC 1035, section 2.3.4) and a port have at most.
const maxLocation = len("https://") + 255 + len(":65535")

// location returns scheme and host of a redirect, or "".
func location(resp *http.Response) string {
	if resp.StatusCode < 300 || resp.StatusCode >= 400 {
		return ""
	}
	to := resp.Header.Get("Location")
	if to == "" {
		return ""
	}
	u, err := resp.Request.URL.Parse(to)
	if err != nil {
		return unreadableURL
	}
	if shown := displayURL(u); len(shown) <= maxLocation {
		return shown
	}
	return unreadableURL
}
