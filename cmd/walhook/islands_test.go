package main

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"walhook/testenv"
)

// A dead endpoint with a large backlog gets one probe at a time and delays no other; when it answers again, the backlog drains
// without exceeding the endpoint's limit, each delivery once and those about one response in order.
func TestDeadEndpointWithBacklog(t *testing.T) {
	t.Parallel()
	const n = 10000
	s := newSite(t, sampleSchema).with("ENDPOINT_CONCURRENCY", "6", "MAX_ATTEMPTS", "1000")
	s.run()
	dead := s.hook("/dead", "created")
	s.hook("/dead", "started")
	s.hook("/works", "completed")
	s.receiver.Respond("/dead", testenv.Always(testenv.Reply{Status: 503}))
	s.exec("insert into respondent (id, assessment_id, started_at) select g, 1, now() from generate_series(1, $1::int) g", n)
	s.pendingAfterFailure(dead)
	testenv.Eventually(t, patience, "the endpoint to be probed", func() (bool, string) {
		got := len(s.receiver.Bodies("/dead"))
		return got >= 20, fmt.Sprint(got)
	})
	s.waitHeartbeat() // what was in flight before it counted as failing has ended
	s.receiver.Forget()
	s.exec("update respondent set finished_at = now() where id <= 500")
	s.waitRequests("/works", 500)
	testenv.Eventually(t, patience, "another probe", func() (bool, string) {
		got := len(s.receiver.Bodies("/dead"))
		return got > 0, fmt.Sprint(got)
	})
	if most := s.receiver.MostInFlight("/dead"); most > 1 {
		t.Errorf("the dead endpoint got %d probes at a time", most)
	}

	s.receiver.Forget()
	s.receiver.Respond("/dead", testenv.Always(testenv.Reply{}))
	testenv.Eventually(t, 6*patience, "the backlog to drain", func() (bool, string) {
		left := testenv.Value[int64](t, s.store, "select count(*) from walhook.queue")
		return left == 0, fmt.Sprint(left)
	})
	if most := s.receiver.MostInFlight("/dead"); most > 6 {
		t.Errorf("%d requests were in flight, and 6 are allowed", most)
	}
	for id, story := range byResponse(s.events("/dead")) {
		if len(story) != 2 || story[0] != "created" || story[1] != "started" {
			t.Fatalf("response %s: %v", id, story)
		}
	}
	if got := len(s.receiver.Bodies("/dead")); got != 2*n {
		t.Errorf("%d requests came, not %d", got, 2*n)
	}
}

// Whatever is wrong with an endpoint, what waits for it costs one probe at a time and delays no other; once it answers, all of it
// arrives within the endpoint's limit.
func TestEveryKindOfTrouble(t *testing.T) {
	t.Parallel()
	const n = 100
	s := newSite(t, sampleSchema).with("DELIVERY_TIMEOUT", "400ms", "ENDPOINT_CONCURRENCY", "4", "MAX_ATTEMPTS", "1000", "LOG_LEVEL", "info")
	s.run()
	kinds := map[string]testenv.Reply{
		"/fails":     {Status: 500, Body: "no"},
		"/hangs":     {Hang: true},
		"/resets":    {Reset: true},
		"/redirects": {Status: 307, Header: map[string]string{"Location": s.receiver.URL("/elsewhere")}},
		"/drips":     {Status: 502, Body: strings.Repeat("x", 10000), Drip: 20 * time.Millisecond},
		"/floods":    {Status: 502, Body: strings.Repeat("x", 1<<20)},
	}
	for path, reply := range kinds {
		s.hook(path, "created")
		s.receiver.Respond(path, testenv.Always(reply))
	}
	host := strings.TrimPrefix(s.receiver.URL(""), "http://")
	for _, elsewhere := range []string{"https://" + host + "/speaks-no-tls", "http://" + closedPort(t) + "/", "http://10.255.255.1/"} {
		s.exec("insert into walhook.webhook (assessment_id, url, event_type) values ('1', $1, 'response.created')", elsewhere)
	}
	s.hook("/works", "completed")
	s.exec("insert into respondent (id, assessment_id) select g, 1 from generate_series(1, $1::int) g", n)
	everywhere := func(least int) {
		t.Helper()
		for path := range kinds {
			testenv.Eventually(t, patience, fmt.Sprintf("%d probes of %s", least, path), func() (bool, string) {
				got := len(s.receiver.Bodies(path))
				return got >= least, fmt.Sprint(got)
			})
		}
	}
	everywhere(8)
	s.waitHeartbeat() // what was in flight before they counted as failing has ended
	s.receiver.Forget()
	s.exec("update respondent set finished_at = now()")
	s.waitRequests("/works", n)
	everywhere(2)
	for path, reply := range kinds {
		allowed := 1
		if reply.Hang || reply.Reset || reply.Drip > 0 || len(reply.Body) > 1<<16 {
			allowed = 2 // the receiver hears a moment later, or ends a moment after it was heard
		}
		if most := s.receiver.MostInFlight(path); most > allowed {
			t.Errorf("%s got %d probes at a time", path, most)
		}
	}

	s.receiver.Forget()
	for path := range kinds {
		s.receiver.Respond(path, nil)
	}
	s.exec("update walhook.webhook set url = $1 where url not like '%' || $2 || '%' or url like 'https:%'", s.receiver.URL("/mended"), host)
	s.fence()
	for path := range kinds {
		if most := s.receiver.MostInFlight(path); most > 4 {
			t.Errorf("%d requests to %s were in flight, and 4 are allowed", most, path)
		}
	}
	got := testenv.Psql(t, s.store, "select status, count(*) from walhook.delivery_log group by 1")
	if want := fmt.Sprintf("success|%d", n*(len(kinds)+4)); got != want {
		t.Errorf("the log has %s, not %s", got, want)
	}
}

// Without a word in WALHOOK_ALLOW_NETWORKS nothing goes to an inner address, whatever name or spelling leads there.
func TestInnerAddressesAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).with("ALLOW_NETWORKS", "", "MAX_ATTEMPTS", "1")
	s.run()
	u, err := url.Parse(s.receiver.URL("/"))
	if err != nil {
		t.Fatal(err)
	}
	hosts := []string{"127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "user:pw@127.0.0.1", "127.0.0.1.", "LOCALHOST"}
	var accepted int
	for _, host := range hosts {
		// Some the store refuses already.
		if testenv.TryExec(s.store, "insert into walhook.webhook (assessment_id, url, event_type) values ('1', $1, 'response.created')",
			fmt.Sprintf("http://%s:%s/inner", host, u.Port())) == nil {
			accepted++
		}
	}
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.fence()
	if got := len(s.receiver.Requests()); got != 0 {
		t.Errorf("%d requests came: %v", got, s.receiver.Requests())
	}
	if failed := testenv.Value[int](t, s.store, "select count(*)::int from walhook.delivery_log where status = 'failed'"); failed != accepted {
		t.Errorf("%d deliveries failed, of %d: %s", failed, accepted, testenv.Psql(t, s.store, "select status, error from walhook.delivery_log"))
	}
	got := testenv.Psql(t, s.store, "select error from walhook.delivery_log d join walhook.webhook w on w.id = d.webhook_id where w.url like 'http://127.0.0.1:%'")
	if !strings.Contains(got, "WALHOOK_ALLOW_NETWORKS") {
		t.Errorf("the log does not name the remedy: %s", got)
	}
}

var goroutines = regexp.MustCompile(`(?m)^go_goroutines (\d+)`)

// Sessions that break and come back, endpoints that come and go, and requests that hang leave no goroutine behind.
func TestNoGoroutineStays(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).with("DELIVERY_TIMEOUT", "300ms", "MAX_ATTEMPTS", "1")
	d := s.run()
	s.hooks()
	count := func() int {
		_, metrics := d.get("/metrics")
		match := goroutines.FindStringSubmatch(metrics)
		if match == nil {
			return 1 << 20
		}
		n, err := strconv.Atoi(match[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	disturb := func(round int) {
		path := fmt.Sprintf("/round%d", round)
		s.receiver.Respond(path, testenv.Always(testenv.Reply{Hang: true}))
		hook := s.hook(path, "created")
		s.exec("insert into respondent (id, assessment_id) select g, 1 from generate_series($1::int, $1::int + 9) g", round*10)
		s.fence()
		s.exec("delete from walhook.webhook where id = $1", hook)
		s.exec("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'walhook%' and datname = current_database()")
		d.ready()
		s.fence()
	}
	disturb(1)
	before := count()
	for round := 2; round <= 6; round++ {
		disturb(round)
	}
	testenv.Eventually(t, patience, "as many goroutines as before", func() (bool, string) {
		now := count()
		// A connection more or less in the pools makes a few.
		return now <= before+6, fmt.Sprintf("%d, and %d before", now, before)
	})
}

// Any number of new endpoints may hang: one that has answered before finds room beside them.
func TestNewEndpointsThatHangLeaveRoom(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).with("CONCURRENCY", "8", "DELIVERY_TIMEOUT", "2m")
	s.run()
	s.hook("/proven", "created")
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.expect("/proven", "created 1")
	for i := range 20 {
		path := fmt.Sprintf("/new/%d", i)
		s.receiver.Respond(path, testenv.Always(testenv.Reply{Hang: true}))
		s.hook(path, "started")
	}
	s.exec("update respondent set started_at = now()")
	testenv.Eventually(t, patience, "new endpoints to be tried", func() (bool, string) {
		tried := 0
		for i := range 20 {
			tried += len(s.receiver.Bodies(fmt.Sprintf("/new/%d", i)))
		}
		return tried == 6, fmt.Sprintf("%d requests", tried)
	})
	s.exec("insert into respondent (id, assessment_id) values (2, 1)")
	s.waitRequests("/proven", 2) // long before the others have run out of time
}
