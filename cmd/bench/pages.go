package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// measurePages measures every page of the console and every request of the API on a filled store, and the console's
// memory while many people watch live pages and one exports a CSV file.
func measurePages(ctx context.Context, b *bench) ([]Result, error) {
	s, err := b.newSite(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.attach(ctx); err != nil {
		return nil, err
	}
	f, err := s.fill(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.startConsole(ctx)
	if err != nil {
		return nil, err
	}
	requests, err := c.requests(ctx, f)
	if err != nil {
		return nil, err
	}
	times := map[string][]float64{}
	rounds := max(b.n(50), 3)
	for range rounds {
		for i := range requests {
			took, err := c.send(ctx, &requests[i])
			if err != nil {
				return nil, err
			}
			times[requests[i].name] = append(times[requests[i].name], took)
		}
	}
	var results []Result
	for _, r := range requests {
		slices.Sort(times[r.name])
		result := Result{Name: r.name + ", p99", Unit: "ms", Value: quantile(times[r.name], 0.99), Target: 100, AtMost: true}
		result.Note = fmt.Sprintf("median %s ms", figure(quantile(times[r.name], 0.5)))
		results = append(results, result)
	}
	if err := c.watch(ctx, b.n(1_000_000)); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, strings.Join(c.process.tail, "\n"))
	}
	_, peak, err := c.process.resident()
	return append(results, ceiling(fmt.Sprintf("peak of the console, %d live pages and a CSV of %d rows", watchers, b.n(1_000_000)), peak, 64)), err
}

// consoleClient is a browser that is signed in, and clients of the API.
type consoleClient struct {
	process  *daemon
	site     *site
	url      string
	browser  *http.Client
	sent     int
	keys     []string // of the API, each for a few requests: a key may make 30 a second
	ofOne    []string // of one organization
	backlogs int64    // a pending delivery
}

const requestsPerKey = 25

func (s *site) startConsole(ctx context.Context) (*consoleClient, error) {
	if err := exec1(ctx, s.store, "create role administrator login; grant walhook_admin to administrator"); err != nil {
		return nil, err
	}
	d, err := s.launch(ctx, "console", "serving the console", "WALHOOK_CONSOLE_LISTEN=127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	address := regexp.MustCompile(`address=(\S+)`).FindStringSubmatch(d.said)
	if address == nil {
		return nil, fmt.Errorf("walhook console does not say where it listens: %s", d.said)
	}
	c := &consoleClient{process: d, site: s, url: "http://" + address[1]}
	c.browser, err = c.signIn(ctx)
	return c, err
}

// signIn returns the browser of another person.
func (c *consoleClient) signIn(ctx context.Context) (*http.Client, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	browser := &http.Client{
		Jar: jar, Transport: &http.Transport{MaxIdleConnsPerHost: 2},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	form := url.Values{"role": {"administrator"}, "password": {"any"}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/login", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := browser.Do(request)
	if err != nil {
		return nil, fmt.Errorf("sign in: %w", err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusSeeOther {
		return nil, fmt.Errorf("sign in: HTTP %d", response.StatusCode)
	}
	return browser, nil
}

// pageRequest is one that is measured. Where it has {name}, each time another value is sent.
type pageRequest struct {
	name, method, path, body string
	one                      bool // with the key of an organization
	values                   map[string]func() string
}

// requests are what people and programs ask.
func (c *consoleClient) requests(ctx context.Context, f filled) ([]pageRequest, error) {
	var ended, failed int64
	if err := c.site.store.QueryRow(ctx, `select (select min(delivery_id) from walhook.log), (select delivery_id from walhook.log where not succeeded limit 1),
		(select min(delivery_id) from walhook.queue)`).Scan(&ended, &failed, &c.backlogs); err != nil {
		return nil, fmt.Errorf("look up deliveries: %w", err)
	}
	next := 0
	upTo := func(n int, from int64) func() string {
		return func() string {
			next += 7919
			return strconv.FormatInt(from+int64(next%n), 10)
		}
	}
	ago := func(days float64, layout string) string {
		return time.Now().Add(-time.Duration(days * 24 * float64(time.Hour))).UTC().Format(layout)
	}
	const local, instant = "2006-01-02T15:04:05", time.RFC3339
	values := map[string]func() string{
		"webhook": upTo(f.webhooks-busy, busy+1), "backlogged": upTo(backlogged, 1), "response": upTo(f.log, 1), "ended": upTo(f.log, ended),
		"pending": upTo(f.pending, c.backlogs), "failed": func() string { return strconv.FormatInt(failed, 10) },
		"assessment": upTo(f.assessments, 1), "organization": upTo(50, 0), "new": upTo(1<<30, 1),
	}
	var requests []pageRequest
	add := func(name, method, path, body string) {
		requests = append(requests, pageRequest{name: name, method: method, path: path, body: body, values: values})
	}
	page := func(path string) { add("GET "+path, http.MethodGet, path, "") }
	for _, path := range []string{
		"/login", "/", "/webhooks", "/webhooks?after=3-{webhook}", "/webhooks?state=failing", "/webhooks?sort=newest&urls=1", "/webhooks?q=Assessment+1",
		"/webhooks?q=nowhere", "/webhooks/new", "/webhooks/{webhook}", "/webhooks/6", "/webhooks/{backlogged}", "/webhooks/{backlogged}/delete", "/webhooks/{webhook}/disable",
		"/deliveries", "/deliveries?webhook={webhook}", "/deliveries?webhook=6", "/deliveries?webhook={backlogged}", "/deliveries?webhook={backlogged}&status=pending",
		"/deliveries?webhook={backlogged}&status=pending&event=response.changed", "/deliveries?status=pending", "/deliveries?status=failed", "/deliveries?status=success",
		"/deliveries?webhook={webhook}&status=failed", "/deliveries?http_status=500", "/deliveries?http_status=404", "/deliveries?http_status=201", "/deliveries?event=response.changed&status=failed",
		"/deliveries?response={response}", "/deliveries?response=nobody", "/deliveries/redeliver", "/deliveries/redeliver?webhook=6", "/deliveries/{ended}", "/deliveries/{pending}", "/deliveries/{failed}",
		"/responses/{response}", "/responses/nobody", "/incidents", "/changes", "/changes?object=webhook&id={webhook}", "/changes?object=settings", "/keys", "/settings",
	} {
		page(path)
	}
	add("GET /deliveries?before=, a week ago", http.MethodGet, "/deliveries?before="+ago(7, "2006-01-02T15:04:05.999999")+"~{ended}", "")
	add("GET /deliveries?since=&until=, an hour", http.MethodGet, "/deliveries?since="+ago(5, local)+"&until="+ago(4.96, local), "")
	add("POST /webhooks/{webhook}/test", http.MethodPost, "/webhooks/{webhook}/test", "")
	add("POST /deliveries/{failed}/redeliver", http.MethodPost, "/deliveries/{failed}/redeliver", "")

	const v1 = "/api/v1"
	for _, path := range []string{
		"/openapi.json", "/me", "/webhooks", "/webhooks?url=https://nowhere.example.com/", "/webhooks?assessment_id={assessment}&event_type=response.completed", "/webhooks/{webhook}",
		"/deliveries", "/deliveries?webhook_id={webhook}", "/deliveries?webhook_id={backlogged}&status=pending", "/deliveries?status=failed", "/deliveries?status=pending",
		"/deliveries?event_type=response.changed&status=failed", "/deliveries?response_id={response}", "/deliveries/{ended}", "/deliveries/{pending}",
		"/samples", "/samples?event_type=response.completed&assessment_id={assessment}", "/samples?event_type=response.changed", "/samples?event_type=response.changed&assessment_id={assessment}",
		"/samples?assessment_id=nobody",
	} {
		page(v1 + path)
	}
	add("GET /api/v1/deliveries?since=&until=, an hour", http.MethodGet, v1+"/deliveries?since="+ago(5, instant)+"&until="+ago(4.96, instant), "")
	whole := len(requests)
	for _, path := range []string{"/webhooks", "/deliveries", "/deliveries?status=failed", "/deliveries?status=pending", "/samples", "/samples?event_type=response.changed"} {
		page(v1 + path)
	}
	for i := whole; i < len(requests); i++ {
		requests[i].one, requests[i].name = true, requests[i].name+", key of an organization"
	}
	const hook = `{"url": "https://new.example.com/{new}", "event_type": "response.completed", "assessment_id": "{assessment}"}`
	add("POST /api/v1/webhooks", http.MethodPost, v1+"/webhooks", hook)
	add("PATCH /api/v1/webhooks/{webhook}", http.MethodPatch, v1+"/webhooks/{webhook}", `{"description": "{new}"}`)
	add("POST /api/v1/webhooks/{webhook}/test", http.MethodPost, v1+"/webhooks/{webhook}/test", "")
	add("POST /api/v1/deliveries/{failed}/redeliver", http.MethodPost, v1+"/deliveries/{failed}/redeliver", "")
	add("DELETE /api/v1/webhooks/{webhook}", http.MethodDelete, v1+"/webhooks/{webhook}", "")
	return requests, nil
}

var placeholder = regexp.MustCompile(`\{[a-z]+\}`)

// send returns how many milliseconds passed until the whole answer had arrived.
func (c *consoleClient) send(ctx context.Context, r *pageRequest) (float64, error) {
	fill := func(text string) string {
		return placeholder.ReplaceAllStringFunc(text, func(name string) string { return r.values[name[1:len(name)-1]]() })
	}
	request, err := http.NewRequestWithContext(ctx, r.method, c.url+fill(r.path), strings.NewReader(fill(r.body)))
	if err != nil {
		return 0, err
	}
	client := c.browser
	if strings.HasPrefix(r.path, "/api/") {
		client = http.DefaultClient
		key, err := c.key(ctx, r.one)
		if err != nil {
			return 0, err
		}
		request.Header.Set("Authorization", "Bearer "+key)
		if r.body != "" {
			request.Header.Set("Content-Type", "application/json")
		}
	} else if r.method == http.MethodPost {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	began := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	took := float64(time.Since(began)) / 1e6
	if response.StatusCode == http.StatusTooManyRequests {
		time.Sleep(time.Second) // as its Retry-After says
		return c.send(ctx, r)
	}
	// A webhook may be gone: another round deleted it.
	if response.StatusCode >= 400 && response.StatusCode != http.StatusNotFound {
		return 0, fmt.Errorf("%s %s: HTTP %d: %.300s", r.method, request.URL, response.StatusCode, body)
	}
	return took, nil
}

// key returns an API key that has not been used for long.
func (c *consoleClient) key(ctx context.Context, one bool) (string, error) {
	keys, organization := &c.keys, ""
	if one {
		keys, organization = &c.ofOne, "organization 11"
	}
	c.sent++
	if len(*keys) == 0 || c.sent%requestsPerKey == 0 {
		var key string
		if err := c.site.store.QueryRow(ctx, "select walhook.create_api_key('bench', nullif($1, ''))", organization).Scan(&key); err != nil {
			return "", fmt.Errorf("create API key: %w", err)
		}
		*keys = append(*keys, key)
	}
	return (*keys)[len(*keys)-1], nil
}

const watchers = 36

// watch opens live pages for some seconds, each of another person, while one exports the log.
func (c *consoleClient) watch(ctx context.Context, rows int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var open sync.WaitGroup
	defer open.Wait()
	defer cancel()
	for i := range watchers {
		browser, err := c.signIn(ctx)
		if err != nil {
			return err
		}
		path := []string{"/overview/live", "/deliveries/live", "/deliveries/" + strconv.FormatInt(c.backlogs+int64(i), 10) + "/live"}[i%3]
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+path, http.NoBody)
		if err != nil {
			return err
		}
		request.Header.Set("Accept", "text/event-stream")
		response, err := browser.Do(request)
		if err != nil {
			return fmt.Errorf("watch %s: %w", path, err)
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("watch %s: HTTP %d", path, response.StatusCode)
		}
		open.Go(func() {
			defer response.Body.Close()
			_, _ = io.Copy(io.Discard, response.Body)
		})
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/deliveries/csv", http.NoBody)
	if err != nil {
		return err
	}
	exporter, err := c.signIn(ctx)
	if err != nil {
		return err
	}
	response, err := exporter.Do(request)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		return fmt.Errorf("export: HTTP %d: %.300s", response.StatusCode, body)
	}
	lines := bufio.NewScanner(response.Body)
	read := 0
	for read <= rows && lines.Scan() {
		read++
	}
	if read <= rows {
		return fmt.Errorf("the CSV file ended after %d lines: %w", read, lines.Err())
	}
	return nil
}
