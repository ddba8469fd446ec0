package cli

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// ReadTraces returns the protocol of OTLP by which traces are to be exported, "" where they are not asked for. The libraries read the
// variables again, and would go on with a default instead of a value that they do not understand: so they are checked here.
// See https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
// https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
func ReadTraces(getenv func(string) string) (protocol string, err error) {
	get := func(name string) string { return strings.TrimSpace(getenv(name)) }
	exporter := get("OTEL_TRACES_EXPORTER")
	asked := exporter != "" || get("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	if !asked || exporter == "none" || strings.EqualFold(get("OTEL_SDK_DISABLED"), "true") {
		return "", nil
	}
	for _, v := range TraceVariables {
		names := []string{v.Name}
		if rest, of := strings.CutPrefix(v.Name, "OTEL_EXPORTER_OTLP_"); of {
			names = append(names, "OTEL_EXPORTER_OTLP_TRACES_"+rest)
		}
		for _, name := range names {
			value := get(name)
			if value == "" || v.accepts(value) {
				continue
			}
			if v.secret {
				value = "..."
			}
			return "", badTraces(name, value, v.accepted)
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if protocol = get(name); protocol != "" {
			return protocol, nil
		}
	}
	return "http/protobuf", nil
}

// badTraces is the error of a variable of OpenTelemetry.
func badTraces(name, value, accepted string) error {
	return &usageError{fmt.Errorf("%s=%s is not accepted: %s", name, oneLine(value, shortLine), accepted)}
}

// traceVariable is a variable of OpenTelemetry that walhook looks at. One of OTLP exists for traces alone, too.
type traceVariable struct {
	Name     string
	secret   bool // its value is never shown
	accepts  func(string) bool
	accepted string
}

// TraceVariables are OpenTelemetry's variables that walhook reads.
var TraceVariables = []traceVariable{
	{"OTEL_TRACES_EXPORTER", false, oneOf("otlp"), "otlp or none"},
	{"OTEL_EXPORTER_OTLP_PROTOCOL", false, oneOf("http/protobuf", "http/json", "grpc"), "http/protobuf, http/json or grpc"},
	{"OTEL_EXPORTER_OTLP_ENDPOINT", true, isEndpoint, "a URL such as http://collector:4318, or http://collector:4317 for grpc"},
	{"OTEL_EXPORTER_OTLP_HEADERS", true, isHeaders, "name=value pairs, separated by commas"},
	{"OTEL_EXPORTER_OTLP_COMPRESSION", false, oneOf("gzip", "none"), "gzip or none"},
	{"OTEL_EXPORTER_OTLP_TIMEOUT", false, isWhole, "a whole number of milliseconds"},
	{"OTEL_EXPORTER_OTLP_CERTIFICATE", false, isCertificates, "the name of a PEM file with certificates, which can be read"},
	{"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", false, isCertificates, "the name of a PEM file with certificates, which can be read"},
	{"OTEL_EXPORTER_OTLP_CLIENT_KEY", false, isFile, "the name of a PEM file, which can be read"},
	{"OTEL_TRACES_SAMPLER", false, isSampler, "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or parentbased_traceidratio"},
	{"OTEL_TRACES_SAMPLER_ARG", false, isRatio, "a number from 0 to 1"},
	{"OTEL_BSP_SCHEDULE_DELAY", false, isWhole, "a whole number of milliseconds"},
	{"OTEL_BSP_EXPORT_TIMEOUT", false, isWhole, "a whole number of milliseconds"},
	{"OTEL_BSP_MAX_QUEUE_SIZE", false, isWhole, "a whole number of spans"},
	{"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", false, isWhole, "a whole number of spans"},
}

func oneOf(accepted ...string) func(string) bool {
	return func(value string) bool { return slices.Contains(accepted, value) }
}

func isSampler(value string) bool {
	return oneOf("always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio")(strings.ToLower(value))
}

func isEndpoint(value string) bool {
	u, err := url.Parse(value)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != ""
}

func isHeaders(value string) bool {
	for pair := range strings.SplitSeq(value, ",") {
		name, text, found := strings.Cut(pair, "=")
		if _, err := url.PathUnescape(text); !found || strings.TrimSpace(name) == "" || err != nil {
			return false
		}
	}
	return true
}

func isWhole(value string) bool {
	n, err := strconv.Atoi(value)
	return err == nil && n > 0
}

func isRatio(value string) bool {
	f, err := strconv.ParseFloat(value, 64)
	return err == nil && f >= 0 && f <= 1
}

func isFile(value string) bool {
	_, err := os.ReadFile(value)
	return err == nil
}

func isCertificates(value string) bool {
	pem, err := os.ReadFile(value)
	return err == nil && x509.NewCertPool().AppendCertsFromPEM(pem)
}
