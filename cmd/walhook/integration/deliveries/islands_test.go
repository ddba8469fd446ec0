package deliveries

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// A dead endpoint with a large backlog gets one probe at a time and delays no other. When it answers again, the backlog
// drains without exceeding the endpoint's limit, each delivery once and those about the same response in order.
func TestDeadEndpointWithBacklog(t *testing.T) {
	t.Parallel()
	const n = 10000
	s := harness.NewSite(t, harness.SampleSchema).With("ENDPOINT_CONCURRENCY", "6", "MAX_ATTEMPTS", "1000")
	s.Run()
	dead := s.Hook("/dead", "created")
	s.Hook("/dead", "started")
	s.Hook("/works", "completed")
	s.Receiver.Respond("/dead", testenv.Always(testenv.Reply{Status: 503}))
	s.Exec("insert into respondent (id, assessment_id, started_at) select g, 1, now() from generate_series(1, $1::int) g", n)
	s.PendingAfterFailure(dead)
	testenv.Eventually(t, harness.Patience, "the endpoint to be probed", func() (bool, string) {
		got := len(s.Receiver.Bodies("/dead"))
		return got >= 20, fmt.Sprint(got)
	})
	s.WaitHeartbeat() // attempts from before it counted as failing have ended
	s.Receiver.Forget()
	s.Exec("update respondent set finished_at = now() where id <= 500")
	s.WaitRequests("/works", 500)
	testenv.Eventually(t, harness.Patience, "another probe", func() (bool, string) {
		got := len(s.Receiver.Bodies("/dead"))
		return got > 0, fmt.Sprint(got)
	})
	if most := s.Receiver.MostInFlight("/dead"); most > 1 {
		t.Errorf("the dead endpoint got %d probes at a time", most)
	}

	s.Receiver.Forget()
	s.Receiver.Respond("/dead", testenv.Always(testenv.Reply{}))
	testenv.Eventually(t, 6*harness.Patience, "the backlog to drain", func() (bool, string) {
		left := testenv.Value[int64](t, s.Store, "select count(*) from walhook.queue")
		return left == 0, fmt.Sprint(left)
	})
	if most := s.Receiver.MostInFlight("/dead"); most > 6 {
		t.Errorf("%d requests were in flight but 6 are allowed", most)
	}
	for id, story := range harness.ByResponse(s.Events("/dead")) {
		if len(story) != 2 || story[0] != "created" || story[1] != "started" {
			t.Fatalf("response %s: %v", id, story)
		}
	}
	if got := len(s.Receiver.Bodies("/dead")); got != 2*n {
		t.Errorf("%d requests came, not %d", got, 2*n)
	}
}

// Whatever is wrong with an endpoint, its queue costs one probe at a time and delays no other. Once it answers,
// everything arrives within the endpoint's limit.
func TestEveryKindOfTrouble(t *testing.T) {
	t.Parallel()
	const n = 100
	s := harness.NewSite(t, harness.SampleSchema).With("DELIVERY_TIMEOUT", "400ms", "ENDPOINT_CONCURRENCY", "4", "MAX_ATTEMPTS", "1000", "LOG_LEVEL", "info")
	s.Run()
	kinds := map[string]testenv.Reply{
		"/fails":     {Status: 500, Body: "no"},
		"/hangs":     {Hang: true},
		"/resets":    {Reset: true},
		"/redirects": {Status: 307, Header: map[string]string{"Location": s.Receiver.URL("/elsewhere")}},
		"/drips":     {Status: 502, Body: strings.Repeat("x", 10000), Drip: 20 * time.Millisecond},
		"/floods":    {Status: 502, Body: strings.Repeat("x", 1<<20)},
	}
	for path, reply := range kinds {
		s.Hook(path, "created")
		s.Receiver.Respond(path, testenv.Always(reply))
	}
	host := strings.TrimPrefix(s.Receiver.URL(""), "http://")
	for _, elsewhere := range []string{"https://" + host + "/speaks-no-tls", "http://" + harness.ClosedPort(t) + "/", "http://10.255.255.1/"} {
		s.Exec("insert into walhook.webhook (assessment_id, url, event_type) values ('1', $1, 'response.created')", elsewhere)
	}
	s.Hook("/works", "completed")
	s.Exec("insert into respondent (id, assessment_id) select g, 1 from generate_series(1, $1::int) g", n)
	everywhere := func(least int) {
		t.Helper()
		for path := range kinds {
			testenv.Eventually(t, harness.Patience, fmt.Sprintf("%d probes of %s", least, path), func() (bool, string) {
				got := len(s.Receiver.Bodies(path))
				return got >= least, fmt.Sprint(got)
			})
		}
	}
	everywhere(8)
	s.WaitHeartbeat() // attempts from before they counted as failing have ended
	s.Receiver.Forget()
	s.Exec("update respondent set finished_at = now()")
	s.WaitRequests("/works", n)
	everywhere(2)
	for path, reply := range kinds {
		allowed := 1
		if reply.Hang || reply.Reset || reply.Drip > 0 || len(reply.Body) > 1<<16 {
			allowed = 2 // the receiver may notice the end of an attempt a moment later
		}
		if most := s.Receiver.MostInFlight(path); most > allowed {
			t.Errorf("%s got %d probes at a time", path, most)
		}
	}

	s.Receiver.Forget()
	for path := range kinds {
		s.Receiver.Respond(path, nil)
	}
	s.Exec("update walhook.webhook set url = $1 where url not like '%' || $2 || '%' or url like 'https:%'", s.Receiver.URL("/mended"), host)
	s.Fence()
	for path := range kinds {
		if most := s.Receiver.MostInFlight(path); most > 4 {
			t.Errorf("%d requests to %s were in flight but 4 are allowed", most, path)
		}
	}
	got := testenv.Psql(t, s.Store, "select status, count(*) from walhook.delivery_log group by 1")
	if want := fmt.Sprintf("success|%d", n*(len(kinds)+4)); got != want {
		t.Errorf("the log has %s, not %s", got, want)
	}
}

// Without WALHOOK_ALLOW_NETWORKS nothing is sent to a private address, whatever name or spelling leads there.
func TestInnerAddressesAreRefused(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("ALLOW_NETWORKS", "", "MAX_ATTEMPTS", "1")
	s.Run()
	u, err := url.Parse(s.Receiver.URL("/"))
	if err != nil {
		t.Fatal(err)
	}
	hosts := []string{"127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "user:pw@127.0.0.1", "127.0.0.1.", "LOCALHOST"}
	var accepted int
	for _, host := range hosts {
		// The store already refuses some.
		if testenv.TryExec(s.Store, "insert into walhook.webhook (assessment_id, url, event_type) values ('1', $1, 'response.created')",
			fmt.Sprintf("http://%s:%s/inner", host, u.Port())) == nil {
			accepted++
		}
	}
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Fence()
	if got := len(s.Receiver.Requests()); got != 0 {
		t.Errorf("%d requests came: %v", got, s.Receiver.Requests())
	}
	if failed := testenv.Value[int](t, s.Store, "select count(*)::int from walhook.delivery_log where status = 'failed'"); failed != accepted {
		t.Errorf("%d deliveries failed, of %d: %s", failed, accepted, testenv.Psql(t, s.Store, "select status, error from walhook.delivery_log"))
	}
	got := testenv.Psql(t, s.Store, "select error from walhook.delivery_log d join walhook.webhook w on w.id = d.webhook_id where w.url like 'http://127.0.0.1:%'")
	if !strings.Contains(got, "WALHOOK_ALLOW_NETWORKS") {
		t.Errorf("the log does not name the remedy: %s", got)
	}
}

var goroutines = regexp.MustCompile(`(?m)^go_goroutines (\d+)`)

// Broken sessions, temporary endpoints and hanging requests leak no goroutines.
func TestNoGoroutineStays(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("DELIVERY_TIMEOUT", "300ms", "MAX_ATTEMPTS", "1")
	d := s.Run()
	s.Hooks()
	count := func() int {
		_, metrics := d.Get("/metrics")
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
		s.Receiver.Respond(path, testenv.Always(testenv.Reply{Hang: true}))
		hook := s.Hook(path, "created")
		s.Exec("insert into respondent (id, assessment_id) select g, 1 from generate_series($1::int, $1::int + 9) g", round*10)
		s.Fence()
		s.Exec("delete from walhook.webhook where id = $1", hook)
		s.Exec("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'walhook%' and datname = current_database()")
		d.Ready()
		s.Fence()
	}
	disturb(1)
	before := count()
	for round := 2; round <= 6; round++ {
		disturb(round)
	}
	testenv.Eventually(t, harness.Patience, "as many goroutines as before", func() (bool, string) {
		now := count()
		// One more or less connection in the pools makes a few goroutines' difference.
		return now <= before+6, fmt.Sprintf("%d, and %d before", now, before)
	})
}

// However many new endpoints hang, an endpoint that has answered before still gets attempts.
func TestNewEndpointsThatHangLeaveRoom(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("CONCURRENCY", "8", "DELIVERY_TIMEOUT", "2m")
	s.Run()
	s.Hook("/proven", "created")
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/proven", "created 1")
	for i := range 20 {
		path := fmt.Sprintf("/new/%d", i)
		s.Receiver.Respond(path, testenv.Always(testenv.Reply{Hang: true}))
		s.Hook(path, "started")
	}
	s.Exec("update respondent set started_at = now()")
	testenv.Eventually(t, harness.Patience, "new endpoints to be tried", func() (bool, string) {
		tried := 0
		for i := range 20 {
			tried += len(s.Receiver.Bodies(fmt.Sprintf("/new/%d", i)))
		}
		return tried == 6, fmt.Sprintf("%d requests", tried)
	})
	s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
	s.WaitRequests("/proven", 2) // long before the others time out
}
