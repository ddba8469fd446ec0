package deliveries

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// A collector receives each store transaction and each attempt, with each protocol of OTLP, and no secret. Receivers
// get no trace headers.
func TestTraces(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"http/protobuf", "http/json", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			c := newTraceCollector(t, protocol)
			s := harness.NewSite(t, harness.SampleSchema).With("MAX_ATTEMPTS", "2")
			s.Extra = []string{
				"OTEL_EXPORTER_OTLP_ENDPOINT=" + c.url, "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol, "OTEL_SERVICE_NAME=hooks-of-a-test",
				"OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test", "OTEL_BSP_SCHEDULE_DELAY=50",
			}
			s.Attach()
			ok := s.Hook("/ok?key=hunter2", "completed", "secret", "'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'")
			broken := s.Hook("/broken?key=hunter2", "created")
			s.Receiver.Respond("/broken", testenv.Always(testenv.Reply{Status: 503}))
			d := s.Start().Ready()
			testenv.Eventually(t, harness.Patience, "the daemon to own the endpoints, so that what it queues is not read from the store again", func() (bool, string) {
				n := testenv.Value[int64](t, s.Store, "select count(*) from walhook.endpoint where owner is null")
				return n == 0, fmt.Sprintf("%d have no owner", n)
			})
			s.Exec("insert into respondent (id, assessment_id, name, finished_at) values (1, 1, 'Ada Lovelace', now())")
			s.Fence()
			s.WaitLog("select count(*) from walhook.delivery_log where status <> 'pending'", "2")
			if status := d.Stop(); status != 0 {
				t.Errorf("the daemon ended with status %d", status)
			}

			batches := map[string]span{}
			events := int64(0)
			for _, b := range c.spans("walhook.batch") {
				batches[string(b.SpanId)] = b
				events += b.attributes["walhook.events"].(int64)
				if b.attributes["walhook.changes"].(int64) < 1 || !strings.Contains(b.attributes["walhook.end_lsn"].(string), "/") || b.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
					t.Errorf("a span of a store transaction says %v, %v", b.attributes, b.Status)
				}
			}
			if events != 3 { // the sentinel's as well
				t.Errorf("the spans of store transactions report %d events", events)
			}
			var got []string
			linked := 0
			for _, a := range c.spans("walhook.attempt") {
				got = append(got, fmt.Sprint(a.attributes["walhook.webhook_id"], " ", a.attributes["walhook.event_type"], " ", a.attributes["walhook.attempt"], " ", a.attributes["walhook.outcome"], " ",
					a.attributes["http.response.status_code"], " ", a.attributes["server.address"], " ", a.Status.GetMessage()))
				want := testenv.Value[int64](t, s.Store, "select delivery_id from walhook.delivery_log where webhook_id = $1", a.attributes["walhook.webhook_id"])
				if a.attributes["walhook.delivery_id"] != want {
					t.Errorf("an attempt has the delivery %v, not %v", a.attributes["walhook.delivery_id"], want)
				}
				if a.resource["service.name"] != "hooks-of-a-test" || a.resource["deployment.environment.name"] != "test" || a.resource["service.version"] != cli.Version() {
					t.Errorf("the resource is %v", a.resource)
				}
				linked += len(a.Links)
				for _, link := range a.Links {
					if _, found := batches[string(link.SpanId)]; !found {
						t.Error("an attempt links to something other than a store transaction")
					}
				}
			}
			// Deliveries read from the store, mostly retries, have no link.
			if linked == 0 {
				t.Error("no attempt links to anything")
			}
			slices.Sort(got)
			want := []string{
				fmt.Sprintf("%d response.completed 1 success 200 127.0.0.1 ", ok),
				fmt.Sprintf("%d response.created 1 retry 503 127.0.0.1 HTTP 503 Service Unavailable", broken),
				fmt.Sprintf("%d response.created 2 retry 503 127.0.0.1 HTTP 503 Service Unavailable", broken),
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("attempts (-want +got):\n%s", diff)
			}
			for _, secret := range []string{"hunter2", "/ok", "/broken", "whsec_", "Lovelace", "respondent"} {
				if strings.Contains(string(c.wire), secret) {
					t.Errorf("the collector was told %q", secret)
				}
			}
			for _, r := range s.Receiver.Requests() {
				for name := range r.Header {
					if lower := strings.ToLower(name); lower == "traceparent" || lower == "tracestate" || lower == "baggage" {
						t.Errorf("the receiver was sent the header %s", name)
					}
				}
			}
		})
	}
}

// A collector that hangs or is unavailable delays no delivery and no stop, and the log reports it once.
func TestTracesWithoutCollector(t *testing.T) {
	t.Parallel()
	hanging, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hanging.Close() })
	for name, c := range map[string]struct{ protocol, address string }{
		"hangs":       {"http/protobuf", hanging.Addr().String()},
		"hangs, grpc": {"grpc", hanging.Addr().String()},
		"is absent":   {"http/protobuf", "127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema).With("LOG_LEVEL", "info")
			s.Extra = []string{
				"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://" + c.address + "/token-of-mine", "OTEL_EXPORTER_OTLP_PROTOCOL=" + c.protocol,
				"OTEL_BSP_SCHEDULE_DELAY=20", "OTEL_BSP_EXPORT_TIMEOUT=100", "OTEL_EXPORTER_OTLP_TIMEOUT=100", "OTEL_BSP_MAX_QUEUE_SIZE=16", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=8",
			}
			d := s.Run()
			s.Hook("/hook", "created")
			s.Exec("insert into respondent (id, assessment_id) select g, 1 from generate_series(1, 500) g")
			s.WaitRequests("/hook", 500)
			testenv.Eventually(t, harness.Patience, "a word on traces", func() (bool, string) {
				return strings.Contains(d.Log.String(), "cannot export traces"), d.Log.String()
			})
			s.Exec("insert into respondent (id, assessment_id) select g, 1 from generate_series(501, 600) g")
			s.WaitRequests("/hook", 600)
			if status := d.Stop(); status != 0 {
				t.Errorf("the daemon ended with status %d", status)
			}
			text := d.Log.String()
			if n := strings.Count(text, "cannot export traces"); n != 1 || strings.Contains(text, "token-of-mine") {
				t.Errorf("it was logged %d times, or with the collector's path:\n%s", n, text)
			}
		})
	}
}

// Traces are off by default, and an invalid variable is refused.
func TestTraceVariables(t *testing.T) {
	t.Parallel()
	notPEM := filepath.Join(t.TempDir(), "not.pem")
	if err := os.WriteFile(notPEM, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	const on = "OTEL_TRACES_EXPORTER=otlp"
	for _, c := range []struct{ variables, protocol, refused string }{
		{"", "", ""},
		{"OTEL_EXPORTER_OTLP_PROTOCOL=pigeon", "", ""},
		{"OTEL_TRACES_EXPORTER=none OTEL_EXPORTER_OTLP_ENDPOINT=http://c", "", ""},
		{on + " OTEL_SDK_DISABLED=true", "", ""},
		{on + " OTEL_SDK_DISABLED=TRUE OTEL_EXPORTER_OTLP_PROTOCOL=pigeon", "", ""},
		{on + " OTEL_SDK_DISABLED=no", "http/protobuf", ""},
		{on, "http/protobuf", ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318", "http/protobuf", ""},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://c/v1/traces", "http/protobuf", ""},
		{on + " OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "grpc", ""},
		{on + " OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json", "http/json", ""},
		{on + " OTEL_TRACES_SAMPLER=parentbased_traceidratio OTEL_TRACES_SAMPLER_ARG=0.25", "http/protobuf", ""},
		{on + " OTEL_EXPORTER_OTLP_HEADERS=a=b,c=d%20e", "http/protobuf", ""},
		{"OTEL_TRACES_EXPORTER=zipkin", "", "OTEL_TRACES_EXPORTER=zipkin is not accepted: otlp or none"},
		{on + " OTEL_EXPORTER_OTLP_PROTOCOL=pigeon", "", "OTEL_EXPORTER_OTLP_PROTOCOL=pigeon is not accepted: http/protobuf, http/json or grpc"},
		{on + " OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http", "", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http is not accepted: http/protobuf, http/json or grpc"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=user:hunter2@collector:4317", "", "OTEL_EXPORTER_OTLP_ENDPOINT=... is not accepted: a URL such as http://collector:4318, or http://collector:4317 for grpc"},
		{on + " OTEL_EXPORTER_OTLP_HEADERS=hunter2", "", "OTEL_EXPORTER_OTLP_HEADERS=... is not accepted: name=value pairs, separated by commas"},
		{on + " OTEL_EXPORTER_OTLP_COMPRESSION=zip", "", "OTEL_EXPORTER_OTLP_COMPRESSION=zip is not accepted: gzip or none"},
		{on + " OTEL_EXPORTER_OTLP_TIMEOUT=10s", "", "OTEL_EXPORTER_OTLP_TIMEOUT=10s is not accepted: a whole number of milliseconds"},
		{on + " OTEL_EXPORTER_OTLP_CERTIFICATE=" + notPEM, "", "OTEL_EXPORTER_OTLP_CERTIFICATE=" + notPEM + " is not accepted: the name of a PEM file with certificates, which can be read"},
		{on + " OTEL_TRACES_SAMPLER=most", "", "OTEL_TRACES_SAMPLER=most is not accepted: always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or parentbased_traceidratio"},
		{on + " OTEL_TRACES_SAMPLER_ARG=25", "", "OTEL_TRACES_SAMPLER_ARG=25 is not accepted: a number from 0 to 1"},
		{on + " OTEL_BSP_MAX_QUEUE_SIZE=0", "", "OTEL_BSP_MAX_QUEUE_SIZE=0 is not accepted: a whole number of spans"},
	} {
		env := map[string]string{}
		for _, pair := range strings.Fields(c.variables) {
			name, value, _ := strings.Cut(pair, "=")
			env[name] = value
		}
		protocol, err := cli.ReadTraces(func(name string) string { return env[name] })
		got := ""
		if err != nil {
			got = err.Error()
		}
		if protocol != c.protocol || got != c.refused {
			t.Errorf("%s: %q, %q", c.variables, protocol, got)
		}
	}
	for _, c := range [][2]string{
		{"OTEL_EXPORTER_OTLP_PROTOCOL=pigeon", "walhook: OTEL_EXPORTER_OTLP_PROTOCOL=pigeon is not accepted: http/protobuf, http/json or grpc\n"},
		{"OTEL_RESOURCE_ATTRIBUTES=nonsense", "walhook: OTEL_RESOURCE_ATTRIBUTES=nonsense is not accepted: key=value pairs, separated by commas\n"},
	} {
		s := &harness.Site{T: t, Env: map[string]string{"DATABASE_URL": "postgres://127.0.0.1:1/none"}, Extra: []string{on, c[0]}}
		if _, errOut, status := s.Walhook("run"); status != cli.ExitUsage || errOut != c[1] {
			t.Errorf("%s: status %d: %s", c[0], status, errOut)
		}
	}
}
