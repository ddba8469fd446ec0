package post

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

var discardLog = log.New(io.Discard, "", 0)

func TestRequestIsExactlyAsPromised(t *testing.T) {
	t.Parallel()
	type received struct {
		method, uri, host string
		header            http.Header
		body              []byte
		length            int64
	}
	got := make(chan received, 1)
	s := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- received{r.Method, r.RequestURI, r.Host, r.Header, body, r.ContentLength}
	})
	host := strings.TrimPrefix(s.URL, "http://")
	target := newTestTarget(t, "http://anna:pa%24s@"+host+"/hook/%2Fx?a=b&c#fragment", specSecret)
	body := AppendBody(nil, "response.completed", time.Unix(1773859449, 0), "1112057", true)
	c := newTestClient(t, ClientConfig{Version: "1.2.3"})
	before := time.Now().Truncate(time.Second)
	if o := c.Attempt(t.Context(), Request{Target: target, MessageID: "msg_1", Body: body}); o.Kind != Success {
		t.Fatalf("outcome: %+v", o)
	}
	r := <-got
	if r.method != "POST" || r.uri != "/hook/%2Fx?a=b&c" || r.host != host || r.length != int64(len(body)) {
		t.Errorf("request: %+v", r)
	}
	if want := `{"EventType":"response.completed","Timestamp":1773859449,"Data":{"ResponseId":1112057}}`; string(r.body) != want {
		t.Errorf("body: %s", r.body)
	}
	receiver, err := standardwebhooks.NewWebhook(specSecret)
	if err != nil {
		t.Fatal(err)
	}
	if err := receiver.Verify(r.body, r.header); err != nil {
		t.Errorf("signature: %v", err)
	}
	seconds, err := strconv.ParseInt(r.header.Get("webhook-timestamp"), 10, 64)
	if at := time.Unix(seconds, 0); err != nil || at.Before(before) || at.After(time.Now()) {
		t.Errorf("webhook-timestamp %q is not the time of the attempt", r.header.Get("webhook-timestamp"))
	}
	r.header.Del("webhook-timestamp")
	r.header.Del("webhook-signature")
	want := http.Header{
		"Content-Type":   {"application/json"},
		"Content-Length": {strconv.Itoa(len(body))},
		"User-Agent":     {"walhook/1.2.3"},
		"Webhook-Id":     {"msg_1"},
		"Authorization":  {"Basic " + base64.StdEncoding.EncodeToString([]byte("anna:pa$s"))},
	}
	if diff := cmp.Diff(want, r.header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
}

// A webhook's own headers come beside the others and change nothing of them, but for the credentials of the URL.
func TestOwnHeaders(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	s := newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, "no such key %s, nor %q of %s", r.Header["X-Key"], r.Header["Idempotency-Key"], strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	})
	target := newTestTarget(t, "http://anna:pa%24s@"+strings.TrimPrefix(s.URL, "http://")+"/", specSecret)
	c := newTestClient(t, ClientConfig{Version: "1.2.3"})
	send := func() (http.Header, Outcome) {
		o := c.Attempt(t.Context(), Request{Target: target, MessageID: "msg_1", Test: true, Body: []byte(`{}`)})
		header := <-got
		if signature := header.Get("webhook-signature"); !strings.HasPrefix(signature, "v1,") {
			t.Errorf("webhook-signature: %q", signature)
		}
		header.Del("webhook-timestamp")
		header.Del("webhook-signature")
		return header, o
	}
	want, _ := send()
	if got := want.Get("walhook-test"); got != "true" {
		t.Errorf("walhook-test of a test: %q", got)
	}
	target.SetHeaders(map[string]string{"X-Key": " key-hunter2 ", "authorization": "Bearer to-ken", "Idempotency-Key": "ü", "X-Empty": ""})
	for name, value := range map[string]string{"X-Key": "key-hunter2", "Authorization": "Bearer to-ken", "Idempotency-Key": "ü", "X-Empty": ""} {
		want[name] = []string{value}
	}
	header, o := send()
	if diff := cmp.Diff(want, header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	// An echo of them is not kept.
	if want := `HTTP 400 Bad Request: no such key [[redacted]], nor ["ü"] of [redacted]`; o.Error != want {
		t.Errorf("error %q, not %q", o.Error, want)
	}
}

func TestUnsignedRequestHasNoSignature(t *testing.T) {
	t.Parallel()
	s := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Webhook-Signature", "Authorization", "Accept-Encoding"} {
			if values, found := r.Header[name]; found {
				t.Errorf("%s: %q", name, values)
			}
		}
	})
	if o := post(t, newTestClient(t, ClientConfig{}), s.URL); o.Kind != Success {
		t.Errorf("outcome: %+v", o)
	}
}

func TestEveryStatusHasItsRule(t *testing.T) {
	t.Parallel()
	c := newTestClient(t, ClientConfig{})
	tests := []struct {
		status   int
		location string
		want     Outcome
	}{
		{200, "", Outcome{Kind: Success}},
		{201, "", Outcome{Kind: Success}},
		{202, "", Outcome{Kind: Success}},
		{204, "", Outcome{Kind: Success}},
		{299, "", Outcome{Kind: Success}},
		{300, "", Outcome{Kind: Retry, Error: "HTTP 300 Multiple Choices: redirects are not followed"}},
		{301, "https://user:pw@other.example:8443/secret?x=y", Outcome{Kind: Retry, Error: "HTTP 301 Moved Permanently: redirect to https://other.example:8443 not followed"}},
		{302, "/secret", Outcome{Kind: Retry, Error: "HTTP 302 Found: redirect to http://127.0.0.1 not followed"}},
		{303, "https://other.example", Outcome{Kind: Retry, Error: "HTTP 303 See Other: redirect to https://other.example not followed"}},
		{307, "javascript:secret", Outcome{Kind: Retry, Error: "HTTP 307 Temporary Redirect: redirect to (unreadable URL) not followed"}},
		{308, "http://h/%zz", Outcome{Kind: Retry, Error: "HTTP 308 Permanent Redirect: redirect to (unreadable URL) not followed"}},
		{304, "", Outcome{Kind: Retry, Error: "HTTP 304 Not Modified: redirects are not followed"}},
		{400, "", Outcome{Kind: Retry, Error: "HTTP 400 Bad Request: because"}},
		{401, "", Outcome{Kind: Retry, Error: "HTTP 401 Unauthorized: because"}},
		{404, "", Outcome{Kind: Retry, Error: "HTTP 404 Not Found: because"}},
		{410, "", Outcome{Kind: Gone, Error: "HTTP 410 Gone: because"}},
		{429, "", Outcome{Kind: Retry, Error: "HTTP 429 Too Many Requests: because", RetryAfter: 2 * time.Minute, SlowEndpoint: true}},
		{500, "", Outcome{Kind: Retry, Error: "HTTP 500 Internal Server Error: because"}},
		{502, "", Outcome{Kind: Retry, Error: "HTTP 502 Bad Gateway: because", SlowEndpoint: true}},
		{503, "", Outcome{Kind: Retry, Error: "HTTP 503 Service Unavailable: because", RetryAfter: 2 * time.Minute, SlowEndpoint: true}},
		{504, "", Outcome{Kind: Retry, Error: "HTTP 504 Gateway Timeout: because", SlowEndpoint: true}},
		{599, "", Outcome{Kind: Retry, Error: "HTTP 599: because"}},
		{999, "", Outcome{Kind: Retry, Error: "HTTP 999: because"}},
	}
	for _, tt := range tests {
		t.Run(strconv.Itoa(tt.status)+tt.location, func(t *testing.T) {
			t.Parallel()
			s := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "120")
				if tt.location != "" {
					w.Header().Set("Location", tt.location)
				}
				w.WriteHeader(tt.status)
				if tt.status != http.StatusNoContent && tt.status != http.StatusNotModified {
					fmt.Fprint(w, "because")
				}
			})
			before := time.Now()
			got := post(t, c, s.URL+"/hook")
			if got.Started.Before(before) || got.Duration <= 0 || got.Started.Add(got.Duration).After(time.Now()) {
				t.Errorf("started %v, took %v", got.Started, got.Duration)
			}
			got.Error = strings.ReplaceAll(got.Error, s.URL, "http://127.0.0.1")
			tt.want.HTTPStatus = tt.status
			tt.want.Started, tt.want.Duration = got.Started, got.Duration
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRetryAfterIsBounded(t *testing.T) {
	t.Parallel()
	s := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "999999999")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	if o := post(t, newTestClient(t, ClientConfig{RetryCap: time.Hour}), s.URL); o.RetryAfter != time.Hour {
		t.Errorf("outcome: %+v", o)
	}
}

// Several values are nobody's standard: the first one counts.
func TestSeveralRetryAfters(t *testing.T) {
	t.Parallel()
	for want, values := range map[time.Duration][]string{2 * time.Minute: {"120", "3600"}, 0: {"soon", "120"}} {
		s := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Retry-After"] = values
			w.WriteHeader(http.StatusTooManyRequests)
		})
		if o := post(t, newTestClient(t, ClientConfig{}), s.URL); o.RetryAfter != want {
			t.Errorf("%q: %+v", values, o)
		}
	}
}

// Line ends in a URL stay what they are there, and no part of it makes a header or a second request.
func TestURLInjectsNothing(t *testing.T) {
	t.Parallel()
	const line = "%0d%0aX-Injected:%20yes%0d%0a%0d%0a"
	const lines = line + "POST%20/inner%20HTTP/1.1%0d%0a"
	got := make(chan *http.Request, 10)
	s := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) { got <- r })
	host := strings.TrimPrefix(s.URL, "http://")
	c := newTestClient(t, ClientConfig{})
	for rawURL, uri := range map[string]string{
		"http://" + host + "/" + lines:                            "/" + lines,
		"http://" + host + "/?" + lines:                           "/?" + lines,
		"http://" + host + "/#" + lines:                           "/",
		"http://user" + line + ":pass" + line + "@" + host:        "/",
		"http://" + host + "/" + strings.Repeat("%0a", 600) + "?": "/" + strings.Repeat("%0a", 600) + "?",
	} {
		if o := post(t, c, rawURL); o.Kind != Success {
			t.Errorf("%s: %+v", rawURL, o)
			continue
		}
		r := <-got
		r.Header.Del("Authorization")
		if names := slices.Sorted(maps.Keys(r.Header)); r.RequestURI != uri || r.Host != host || !slices.Equal(names, []string{"Content-Length", "Content-Type", "User-Agent", "Webhook-Id", "Webhook-Timestamp"}) {
			t.Errorf("%s arrived as %s at %s with %v", rawURL, r.RequestURI, r.Host, names)
		}
	}
	if len(got) > 0 {
		t.Errorf("%d more requests came", len(got))
	}
	for _, host := range []string{lines, "h" + lines, "h%0d%0a", "h:80" + lines, "[::1]" + lines, "[::1%25" + lines + "]"} {
		if _, err := NewTarget("http://" + host + "/"); err == nil {
			t.Errorf("the host %s is taken", host)
		}
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 303, 307, 308} {
		var seen atomic.Int32
		s := newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
			seen.Add(1)
			http.Redirect(w, r, "/next", status)
		})
		if o := post(t, newTestClient(t, ClientConfig{}), s.URL); o.Kind != Retry || seen.Load() != 1 {
			t.Errorf("%d: %d requests, %+v", status, seen.Load(), o)
		}
	}
}

func TestErrorNeverShowsTheURL(t *testing.T) {
	t.Parallel()
	s := newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "<p>Cannot POST http://%s%s\x00</p>\n%s", r.Host, r.RequestURI, r.Header.Get("Authorization"))
	})
	o := post(t, newTestClient(t, ClientConfig{}), "http://anna:hunter2@"+strings.TrimPrefix(s.URL, "http://")+"/hooks/t0ken42?key=s3cr3t99")
	if want := "HTTP 418 I'm a teapot: <p>Cannot POST " + s.URL + "[redacted] </p> [redacted]"; o.Error != want {
		t.Errorf("got  %s\nwant %s", o.Error, want)
	}
}

// timeoutForTests is short for a test that waits for it, and long enough to reach the phase in question on a busy
// machine.
const timeoutForTests = time.Second

func TestHangingReceiver(t *testing.T) {
	t.Parallel()
	s := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	o := post(t, newTestClient(t, ClientConfig{Timeout: timeoutForTests}), s.URL)
	if o.Kind != Retry || o.HTTPStatus != 0 || o.Error != "timeout after 1s (waiting for the reply)" || o.Duration < timeoutForTests {
		t.Errorf("outcome: %+v", o)
	}
}

func TestReceiverThatNeverFinishesTheHandshake(t *testing.T) {
	t.Parallel()
	l := listen(t)
	o := post(t, newTestClient(t, ClientConfig{Timeout: timeoutForTests}), "https://"+l.Addr().String())
	if o.Kind != Retry || o.Error != "timeout after 1s (TLS handshake)" {
		t.Errorf("outcome: %+v", o)
	}
}

// drip sends a byte now and then until the client has had enough.
func drip(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
				if _, err := w.Write([]byte("x")); err != nil {
					return
				}
				w.(http.Flusher).Flush()
			}
		}
	}
}

func TestSlowDripEndsAtTheTimeout(t *testing.T) {
	t.Parallel()
	c := newTestClient(t, ClientConfig{Timeout: timeoutForTests})
	o := post(t, c, newWire(t, func(conn net.Conn) {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nX: ")
		for ; err == nil; <-tick.C {
			_, err = conn.Write([]byte("x"))
		}
	}))
	if o.Kind != Retry || o.HTTPStatus != 0 || o.Error != "timeout after 1s (waiting for the reply)" {
		t.Errorf("header: %+v", o)
	}
	o = post(t, c, newReceiver(t, drip(http.StatusGone)).URL)
	if o.Kind != Gone || o.HTTPStatus != 410 || !strings.HasPrefix(o.Error, "HTTP 410 Gone") {
		t.Errorf("410: %+v", o)
	}
}

// The status line of a success decides: its body may drip, never end, or outlive the daemon, and holds the attempt up
// for a moment at most.
func TestSuccessIsDecidedByItsStatus(t *testing.T) {
	t.Parallel()
	hang := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	c := newTestClient(t, ClientConfig{Timeout: time.Hour})
	for name, handler := range map[string]http.HandlerFunc{"drips": drip(http.StatusOK), "never ends": hang} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if o := post(t, c, newReceiver(t, handler).URL); o.Kind != Success || o.Error != "" {
				t.Errorf("outcome: %+v", o)
			}
		})
	}
	t.Run("while the daemon ends", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		s := newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
			hang(w, r)
		})
		timer := time.AfterFunc(maxDrain/2, cancel)
		defer timer.Stop()
		if o := c.Attempt(ctx, Request{Target: newTestTarget(t, s.URL), MessageID: "msg_1", Body: []byte(`{}`)}); o.Kind != Success && o.HTTPStatus != 0 {
			t.Errorf("outcome: %+v", o)
		}
	})
}

// A reply that was read to its end costs no connection, and one that was not costs its own.
func TestConnectionsOutliveReplies(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]int{"": 1, "short": 1, strings.Repeat("x", maxReply/2): 1, strings.Repeat("x", 64*maxReply): 3} {
		t.Run(strconv.Itoa(len(body)), func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			peers := map[string]bool{}
			s := newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				peers[r.RemoteAddr] = true
				mu.Unlock()
				_, _ = io.WriteString(w, body)
			})
			c := newTestClient(t, ClientConfig{})
			for range 3 {
				if o := post(t, c, s.URL); o.Kind != Success {
					t.Errorf("outcome: %+v", o)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if len(peers) != want {
				t.Errorf("three requests took %d connections, not %d", len(peers), want)
			}
		})
	}
}

// Whatever a URL holds that may not stand in a request line goes out percent-encoded, in path and query alike.
func TestNoURLGoesOutRaw(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	s := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) { got <- r.RequestURI })
	c := newTestClient(t, ClientConfig{})
	for url, want := range map[string]string{
		"/h?x=\u00e9":                 "/h?x=%C3%A9",
		"/\u00e9?x=%C3%A9":            "/%C3%A9?x=%C3%A9",
		"/h?\u540d=\u524d&a=b":        "/h?%E5%90%8D=%E5%89%8D&a=b",
		"/h?a=\"b\"<c>`{d}|e^f\\g":    "/h?a=%22b%22%3Cc%3E%60%7Bd%7D%7Ce%5Ef%5Cg",
		"/h\\a?b":                     "/h%5Ca?b",
		"/h?x=50%&y=%zz&z=%4":         "/h?x=50%25&y=%25zz&z=%254",
		"/h?a[b]=c&d=e+f;g=h,i:@/?!'": "/h?a[b]=c&d=e+f;g=h,i:@/?!'",
		"/h?x=1#\u00e9":               "/h?x=1",
		"?\u00e9":                     "/?%C3%A9",
		"/h?":                         "/h?",
	} {
		if o := post(t, c, s.URL+url); o.Kind != Success {
			t.Errorf("%s: %+v", url, o)
		} else if uri := <-got; uri != want {
			t.Errorf("%s went out as %s, not %s", url, uri, want)
		}
	}
}

func TestHugeReplyCountsByItsStatus(t *testing.T) {
	t.Parallel()
	endless := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			for {
				if _, err := w.Write([]byte(strings.Repeat("z", 32<<10))); err != nil {
					return
				}
			}
		}
	}
	c := newTestClient(t, ClientConfig{})
	if o := post(t, c, newReceiver(t, endless(http.StatusOK)).URL); o.Kind != Success || o.Error != "" {
		t.Errorf("200: %+v", o)
	}
	o := post(t, c, newReceiver(t, endless(http.StatusInternalServerError)).URL)
	if want := "HTTP 500 Internal Server Error: " + strings.Repeat("z", maxDetail); o.Kind != Retry || o.Error != want {
		t.Errorf("500: %+v", o)
	}
}

func TestBrokenReplies(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		reply  string
		status int
		want   string
	}{
		"nothing":             {"", 0, "connection closed before the reply ended"},
		"half a status line":  {"HTTP/1.1 20", 0, "reply is not HTTP"},
		"no HTTP":             {"SSH-2.0-secretpath\r\n\r\n", 0, "reply is not HTTP"},
		"no status":           {"HTTP/1.1 secretpath OK\r\n\r\n", 0, "reply is not HTTP"},
		"bad header":          {"HTTP/1.1 200 OK\r\nsecretpath\r\n\r\n", 0, "reply is not HTTP"},
		"two lengths":         {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 0, "reply is not HTTP"},
		"bad transfer coding": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: secretpath\r\n\r\n", 0, "reply is not HTTP"},
		"endless headers":     {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxReplyHeaders) + "\r\n\r\n", 0, "reply headers are too large"},
		"endless interim":     {strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n", maxReplyHeaders/16), 0, "reply headers are too large"},
		"cut body":            {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab", 200, ""},
		"bad chunk":           {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 200, ""},
		"no body":             {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, ""},
		"too much body":       {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nsecretpath", 200, ""},
		"chunks that end":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 200, ""},
		"bad trailer":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nsecretpath\r\n\r\n", 200, ""},
		"bad gzip":            {"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab", 200, ""},
		"204 with a body":     {"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nab", 204, ""},
		"205 with a body":     {"HTTP/1.1 205 Reset Content\r\nContent-Length: 9\r\n\r\nab", 205, ""},
		"cut body of a 500":   {"HTTP/1.1 500 secretpath\r\nContent-Length: 100\r\n\r\nno luck, none at all", 500, "HTTP 500 Internal Server Error: no luck, non"},
		"upgrade":             {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 101, "HTTP 101 Switching Protocols"},
		"interim, then final": {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, ""},
		"until the end":       {"HTTP/1.0 200 OK\r\n\r\nfine", 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rawURL := newWire(t, func(conn net.Conn) { _, _ = io.WriteString(conn, tt.reply) })
			o := post(t, newTestClient(t, ClientConfig{}), rawURL)
			if success := tt.want == ""; success != (o.Kind == Success) || o.HTTPStatus != tt.status || o.Error != tt.want {
				t.Errorf("got  %+v\nwant %d %q", o, tt.status, tt.want)
			}
		})
	}
}

func TestResetConnection(t *testing.T) {
	t.Parallel()
	// What had come when the reset did may be lost, with the status or without.
	for reply, want := range map[string][]string{
		"": {"connection reset"},
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf": {"connection reset", ""},
		"HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\n":   {"connection reset", "HTTP 500 Internal Server Error"},
	} {
		rawURL := newWire(t, func(conn net.Conn) {
			_, _ = io.WriteString(conn, reply)
			// Closing with linger 0 sends a reset.
			if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
				t.Error(err)
			}
		})
		if o := post(t, newTestClient(t, ClientConfig{}), rawURL); (o.Error == "") != (o.Kind == Success) || !slices.Contains(want, o.Error) {
			t.Errorf("%q, then a reset: %+v", reply, o)
		}
	}
}

func TestRefusedConnection(t *testing.T) {
	t.Parallel()
	l := listen(t)
	l.Close()
	if o := post(t, newTestClient(t, ClientConfig{}), "http://"+l.Addr().String()+"/secret"); o.Kind != Retry || o.Error != "connection refused" {
		t.Errorf("outcome: %+v", o)
	}
}

// A receiver that breaks a kept connection on the second request has seen that request: one attempt, one POST.
func TestBrokenKeptConnectionIsNotRepeatedInSecret(t *testing.T) {
	t.Parallel()
	var seen atomic.Int32
	s := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if seen.Add(1) == 2 {
			panic(http.ErrAbortHandler)
		}
	})
	c := newTestClient(t, ClientConfig{})
	for i, want := range []OutcomeKind{Success, Retry, Success} {
		if o := post(t, c, s.URL); o.Kind != want {
			t.Errorf("attempt %d: %+v", i+1, o)
		}
	}
	if n := seen.Load(); n != 3 {
		t.Errorf("3 attempts made %d requests", n)
	}
}

func TestShutdownAbortsAnAttempt(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	s := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
	})
	c := newTestClient(t, ClientConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	r := Request{Target: newTestTarget(t, s.URL), MessageID: "msg_1", Body: []byte(`{}`)}
	if o := c.Attempt(ctx, r); o.Kind != Aborted || o.Error != "aborted (waiting for the reply)" {
		t.Errorf("outcome: %+v", o)
	}
	if o := c.Attempt(ctx, r); o.Kind != Aborted || o.HTTPStatus != 0 {
		t.Errorf("after the end: %+v", o)
	}
}

func TestTargetPrintsAsSchemeAndHost(t *testing.T) {
	t.Parallel()
	target := newTestTarget(t, "https://user:secret@host:8443/secret?secret#secret", specSecret)
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if got := strings.Trim(fmt.Sprintf(format, target), `"`); got != "https://host:8443" {
			t.Errorf("%s: %s", format, got)
		}
	}
}

func BenchmarkAttempt(b *testing.B) {
	s := newReceiver(b, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	body := AppendBody(nil, "response.completed", time.Unix(1773859449, 0), "1112057", true)
	b.Run("walhook", func(b *testing.B) {
		b.ReportAllocs()
		c := newTestClient(b, ClientConfig{})
		r := Request{Target: newTestTarget(b, s.URL), MessageID: "msg_1", Body: body}
		for b.Loop() {
			if o := c.Attempt(b.Context(), r); o.Kind != Success {
				b.Fatal(o.Error)
			}
		}
	})
	b.Run("walhook signed", func(b *testing.B) {
		b.ReportAllocs()
		c := newTestClient(b, ClientConfig{})
		r := Request{Target: newTestTarget(b, s.URL, specSecret), MessageID: "msg_1", Body: body}
		for b.Loop() {
			if o := c.Attempt(b.Context(), r); o.Kind != Success {
				b.Fatal(o.Error)
			}
		}
	})
	b.Run("bare net http", func(b *testing.B) {
		b.ReportAllocs()
		bare := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
		b.Cleanup(bare.CloseIdleConnections)
		for b.Loop() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, s.URL, strings.NewReader(string(body)))
			if err != nil {
				b.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := bare.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
}
