package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// inFlight is the number of concurrent POSTs, bare and by walhook.
const inFlight = 64

// measureDeliver lets walhook deliver a backlog, from the moment that it streams until the last result is in the log.
func measureDeliver(ctx context.Context, b *bench) ([]Result, error) {
	s, err := b.newSite(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.attach(ctx); err != nil {
		return nil, err
	}
	if err := s.hook(ctx, "created", b.receiver.url+"/hook"); err != nil {
		return nil, err
	}
	n := b.n(150_000)
	if err := s.write(ctx, n, 100, insertRow); err != nil {
		return nil, err
	}
	baseline, err := b.barePosts(ctx, b.n(300_000))
	if err != nil {
		return nil, err
	}
	if err := b.receiver.forget(ctx); err != nil {
		return nil, err
	}
	d, err := s.start(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := b.arrived(ctx, n); err != nil {
		return nil, err
	}
	if err := s.until(ctx, "select not exists (select from walhook.queue)"); err != nil {
		return nil, err
	}
	took := time.Since(began)
	got, err := b.receiver.count(ctx)
	if err != nil {
		return nil, err
	}
	if got != n {
		return nil, fmt.Errorf("%d POSTs arrived for %d events", got, n)
	}
	return []Result{against("events queued, sent and logged", "bare POSTs", "/s", baseline, float64(n)/took.Seconds(), 0.30, false)}, nil
}

// arrived waits for n POSTs.
func (b *bench) arrived(ctx context.Context, n int) error {
	for {
		got, err := b.receiver.count(ctx)
		if err != nil {
			return err
		}
		if got >= n {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// barePosts sends n requests as similar to walhook's as possible, and does nothing else.
func (b *bench) barePosts(ctx context.Context, n int) (perSecond float64, err error) {
	transport := &http.Transport{MaxIdleConnsPerHost: inFlight, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	body := []byte(`{"EventType":"response.created","Timestamp":1773859449,"Data":{"ResponseId":1112057}}`)
	var left atomic.Int64
	left.Store(int64(n))
	var failed atomic.Pointer[error]
	var workers sync.WaitGroup
	began := time.Now()
	for range inFlight {
		workers.Go(func() {
			for left.Add(-1) >= 0 && failed.Load() == nil {
				if err := post(ctx, client, b.receiver.url+"/bare", body); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	workers.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

func post(ctx context.Context, client *http.Client, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("post: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "bench")
	req.Header.Set("Webhook-Id", "msg_0123456789abcdef0123456789abcdef")
	req.Header.Set("Webhook-Timestamp", "1773859449")
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("post: %w", err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.Body.Close()
}
