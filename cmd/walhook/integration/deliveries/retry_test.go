package deliveries

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// What an answer means for its delivery. Each case is a webhook and a response of its own.
// An edit counts for every transaction that commits after it, also while the senders have not heard of it yet.
func TestEditedURLCountsAtOnce(t *testing.T) {
	t.Parallel()
	const n = 150
	s := harness.NewSite(t, harness.SampleSchema)
	s.Run()
	hook := s.Hook("/even", "created")
	conn := testenv.Connect(t, s.DB)
	paths := []string{"/even", "/odd"}
	for i := 1; i <= n; i++ {
		for _, statement := range []string{
			fmt.Sprintf("update walhook.webhook set url = '%s' where id = %d", s.Receiver.URL(paths[i%2]), hook),
			fmt.Sprintf("insert into respondent (id, assessment_id) values (%d, 1)", i),
		} {
			if _, err := conn.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		// Pending deliveries follow the webhook, so each must arrive before the next edit.
		s.WaitRequests(paths[i%2], (i+i%2)/2)
	}
	s.Fence()
	for i, path := range paths {
		for _, event := range s.Events(path) {
			var id int
			if _, err := fmt.Sscanf(event, "created %d", &id); err != nil || id%2 != i {
				t.Errorf("%s came to %s", event, path)
			}
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("MAX_ATTEMPTS", "3", "RETRY_CAP", "1500ms", "DELIVERY_TIMEOUT", "500ms")
	s.Run()
	retryAfter := func(status int, wait string) testenv.Reply {
		return testenv.Reply{Status: status, Header: map[string]string{"Retry-After": wait}}
	}
	cases := []struct {
		name  string
		url   string // empty for a path of the receiver named after the case
		first testenv.Reply
		then  testenv.Reply
		want  string // status, attempts, http_status and the start of the error
	}{
		{name: "500 then 200", first: testenv.Reply{Status: 500}, want: "success|2|200|"},
		{name: "every 2xx is success", first: testenv.Reply{Status: 204}, want: "success|1|204|"},
		{
			name: "redirect", first: testenv.Reply{Status: 302, Header: map[string]string{"Location": "/elsewhere"}},
			then: testenv.Reply{Status: 307, Header: map[string]string{"Location": "/elsewhere"}}, want: "failed|3|307|HTTP 307 Temporary Redirect: redirect to ",
		},
		{name: "not found", first: testenv.Reply{Status: 404, Body: "who?"}, then: testenv.Reply{Status: 404, Body: "who?"}, want: "failed|3|404|HTTP 404 Not Found: who?"},
		{name: "gone", first: testenv.Reply{Status: 410}, want: "failed|1|410|HTTP 410 Gone"},
		{name: "busy", first: retryAfter(429, "1"), want: "success|2|200|"},
		{name: "unavailable for very long", first: retryAfter(503, "999999"), want: "success|2|200|"},
		{name: "silent", first: testenv.Reply{Hang: true}, then: testenv.Reply{Hang: true}, want: "failed|3||timeout after 500ms"},
		{name: "broken", first: testenv.Reply{Reset: true}, then: testenv.Reply{Reset: true}, want: "failed|3||connection reset"},
		{name: "nobody there", url: "http://" + harness.ClosedPort(t) + "/very-secret", want: "failed|3||connection refused"},
		{name: "metadata", url: "http://169.254.169.254/very-secret", want: "failed|3||"},
		{name: "unknown host", url: "http://no-such-host.invalid/very-secret", want: "failed|3||"},
	}
	ids := map[string]int64{}
	var want []string
	for i, c := range cases {
		path := fmt.Sprintf("/case%d", i)
		assessment := fmt.Sprint(100 + i)
		hook := s.Hook(path, "created", "assessment_id", "'"+assessment+"'")
		ids[c.name] = hook
		if c.url != "" {
			s.Exec("update walhook.webhook set url = $1 where id = $2", c.url, hook)
		}
		s.Receiver.Respond(path, func(r testenv.Request) testenv.Reply {
			if r.Nth == 1 {
				return c.first
			}
			return c.then
		})
		s.Exec("insert into respondent (id, assessment_id) values ($1, $1)", 100+i)
		want = append(want, c.want)
	}
	s.WaitLog("select count(*) from walhook.delivery_log where status <> 'pending'", fmt.Sprint(len(cases)))
	got := strings.Split(testenv.Psql(t, s.Store, "select status, attempts, http_status, error from walhook.delivery_log order by response_id::int"), "\n")
	for i, c := range cases {
		if i >= len(got) || !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%s: the log has %s, not %s", c.name, got[min(i, len(got)-1)], want[i])
		}
	}
	if strings.Contains(strings.Join(got, "\n"), "very-secret") {
		t.Errorf("the log shows more of a URL than scheme and host:\n%s", strings.Join(got, "\n"))
	}
	if n := len(s.Receiver.Bodies("/elsewhere")); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}

	// 410 disables the webhook, and an incident reports it.
	gone := ids["gone"]
	disabled := testenv.Psql(t, s.Store, "select id, disabled_at is not null, disabled_reason from walhook.webhook where not enabled")
	if want := fmt.Sprintf("%d|t|the endpoint answered 410 Gone", gone); disabled != want {
		t.Errorf("disabled webhooks are %s, not %s", disabled, want)
	}
	incidents := testenv.Psql(t, s.Store, "select kind, detail from walhook.incident")
	if !strings.HasPrefix(incidents, fmt.Sprintf("webhook_disabled|webhook %d to http://127.0.0.1:", gone)) || strings.Contains(incidents, "/case") {
		t.Errorf("incidents are %s", incidents)
	}

	// Retry-After was respected.
	var at []time.Time
	for _, r := range s.Receiver.Requests() {
		if r.Path == "/case5" {
			at = append(at, r.At)
		}
	}
	if len(at) != 2 || at[1].Sub(at[0]) < time.Second {
		t.Errorf("attempts arrived at %v, not a second apart", at)
	}
}

// An ordered webhook's deliveries about the same response keep their order through retries; other responses do not
// wait.
func TestRetryKeepsOrder(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("MAX_ATTEMPTS", "1000")
	s.Run()
	for _, event := range []string{"created", "started", "completed"} {
		s.Hook("/ordered", event)
		s.Hook("/free", event, "ordered", "false")
	}
	var mu sync.Mutex
	open := false
	s.Receiver.Respond("/ordered", func(r testenv.Request) testenv.Reply {
		mu.Lock()
		defer mu.Unlock()
		// Response 1 fails until everything of response 2 has arrived.
		if strings.Contains(r.Body, ":1}") && !open {
			return testenv.Reply{Status: 400}
		}
		open = open || strings.Contains(r.Body, "completed") && strings.Contains(r.Body, ":2}")
		return testenv.Reply{}
	})
	freed := false
	s.Receiver.Respond("/free", func(r testenv.Request) testenv.Reply {
		mu.Lock()
		defer mu.Unlock()
		// The first event of response 1 fails until its last has arrived.
		freed = freed || strings.Contains(r.Body, "completed") && strings.Contains(r.Body, ":1}")
		if strings.Contains(r.Body, "created") && !freed {
			return testenv.Reply{Status: 400}
		}
		return testenv.Reply{}
	})
	s.Exec("insert into respondent (id, assessment_id, started_at) values (1, 1, now()), (2, 1, now())")
	s.WaitRequests("/ordered", 2)
	s.Exec("update respondent set finished_at = now()")
	s.Fence()
	if diff := cmp.Diff([]string{"created", "started", "completed"}, slices.Compact(harness.ByResponse(s.Events("/ordered"))["1"])); diff != "" {
		t.Errorf("response 1 at the ordered webhooks (-want +got):\n%s", diff)
	}
	statuses := testenv.Psql(t, s.Store, "select status, count(*) from walhook.delivery_log group by 1")
	if statuses != "success|12" {
		t.Errorf("the log has %s", statuses)
	}
}

// An in-flight delivery keeps its place when its webhook's URL changes: it is not sent to the new URL concurrently, and
// later ones wait for it there.
func TestURLChangedInFlight(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("DELIVERY_TIMEOUT", "4s")
	s.Run()
	for _, event := range []string{"created", "started", "completed"} {
		s.Hook("/old", event)
	}
	s.Receiver.Respond("/old", func(testenv.Request) testenv.Reply { return testenv.Reply{Hang: true} })
	s.Exec("insert into respondent (id, assessment_id, started_at, finished_at) values (1, 1, now(), now())")
	s.WaitRequests("/old", 1)
	s.Exec("update walhook.webhook set url = replace(url, '/old', '/new')")
	s.WaitRequests("/new", 3)
	if diff := cmp.Diff([]string{"created", "started", "completed"}, harness.ByResponse(s.Events("/new"))["1"]); diff != "" {
		t.Errorf("at the new URL (-want +got):\n%s", diff)
	}
	testenv.Eventually(t, harness.Patience, "the log to hold each delivery once, the first with two attempts", func() (bool, string) {
		got := testenv.Psql(t, s.Store, "select event_type, status, attempts from walhook.delivery_log order by delivery_id")
		return got == "response.created|success|2\nresponse.started|success|1\nresponse.completed|success|1", got
	})
}

// elsewhere waits until all endpoints have owners, and returns a URL whose path begins with /new and whose owner
// differs from that of the given path.
func elsewhere(s *harness.Site, path string) (found string) {
	s.T.Helper()
	testenv.Eventually(s.T, harness.Patience, "the daemons to share the endpoints", func() (bool, string) {
		found = testenv.Value[string](s.T, s.Store, `select coalesce(min(n.url), '') from walhook.endpoint n, walhook.endpoint o
			where n.url like '%/new%' and o.url like '%' || $1 and n.owner <> o.owner and not exists (select from walhook.endpoint where owner is null)`, path)
		return found != "", testenv.Psql(s.T, s.Store, "select url, owner from walhook.endpoint")
	})
	return found
}

// The daemon that reads the slot notifies the others immediately of deliveries for their endpoints: if they only
// polled, this would take minutes.
func TestOtherDaemonIsTold(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Run()
	s.Start().Readyz(200, "standing by")
	s.Hook("/old", "created")
	for n := range 12 {
		s.Hook(fmt.Sprintf("/new%d", n), "created")
	}
	elsewhere(s, "/old")
	began := time.Now()
	for id := 1; id <= 20; id++ {
		s.Exec("insert into respondent (id, assessment_id) values ($1, 1)", id)
		s.WaitRequests("/old", id)
		for n := range 12 {
			s.WaitRequests(fmt.Sprintf("/new%d", n), id)
		}
	}
	if took := time.Since(began); took > 90*time.Second {
		t.Errorf("20 events, one after the other, took %s: daemons are not notified", took)
	}
}

// If a store transaction queues more deliveries than are handed over in memory, the others are found in the store,
// though more follow immediately.
func TestMoreQueuedThanHandedOver(t *testing.T) {
	t.Parallel()
	const n = 12000
	s := harness.NewSite(t, harness.SampleSchema).With("LOG_LEVEL", "info")
	s.Run()
	for _, path := range []string{"/a", "/b", "/c"} {
		s.Hook(path, "created")
	}
	s.Receiver.CountOnly()
	s.Exec("insert into respondent (id, assessment_id) select g, 1 from generate_series(1, $1::int) g", n)
	for id := n + 1; id <= n+200; id++ {
		s.Exec("insert into respondent (id, assessment_id) values ($1, 1)", id)
	}
	s.Fence()
	got := testenv.Psql(t, s.Store, "select count(*), count(distinct response_id), bool_and(status = 'success') from walhook.delivery_log")
	if want := fmt.Sprintf("%d|%d|t", 3*(n+200), n+200); got != want {
		t.Errorf("the log has %s (deliveries, responses, all successful), not %s", got, want)
	}
}

// The same holds if another daemon owns the new URL: nothing is sent there while the owner of the old one has attempts
// in flight, and deliveries that ended there are not sent again.
func TestURLChangedToAnotherDaemon(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("DELIVERY_TIMEOUT", "30s")
	s.Run()
	s.Start().Readyz(200, "standing by")
	for _, event := range []string{"created", "started", "completed"} {
		s.Hook("/old", event)
	}
	for n := range 12 {
		s.Hook(fmt.Sprintf("/new%d", n), "changed")
	}
	moved := elsewhere(s, "/old")
	u, err := url.Parse(moved)
	if err != nil {
		t.Fatal(err)
	}
	answer := make(chan struct{})
	s.Receiver.Respond("/old", func(testenv.Request) testenv.Reply { <-answer; return testenv.Reply{} })
	s.Exec("insert into respondent (id, assessment_id, started_at, finished_at) values (1, 1, now(), now())")
	s.WaitRequests("/old", 1)
	s.Exec("update walhook.webhook set url = $1 where event_type <> 'response.changed'", moved)
	s.Exec("update respondent set finished_at = now() + interval '1 hour'")
	s.WaitHeartbeat()
	if waits := testenv.Psql(t, s.Store, "select waits_for from walhook.pending where event_type = 'response.created'"); waits != "attempts at the URL that the webhook had before have not ended" {
		t.Errorf("what has moved waits for: %s", waits)
	}
	if early := s.Events(u.Path); len(early) > 0 {
		t.Errorf("%v arrived at the new URL before the old one had answered", early)
	}
	close(answer)
	s.Fence()
	if diff := cmp.Diff([]string{"started", "completed", "changed"}, harness.ByResponse(s.Events(u.Path))["1"]); diff != "" {
		t.Errorf("at the new URL (-want +got):\n%s", diff)
	}
	if got := s.Events("/old"); len(got) != 1 {
		t.Errorf("the old URL got %v", got)
	}
	// Once the old URL is released, sending to the new one continues during these writes.
	testenv.Eventually(t, harness.Patience, "no webhook to count as moving", func() (bool, string) {
		left := testenv.Psql(t, s.Store, "select count(*) from walhook.webhook_move")
		return left == "0", left + " still do"
	})
}

// A hanging endpoint takes no attempt that another endpoint needs.
func TestHangingEndpointDelaysNoOther(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("CONCURRENCY", "4", "ENDPOINT_CONCURRENCY", "4", "DELIVERY_TIMEOUT", "1h")
	s.Run()
	s.Hook("/hangs", "created")
	s.Hook("/works", "created")
	s.Receiver.Respond("/hangs", testenv.Always(testenv.Reply{Hang: true}))
	s.Exec("insert into respondent (id, assessment_id) select n, 1 from generate_series(1, 300) n")
	s.WaitRequests("/works", 300)
	if n := len(s.Receiver.Bodies("/hangs")); n == 0 || n > 4 {
		t.Errorf("%d requests hang", n)
	}
}

// Nor does one that hangs from its first request on take attempts that an untried endpoint needs.
func TestHangingEndpointLeavesRoomForNewOnes(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("CONCURRENCY", "4", "ENDPOINT_CONCURRENCY", "4", "DELIVERY_TIMEOUT", "1h")
	s.Run()
	s.Hook("/hangs", "created")
	s.Receiver.Respond("/hangs", testenv.Always(testenv.Reply{Hang: true}))
	s.Exec("insert into respondent (id, assessment_id) select n, 1 from generate_series(1, 100) n")
	s.WaitRequests("/hangs", 1)
	s.WaitHeartbeat() // it has taken as many as it may
	s.Hook("/works", "created")
	s.Exec("insert into respondent (id, assessment_id) select n, 1 from generate_series(101, 200) n")
	s.WaitRequests("/works", 100)
}

// A webhook whose every attempt fails for long enough is disabled. Its pending deliveries wait for an administrator.
func TestDisableAfter(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("DISABLE_AFTER", "300ms", "MAX_ATTEMPTS", "1000")
	s.Run()
	hook := s.Hook("/dead", "created")
	// Successes between failures, over a longer time, keep it enabled.
	s.Receiver.Respond("/dead", func(r testenv.Request) testenv.Reply { return testenv.Reply{Status: 200 + 300*(r.Nth%2)} })
	for id := 101; id <= 108; id++ {
		s.Exec("insert into respondent (id, assessment_id) values ($1, 1)", id)
		s.WaitLog(fmt.Sprintf("select status, attempts from walhook.delivery_log where response_id = '%d'", id), "success|2")
	}
	s.Exec("delete from walhook.log")
	s.Receiver.Respond("/dead", testenv.Always(testenv.Reply{Status: 500}))
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.WaitLog("select enabled, disabled_at is not null, disabled_reason like 'every attempt has failed since % UTC' from walhook.webhook", "f|t|t")
	s.WaitLog("select kind, detail like '%webhook "+fmt.Sprint(hook)+" to http://127.0.0.1:%' from walhook.incident", "webhook_disabled|t")
	s.WaitLog("select status from walhook.delivery_log", "pending")
	s.Receiver.Respond("/dead", nil)
	s.Exec("update walhook.webhook set enabled = true")
	s.WaitLog("select status from walhook.delivery_log", "success")
}

// The request is exactly as documented, and the reference library accepts its signature.
func TestRequest(t *testing.T) {
	t.Parallel()
	const secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	s := harness.NewSite(t, harness.SampleSchema)
	s.Run()
	s.Hook("/signed", "created", "secret", "'"+secret+"'")
	s.Hook("/plain", "created")
	s.Receiver.Respond("/signed", harness.Once(500, ""))
	before := testenv.Value[int64](t, s.DB, "select floor(extract(epoch from clock_timestamp()))::bigint")
	s.Exec("insert into respondent (id, assessment_id) values (1112057, 1)")
	after := testenv.Value[int64](t, s.DB, "select floor(extract(epoch from clock_timestamp()))::bigint")
	s.Fence()

	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string][]string{}
	for _, r := range s.Receiver.Requests() {
		ids[r.Path] = append(ids[r.Path], r.Header.Get("Webhook-Id"))
		headers := []string{"Content-Length", "Content-Type", "User-Agent", "Webhook-Id", "Webhook-Timestamp"}
		if r.Path == "/signed" {
			headers = append(headers, "Webhook-Signature")
			if err := verifier.Verify([]byte(r.Body), r.Header); err != nil {
				t.Errorf("the reference library refuses the signature %s: %v", r.Header.Get("Webhook-Signature"), err)
			}
		}
		var got []string
		for name := range r.Header {
			got = append(got, name)
		}
		slices.Sort(got)
		slices.Sort(headers)
		if diff := cmp.Diff(headers, got); diff != "" {
			t.Errorf("headers at %s (-want +got):\n%s", r.Path, diff)
		}
		if r.Header.Get("Content-Type") != "application/json" || !regexp.MustCompile(`^walhook/\S+$`).MatchString(r.Header.Get("User-Agent")) {
			t.Errorf("headers are %v", r.Header)
		}
		committed := regexp.MustCompile(`^\{"EventType":"response\.created","Timestamp":([0-9]+),"Data":\{"ResponseId":1112057\}\}$`).FindStringSubmatch(r.Body)
		if committed == nil {
			t.Fatalf("the body is %s", r.Body)
		}
		if at, _ := strconv.ParseInt(committed[1], 10, 64); at < before || at > after {
			t.Errorf("the timestamp is %d but the transaction committed between %d and %d", at, before, after)
		}
	}
	if len(ids["/signed"]) != 2 || ids["/signed"][0] != ids["/signed"][1] || len(ids["/plain"]) != 1 || ids["/plain"][0] == ids["/signed"][0] {
		t.Errorf("webhook-ids are %v", ids)
	}
}

// On SIGTERM the daemon finishes and records the in-flight attempt, and exits with status 0. Nothing is sent twice.
func TestDrain(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	s.Hook("/slow", "created")
	release := make(chan struct{})
	s.Receiver.Respond("/slow", func(testenv.Request) testenv.Reply {
		<-release
		return testenv.Reply{}
	})
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.WaitRequests("/slow", 1)
	status := make(chan int, 1)
	go func() { status <- d.Stop() }()
	testenv.Eventually(t, harness.Patience, "the stream to be let go", func() (bool, string) {
		n := testenv.Value[int64](t, s.DB, "select count(*) from pg_replication_slots where active and slot_name = $1", s.Env["SLOT"])
		return n == 0, "the slot is active"
	})
	close(release)
	if got := <-status; got != 0 {
		t.Errorf("the exit status is %d", got)
	}
	s.WaitLog("select status, attempts from walhook.delivery_log", "success|1")
	s.Start().Ready()
	s.Expect("/slow", "created 1")
	if n := testenv.Value[int64](t, s.Store, "select count(*) from walhook.daemon"); n != 1 {
		t.Errorf("%d daemons are registered", n)
	}
}

// The limits of in-flight attempts hold, per URL and in total.
func TestConcurrencyLimits(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("CONCURRENCY", "6", "ENDPOINT_CONCURRENCY", "2")
	s.Run()
	var mu sync.Mutex
	inFlight, most := 0, 0
	paths := []string{"/a", "/b", "/c", "/d", "/e"}
	for _, path := range paths {
		s.Hook(path, "created")
		s.Receiver.Respond(path, func(testenv.Request) testenv.Reply {
			mu.Lock()
			inFlight++
			most = max(most, inFlight)
			mu.Unlock()
			time.Sleep(5 * time.Millisecond) // the receiver is slow
			mu.Lock()
			inFlight--
			mu.Unlock()
			return testenv.Reply{}
		})
	}
	s.Exec("insert into respondent (id, assessment_id) select n, 1 from generate_series(1, 40) n")
	s.Fence()
	if most > 6 || most < 2 {
		t.Errorf("%d attempts were in flight but 6 are allowed", most)
	}
	for _, path := range paths {
		if n, got := s.Receiver.MostInFlight(path), len(s.Receiver.Bodies(path)); n > 2 || got != 40 {
			t.Errorf("%d attempts were in flight to %s but 2 are allowed; %d of 40 arrived", n, path, got)
		}
	}
}
