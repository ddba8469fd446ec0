package deliveries

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// traceCollector receives OTLP like a collector.
type traceCollector struct {
	coltrace.UnimplementedTraceServiceServer

	url      string
	mu       sync.Mutex
	received []*tracepb.ResourceSpans
	paths    map[string]bool
	wire     []byte // everything received
}

// newTraceCollector starts a collector for one of OTLP's protocols.
func newTraceCollector(t *testing.T, protocol string) *traceCollector {
	t.Helper()
	c := &traceCollector{paths: map[string]bool{}}
	if protocol == "grpc" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		coltrace.RegisterTraceServiceServer(server, c)
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(server.Stop)
		c.url = "http://" + listener.Addr().String()
		return c
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		request := &coltrace.ExportTraceServiceRequest{}
		switch kind := r.Header.Get("Content-Type"); {
		case err != nil:
		case kind == "application/x-protobuf":
			err = proto.Unmarshal(body, request)
		case kind == "application/json":
			err = protojson.Unmarshal(body, request)
		default:
			err = fmt.Errorf("content type %s", kind)
		}
		if err != nil {
			t.Errorf("the request is not OTLP: %v", err)
		}
		c.take(request, r.URL.Path)
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

// Export implements OTLP's gRPC service.
func (c *traceCollector) Export(_ context.Context, request *coltrace.ExportTraceServiceRequest) (*coltrace.ExportTraceServiceResponse, error) {
	c.take(request, "grpc")
	return &coltrace.ExportTraceServiceResponse{}, nil
}

func (c *traceCollector) take(request *coltrace.ExportTraceServiceRequest, path string) {
	text, _ := protojson.Marshal(request)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received = append(c.received, request.ResourceSpans...)
	c.paths[path] = true
	c.wire = append(c.wire, text...)
}

// span has the parts of a span that tests check.
type span struct {
	*tracepb.Span

	attributes map[string]any
	resource   map[string]any
}

// spans returns the received spans with a name.
func (c *traceCollector) spans(name string) []span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []span
	for _, r := range c.received {
		for _, scope := range r.ScopeSpans {
			for _, s := range scope.Spans {
				if s.Name == name {
					found = append(found, span{s, plain(s.Attributes), plain(r.Resource.Attributes)})
				}
			}
		}
	}
	return found
}

func plain(attributes []*common.KeyValue) map[string]any {
	values := map[string]any{}
	for _, a := range attributes {
		switch v := a.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			values[a.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			values[a.Key] = v.IntValue
		default:
			text, _ := json.Marshal(v)
			values[a.Key] = string(text)
		}
	}
	return values
}
