package testenv

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// Request is a request that a Receiver got.
type Request struct {
	Path   string
	Header http.Header
	Body   string
	At     time.Time
	Proto  string
	Nth    int // of its path, from 1
}

// Reply is how a Receiver answers. The zero value is an empty 200.
type Reply struct {
	Status int
	Header map[string]string
	Body   string
	Delay  time.Duration
	Hang   bool          // answer nothing until the client has gone
	Reset  bool          // break the connection
	Drip   time.Duration // send the body a byte at a time with this pause
}

// Receiver is an HTTP server that records what it gets and answers as it is told.
type Receiver struct {
	server *httptest.Server

	mu       sync.Mutex
	requests []Request
	counts   map[string]int
	replies  map[string]func(Request) Reply
	inFlight map[string]int
	most     map[string]int
	closed   chan struct{}
}

// NewReceiver starts a receiver that answers 200.
func NewReceiver(t testing.TB) *Receiver {
	r := newReceiver()
	r.server = httptest.NewServer(r)
	r.stopWith(t)
	return r
}

// NewTLSReceiver starts one that speaks TLS and HTTP/2. CA returns what to trust.
func NewTLSReceiver(t testing.TB) *Receiver {
	r := newReceiver()
	r.server = httptest.NewUnstartedServer(r)
	r.server.EnableHTTP2 = true
	r.server.StartTLS()
	r.stopWith(t)
	return r
}

func newReceiver() *Receiver {
	return &Receiver{
		counts: map[string]int{}, replies: map[string]func(Request) Reply{}, inFlight: map[string]int{}, most: map[string]int{},
		closed: make(chan struct{}),
	}
}

func (r *Receiver) stopWith(t testing.TB) {
	t.Cleanup(func() {
		close(r.closed)
		r.server.CloseClientConnections()
		r.server.Close()
	})
}

// URL returns the URL of a path, such as /hook.
func (r *Receiver) URL(path string) string { return r.server.URL + path }

// CA returns the certificate that a TLS receiver shows, in DER.
func (r *Receiver) CA() []byte { return r.server.Certificate().Raw }

// Respond sets how a path answers from now on.
func (r *Receiver) Respond(path string, reply func(Request) Reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replies[path] = reply
}

// Always returns a script that answers the same each time.
func Always(reply Reply) func(Request) Reply { return func(Request) Reply { return reply } }

// ServeHTTP records the request and answers it.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	if err != nil {
		return // the client has gone before it had said everything
	}
	r.mu.Lock()
	path := req.URL.Path
	r.counts[path]++
	got := Request{Path: path, Header: req.Header.Clone(), Body: string(body), At: time.Now(), Proto: req.Proto, Nth: r.counts[path]}
	r.requests = append(r.requests, got)
	r.inFlight[path]++
	r.most[path] = max(r.most[path], r.inFlight[path])
	script := r.replies[path]
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.inFlight[path]--
	}()
	if script != nil {
		r.answer(w, req, script(got))
	}
}

func (r *Receiver) answer(w http.ResponseWriter, req *http.Request, reply Reply) {
	gone := req.Context().Done()
	if reply.Hang {
		select {
		case <-gone:
		case <-r.closed:
		}
		return
	}
	select {
	case <-time.After(reply.Delay):
	case <-gone:
		return
	case <-r.closed:
		return
	}
	if reply.Reset {
		if hijacker, ok := w.(http.Hijacker); ok {
			if conn, _, err := hijacker.Hijack(); err == nil {
				if tcp, ok := conn.(*net.TCPConn); ok {
					_ = tcp.SetLinger(0)
				}
				_ = conn.Close()
			}
		}
		return
	}
	for name, value := range reply.Header {
		w.Header().Set(name, value)
	}
	if reply.Status != 0 {
		w.WriteHeader(reply.Status)
	}
	if reply.Drip == 0 {
		_, _ = io.WriteString(w, reply.Body)
		return
	}
	for i := range len(reply.Body) {
		_, _ = io.WriteString(w, reply.Body[i:i+1])
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
		select {
		case <-time.After(reply.Drip):
		case <-gone:
			return
		case <-r.closed:
			return
		}
	}
}

// Requests returns what has come so far, in order.
func (r *Receiver) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Request(nil), r.requests...)
}

// Bodies returns the bodies of the requests to a path, in order.
func (r *Receiver) Bodies(path string) []string {
	var bodies []string
	for _, req := range r.Requests() {
		if req.Path == path {
			bodies = append(bodies, req.Body)
		}
	}
	return bodies
}

// Forget forgets what has come.
func (r *Receiver) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil
	clear(r.counts)
	clear(r.most)
}

// MostInFlight returns how many requests to a path were being answered at once, at most.
func (r *Receiver) MostInFlight(path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.most[path]
}

// Wait waits until n requests have come and returns them.
func (r *Receiver) Wait(t testing.TB, n int, within time.Duration) []Request {
	t.Helper()
	Eventually(t, within, fmt.Sprintf("%d requests", n), func() (bool, string) {
		got := r.Requests()
		return len(got) >= n, fmt.Sprintf("%d came: %v", len(got), lastBodies(got))
	})
	return r.Requests()
}

func lastBodies(requests []Request) []string {
	var bodies []string
	for _, r := range requests[max(len(requests)-5, 0):] {
		bodies = append(bodies, r.Path+" "+r.Body)
	}
	return bodies
}
