package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const patience = 20 * time.Second

func post(ctx context.Context, url, body string) (status int, reply string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// The receiver answers as it is told, and remembers what came.
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
	r.Respond("/reset", Always(Reply{Reset: true}))
	r.Respond("/hang", Always(Reply{Hang: true}))
	for _, c := range []struct {
		path, body, reply string
		status            int
	}{{"/flaky", "1", "no", 500}, {"/flaky", "2", "", 200}, {"/other", "3", "", 200}, {"/dripping", "4", "drop by drop", 200}} {
		if status, reply, err := post(t.Context(), r.URL(c.path), c.body); err != nil || status != c.status || reply != c.reply {
			t.Errorf("%s answers %d %q %v", c.path, status, reply, err)
		}
	}
	if _, _, err := post(t.Context(), r.URL("/reset"), "5"); err == nil {
		t.Error("a reset is an answer")
	}
	ctx, cancel := context.WithCancel(t.Context())
	hung := make(chan error, 1)
	go func() {
		_, _, err := post(ctx, r.URL("/hang"), "6")
		hung <- err
	}()
	requests := r.Wait(t, 6, patience)
	cancel()
	if err := <-hung; !errors.Is(err, context.Canceled) {
		t.Errorf("a hanging request ended with %v", err)
	}
	if got := fmt.Sprintf("%v %s %d %d", r.Bodies("/flaky"), requests[5].Body, requests[1].Nth, r.MostInFlight("/flaky")); got != "[1 2] 6 2 1" {
		t.Errorf("the receiver remembers %s", got)
	}
	r.Forget()
	if n := len(r.Requests()); n != 0 {
		t.Errorf("%d requests were not forgotten", n)
	}
}

// A wire can be cut and stalled, and lets new connections through afterwards.
func TestWire(t *testing.T) {
	t.Parallel()
	server := Postgres(t)
	wire := NewWire(t, fmt.Sprintf("127.0.0.1:%d", server.Port()))
	url := strings.Replace(server.URL("postgres"), fmt.Sprintf("127.0.0.1:%d", server.Port()), wire.Addr(), 1)
	open := func() *pgx.Conn { return Connect(t, url) }

	conn := open()
	wire.Cut()
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("a cut connection answers")
	}
	if err := TryExec(url, "select 1"); err == nil {
		t.Error("a connection was made through a cut wire")
	}
	wire.Restore()
	conn = open()
	wire.Stall()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := conn.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a stalled connection: %v", err)
	}
	wire.Unstall()
	if err := open().Ping(t.Context()); err != nil {
		t.Errorf("after the stall: %v", err)
	}
}
