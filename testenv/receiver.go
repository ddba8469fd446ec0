package testenv

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Request is a request that a Receiver got.
type Request struct {
	Method string
	Path   string
	Header http.Header
	Body   string // its first MiB
	Remote string // address of the client
	Proto  string
	At     time.Time // when it had come completely
	End    time.Time // when it was answered, or its client gone; zero until then
	Nth    int       // of its path, from 1
}

// Receiver is an HTTP server that records what it gets and answers as it is told. It is safe for concurrent use.
type Receiver struct {
	server *httptest.Server
	closed chan struct{}

	countOnly atomic.Bool
	counted   atomic.Int64

	mu       sync.Mutex
	requests []*Request
	counts   map[string]int
	replies  map[string]func(Request) Reply
	inFlight map[string]int
	most     map[string]int
}

// NewReceiver starts a receiver that answers 200.
func NewReceiver(t testing.TB) *Receiver {
	r := newReceiver(t)
	r.server.Start()
	return r
}

// NewTLSReceiver starts one that speaks TLS, and HTTP/2 with those who want it. CAPool and CAPEM return what to trust.
func NewTLSReceiver(t testing.TB) *Receiver {
	r := newReceiver(t)
	r.server.EnableHTTP2 = true
	r.server.StartTLS()
	return r
}

func newReceiver(t testing.TB) *Receiver {
	r := &Receiver{
		counts: map[string]int{}, replies: map[string]func(Request) Reply{}, inFlight: map[string]int{}, most: map[string]int{},
		closed: make(chan struct{}),
	}
	r.server = httptest.NewUnstartedServer(r)
	r.server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that distrust the certificate are no news
	t.Cleanup(func() {
		close(r.closed)
		r.server.CloseClientConnections()
		r.server.Close()
	})
	return r
}

// URL returns the URL of a path, such as /hook.
func (r *Receiver) URL(path string) string { return r.server.URL + path }

// CA returns the certificate that a TLS receiver shows, in DER.
func (r *Receiver) CA() []byte { return r.server.Certificate().Raw }

// CAPEM returns the certificate that a TLS receiver shows, as a file for SSL_CERT_FILE holds it.
func (r *Receiver) CAPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.CA()})
}

// CAPool returns a pool that trusts only this TLS receiver.
func (r *Receiver) CAPool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(r.server.Certificate())
	return pool
}

// Respond sets the script of a path.
func (r *Receiver) Respond(path string, reply func(Request) Reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replies[path] = reply
}

// CountOnly makes the receiver only count requests from now on, and answer them with 200, for measurements.
func (r *Receiver) CountOnly() { r.countOnly.Store(true) }

// ServeHTTP records the request and answers it.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if r.countOnly.Load() {
		_, _ = io.Copy(io.Discard, req.Body)
		r.counted.Add(1)
		return
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	if err != nil {
		panic(http.ErrAbortHandler) // the client disconnected before it had sent everything
	}
	got, script, end := r.record(req, string(body))
	defer end()
	if script != nil {
		r.answer(w, req, script(got))
	}
}

// record records a request. It returns the reply, and a function to call when it has been sent.
func (r *Receiver) record(req *http.Request, body string) (got Request, script func(Request) Reply, end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	path := req.URL.Path
	r.counts[path]++
	kept := &Request{
		Method: req.Method, Path: path, Header: req.Header.Clone(), Body: body, Remote: req.RemoteAddr, Proto: req.Proto,
		At: time.Now(), Nth: r.counts[path],
	}
	r.requests = append(r.requests, kept)
	r.counted.Add(1)
	r.inFlight[path]++
	r.most[path] = max(r.most[path], r.inFlight[path])
	return *kept, r.replies[path], func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		kept.End = time.Now()
		r.inFlight[path]--
	}
}

// Requests returns all requests so far, in order.
func (r *Receiver) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	requests := make([]Request, len(r.requests))
	for i, kept := range r.requests {
		requests[i] = *kept
	}
	return requests
}

// Bodies returns the bodies of the requests to a path, in order.
func (r *Receiver) Bodies(path string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var bodies []string
	for _, kept := range r.requests {
		if kept.Path == path {
			bodies = append(bodies, kept.Body)
		}
	}
	return bodies
}

// Count returns the number of requests so far.
func (r *Receiver) Count() int { return int(r.counted.Load()) }

// Forget discards all recorded requests.
func (r *Receiver) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil
	r.counted.Store(0)
	clear(r.counts)
	clear(r.most)
}

// MostInFlight returns the highest number of concurrent requests to a path.
func (r *Receiver) MostInFlight(path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.most[path]
}

// Wait waits for n requests and returns them.
func (r *Receiver) Wait(t testing.TB, n int, within time.Duration) []Request {
	t.Helper()
	Eventually(t, within, fmt.Sprintf("%d requests", n), func() (bool, string) {
		got := r.Count()
		if got >= n {
			return true, ""
		}
		return false, fmt.Sprintf("%d came: %v", got, lastBodies(r.Requests()))
	})
	return r.Requests()
}

// WaitCount waits for n requests, including those that were only counted.
func (r *Receiver) WaitCount(t testing.TB, n int, within time.Duration) {
	t.Helper()
	Eventually(t, within, fmt.Sprintf("%d requests", n), func() (bool, string) {
		got := r.Count()
		return got >= n, fmt.Sprintf("%d came", got)
	})
}

func lastBodies(requests []Request) []string {
	var bodies []string
	for _, r := range requests[max(len(requests)-5, 0):] {
		bodies = append(bodies, r.Path+" "+r.Body)
	}
	return bodies
}
