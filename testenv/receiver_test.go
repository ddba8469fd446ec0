package testenv

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func post(ctx context.Context, client *http.Client, url, body string) (status int, reply string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// The receiver answers according to its script, and records requests.
func TestReceiver(t *testing.T) {
	t.Parallel()
	r := NewReceiver(t)
	r.Respond("/flaky", func(req Request) Reply {
		if req.Nth == 1 {
			return Reply{Status: 500, Body: "no", Header: map[string]string{"Retry-After": "1"}}
		}
		return Reply{}
	})
	r.Respond("/dripping", Always(Reply{Body: "drop by drop", Drip: time.Millisecond}))
	for _, c := range []struct {
		path, body, reply string
		status            int
	}{{"/flaky", "1", "no", 500}, {"/flaky", "2", "", 200}, {"/other", "3", "", 200}, {"/dripping", "4", "drop by drop", 200}} {
		if status, reply, err := post(t.Context(), http.DefaultClient, r.URL(c.path), c.body); err != nil || status != c.status || reply != c.reply {
			t.Errorf("%s answers %d %q %v", c.path, status, reply, err)
		}
	}
	r.Respond("/other", Always(Reply{Status: 410})) // a script may change at any time
	if status, _, err := post(t.Context(), http.DefaultClient, r.URL("/other"), "5"); err != nil || status != 410 {
		t.Errorf("/other answers %d %v", status, err)
	}
	requests := r.Wait(t, 5, patience)
	if got := fmt.Sprintf("%v %s %d %d", r.Bodies("/flaky"), requests[4].Body, requests[1].Nth, r.MostInFlight("/flaky")); got != "[1 2] 5 2 1" {
		t.Errorf("the receiver has recorded %s", got)
	}
	first := requests[0]
	if first.Method != "POST" || first.Proto != "HTTP/1.1" || !strings.HasPrefix(first.Remote, "127.0.0.1:") ||
		first.Header.Get("User-Agent") == "" || first.End.Before(first.At) {
		t.Errorf("the first request was recorded as %+v", first)
	}
	r.Forget()
	if n := len(r.Requests()) + r.Count(); n != 0 {
		t.Errorf("%d requests were not forgotten", n)
	}
}

// A reset or a hanging request reaches the client as such, over HTTP/1.1, over TLS and over HTTP/2.
func TestReceiverBreaks(t *testing.T) {
	t.Parallel()
	for name, protocols := range map[string]string{"plain": "", "TLS": "http/1.1", "HTTP2": "h2"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, client := receiverAndClient(t, protocols)
			r.Respond("/reset", Always(Reply{Reset: true}))
			r.Respond("/hang", Always(Reply{Hang: true}))
			status, _, err := post(t.Context(), client, r.URL("/reset"), "")
			if err == nil || protocols != "h2" && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a reset gives %d, %v", status, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			hung := make(chan error, 1)
			go func() {
				_, _, err := post(ctx, client, r.URL("/hang"), "")
				hung <- err
			}()
			r.Wait(t, 2, patience)
			if r.Requests()[1].End != (time.Time{}) {
				t.Error("a hanging request has ended")
			}
			cancel()
			if err := <-hung; !errors.Is(err, context.Canceled) {
				t.Errorf("a hanging request ended with %v", err)
			}
			Eventually(t, patience, "the receiver sees the client go", func() (bool, string) {
				return r.Requests()[1].End != time.Time{}, "the request has not ended"
			})
		})
	}
}

// receiverAndClient returns a receiver, and a client that uses the given protocol over TLS, or plain text without one.
func receiverAndClient(t *testing.T, protocol string) (*Receiver, *http.Client) {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	if protocol == "" {
		return NewReceiver(t), &http.Client{Transport: transport}
	}
	r := NewTLSReceiver(t)
	transport.TLSClientConfig = &tls.Config{RootCAs: r.CAPool(), NextProtos: []string{protocol}}
	transport.ForceAttemptHTTP2 = protocol == "h2"
	return r, &http.Client{Transport: transport}
}

// A receiver that is closed while clients wait answers none of them.
func TestReceiverEndsWithoutAnswers(t *testing.T) {
	t.Parallel()
	answers := make(chan error, 3)
	t.Run("uses one", func(t *testing.T) {
		r := NewReceiver(t)
		for path, reply := range map[string]Reply{"/hang": {Hang: true}, "/late": {Delay: time.Hour}, "/slow": {Body: "drip", Drip: time.Hour}} {
			r.Respond(path, Always(reply))
			go func() {
				_, _, err := post(context.Background(), http.DefaultClient, r.URL(path), "")
				answers <- err
			}()
		}
		r.Wait(t, 3, patience)
	})
	for range 3 {
		if err := <-answers; err == nil {
			t.Error("a closed receiver answered")
		}
	}
}

// Only clients that have a TLS receiver's certificate trust it.
func TestTLSReceiver(t *testing.T) {
	t.Parallel()
	r, client := receiverAndClient(t, "h2")
	if status, _, err := post(t.Context(), client, r.URL("/hook"), ""); err != nil || status != 200 {
		t.Errorf("the receiver answers %d, %v", status, err)
	}
	if proto := r.Wait(t, 1, patience)[0].Proto; proto != "HTTP/2.0" {
		t.Errorf("the request used %s", proto)
	}
	if _, _, err := post(t.Context(), http.DefaultClient, r.URL("/hook"), ""); err == nil {
		t.Error("a client that does not know the certificate accepts it")
	}
	if !x509.NewCertPool().AppendCertsFromPEM(r.CAPEM()) {
		t.Errorf("no certificate: %s", r.CAPEM())
	}
}

// The most requests in flight are counted for each path.
func TestMostInFlight(t *testing.T) {
	t.Parallel()
	r := NewReceiver(t)
	released := make(chan struct{})
	r.Respond("/busy", func(Request) Reply { <-released; return Reply{} })
	var clients sync.WaitGroup
	for range 3 {
		clients.Go(func() { _, _, _ = post(t.Context(), http.DefaultClient, r.URL("/busy"), "") })
	}
	clients.Go(func() { _, _, _ = post(t.Context(), http.DefaultClient, r.URL("/idle"), "") })
	r.WaitCount(t, 4, patience)
	close(released)
	clients.Wait()
	if busy, idle := r.MostInFlight("/busy"), r.MostInFlight("/idle"); busy != 3 || idle != 1 {
		t.Errorf("%d and %d requests were in flight", busy, idle)
	}
}

// A receiver that only counts keeps nothing.
func TestCountOnly(t *testing.T) {
	t.Parallel()
	r := NewReceiver(t)
	r.CountOnly()
	for range 3 {
		if status, _, err := post(t.Context(), http.DefaultClient, r.URL("/hook"), "body"); err != nil || status != 200 {
			t.Fatalf("%d, %v", status, err)
		}
	}
	r.WaitCount(t, 3, patience)
	if r.Count() != 3 || len(r.Requests()) != 0 {
		t.Errorf("%d were counted and %d kept", r.Count(), len(r.Requests()))
	}
}

func BenchmarkReceiver(b *testing.B) {
	for _, c := range []struct {
		name  string
		setUp func(*Receiver)
	}{{"recorded", func(*Receiver) {}}, {"counted", (*Receiver).CountOnly}} {
		b.Run(c.name, func(b *testing.B) {
			r := NewReceiver(b)
			c.setUp(r)
			transport := &http.Transport{MaxIdleConnsPerHost: 64}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, _, err := post(b.Context(), client, r.URL("/hook"), `{"EventType":"response.completed"}`); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
