package documents

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pb33f/jsonschema/v6"
	"github.com/pb33f/libopenapi/datamodel"

	"walhook/testenv"
)

// finish lets the application record that a response is finished.
func (s *platformSite) finish(id int) {
	s.T.Helper()
	status, _, body := s.send("POST", fmt.Sprintf("%s/responses/%d", s.application, id), nil, nil)
	if status != http.StatusNoContent {
		s.T.Fatalf("finish response %d: %d %v", id, status, body)
	}
}

// send sends a request with JSON and returns the answer. Its body is nil if there is none.
func (s *platformSite) send(method, address string, headers map[string]any, body any) (int, http.Header, any) {
	s.T.Helper()
	var content io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			s.T.Fatal(err)
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(s.T.Context(), method, address, content)
	if err != nil {
		s.T.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	for name, value := range headers {
		req.Header.Set(name, fmt.Sprint(value))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.T.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.T.Fatal(err)
	}
	var answer any
	if len(text) > 0 {
		if answer, err = jsonschema.UnmarshalJSON(bytes.NewReader(text)); err != nil {
			s.T.Fatalf("%s %s answers %d %s", method, address, resp.StatusCode, text)
		}
	}
	return resp.StatusCode, resp.Header, answer
}

func readJSON(t *testing.T, text []byte) any {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return value
}

// at returns a value in a JSON document.
func at[T any](t *testing.T, value any, path ...string) T {
	t.Helper()
	for _, name := range path {
		object, _ := value.(map[string]any)
		value = object[name]
	}
	found, ok := value.(T)
	if !ok {
		t.Fatalf("%v is %v", path, value)
	}
	return found
}

// The custom connector for Power Automate is a valid Swagger document. Each of its operations, carried out as Power
// Automate does, answers as described, and what arrives is as described, too.
func TestPowerAutomate(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../examples/power-automate/apiDefinition.swagger.json")
	if err != nil {
		t.Fatal(err)
	}
	document := readJSON(t, text)
	compiler := jsonschema.NewCompiler()
	swagger := readJSON(t, []byte(datamodel.OpenAPI2SchemaData))
	for name, resource := range map[string]any{"connector.json": document, "swagger.json": swagger} {
		if err := compiler.AddResource(name, resource); err != nil {
			t.Fatal(err)
		}
	}
	validate := func(schema string, value any) {
		t.Helper()
		compiled, err := compiler.Compile(schema)
		if err == nil {
			err = compiled.Validate(value)
		}
		if err != nil {
			t.Errorf("%s: %v", schema, err)
		}
	}
	validate("swagger.json", document)

	s := newPlatformSite(t, "Power Automate")
	key := map[string]any{at[string](t, document, "securityDefinitions", "key", "name"): s.key}
	base := s.address + at[string](t, document, "basePath")
	operations, done := map[string][2]string{}, map[string]bool{}
	for path, methods := range at[map[string]any](t, document, "paths") {
		for method := range methods.(map[string]any) {
			if !strings.HasPrefix(method, "x-") {
				operations[at[string](t, methods, method, "operationId")] = [2]string{method, path}
			}
		}
	}
	// call carries out an operation, and validates its answer.
	call := func(operation, address string, headers map[string]any, body any) (http.Header, any) {
		t.Helper()
		method, path := operations[operation][0], operations[operation][1]
		if address == "" {
			address = base + path
		}
		status, header, answer := s.send(strings.ToUpper(method), address, headers, body)
		responses := "connector.json#/paths/" + url.PathEscape(strings.ReplaceAll(path, "/", "~1")) + "/" + method + "/responses/"
		described := at[map[string]any](t, document, "paths", path, method, "responses")
		code := "default"
		if _, ok := described[fmt.Sprint(status)]; ok {
			code = fmt.Sprint(status)
			done[operation] = true
		}
		if _, ok := described[code].(map[string]any)["schema"]; ok || answer != nil {
			validate(responses+code+"/schema", answer)
		}
		return header, answer
	}

	call(at[string](t, document, "x-ms-capabilities", "testConnection", "operationId"), "", key, nil)
	if _, answer := call("GetKey", "", map[string]any{"X-API-Key": "whk_x"}, nil); at[json.Number](t, answer, "status") != "401" {
		t.Errorf("with a wrong key: %v", answer)
	}

	// Power Automate fills the property for the flow's address, and what has a default.
	const trigger = "WhenResponseChanges"
	if at[string](t, document, "paths", "/webhooks", "post", "x-ms-trigger") != "single" {
		t.Error("the trigger is none")
	}
	subscription := map[string]any{}
	for name, property := range at[map[string]any](t, document, "definitions", "Subscription", "properties") {
		property := property.(map[string]any)
		if property["x-ms-notification-url"] == true {
			subscription[name] = s.Receiver.URL("/workflows/1/triggers/manual/run?sig=hunter2")
		} else if property["default"] != nil {
			subscription[name] = property["default"]
		}
	}
	validate("connector.json#/definitions/Subscription", subscription)
	header, _ := call(trigger, "", key, subscription)
	location := header.Get("Location")
	if id, ok := strings.CutPrefix(location, base+"/webhooks/"); !ok || id == "" {
		t.Fatalf("Location is %q", location)
	}
	s.finish(1)
	const path = "/workflows/1/triggers/manual/run"
	s.WaitRequests(path, 1)
	validate("connector.json#/paths/~1webhooks/x-ms-notification-content/schema", readJSON(t, []byte(s.Receiver.Bodies(path)[0])))
	_, samples := call("ListSamples", base+"/samples?event_type=response.completed&limit=1", key, nil)
	if got := fmt.Sprint(samples); !strings.Contains(got, "ResponseId:1") {
		t.Errorf("samples: %s", got)
	}

	// The flow is removed. Power Automate may repeat that.
	for range 2 {
		call("Unsubscribe", location, key, nil)
	}
	if n := testenv.Value[int64](t, s.Store, "select count(*) from walhook.webhook"); n != 0 {
		t.Errorf("%d webhooks are left", n)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(operations)), slices.Sorted(maps.Keys(done))); diff != "" {
		t.Errorf("operations that succeeded (-all +done):\n%s", diff)
	}
	// The console's host replaces only this.
	if strings.Count(string(text), "walhook.example.com") != 1 {
		t.Error("the connector names its host more than once")
	}
	properties, err := os.ReadFile("../../../examples/power-automate/apiProperties.json")
	if err != nil {
		t.Fatal(err)
	}
	at[string](t, readJSON(t, properties), "properties", "connectionParameters", "api_key", "type")
}

var (
	makePart   = regexp.MustCompile("(?ms)^## ([^\n]*)$[^#]*?^```json\n(.*?)^```$")
	expression = regexp.MustCompile(`\{\{(.*?)\}\}`)
)

// evaluate replaces the expressions in a part of a Make app. What has no value is left out, as Make does.
func evaluate(t *testing.T, part any, values map[string]any) any {
	t.Helper()
	switch v := part.(type) {
	case string:
		if match := expression.FindStringSubmatch(v); match != nil && match[0] == v {
			var value any = values
			for name := range strings.SplitSeq(match[1], ".") {
				object, _ := value.(map[string]any)
				value = object[name]
			}
			return value
		}
		return expression.ReplaceAllStringFunc(v, func(one string) string { return fmt.Sprint(evaluate(t, one, values)) })
	case map[string]any:
		result := map[string]any{}
		for name, below := range v {
			if value := evaluate(t, below, values); value != nil {
				result[name] = value
			}
		}
		return result
	}
	return part
}

// The parts of the app for Make, as its page shows them, subscribe, receive, list samples and unsubscribe.
func TestMake(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/how-to/make.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]any{}
	for _, match := range makePart.FindAllStringSubmatch(string(page), -1) {
		parts[match[1]] = readJSON(t, []byte(match[2]))
	}
	if shown := strings.Count(string(page), "```json"); len(parts) != shown {
		t.Fatalf("found %d of %d parts: %v", len(parts), shown, slices.Sorted(maps.Keys(parts)))
	}
	s := newPlatformSite(t, "Make")
	connection := map[string]any{}
	for _, parameter := range parts["Connection parameters"].([]any) {
		name := at[string](t, parameter, "name")
		connection[name] = map[string]any{"address": s.address, "apiKey": s.key}[name]
	}
	// call sends the request of a part. A path is relative to the base, whose headers are sent as well.
	call := func(part string, values map[string]any) (int, any, map[string]any) {
		t.Helper()
		values["connection"] = connection
		request := evaluate(t, parts[part], values).(map[string]any)
		address, headers := request["url"].(string), map[string]any{}
		if strings.HasPrefix(address, "/") {
			base := evaluate(t, parts["Base"], values).(map[string]any)
			address = base["baseUrl"].(string) + address
			maps.Copy(headers, base["headers"].(map[string]any))
		}
		if own, ok := request["headers"].(map[string]any); ok {
			maps.Copy(headers, own)
		}
		if qs, ok := request["qs"].(map[string]any); ok {
			query := url.Values{}
			for name, value := range qs {
				query.Set(name, fmt.Sprint(value))
			}
			address += "?" + query.Encode()
		}
		method, ok := request["method"].(string)
		if !ok {
			method = "GET"
		}
		status, _, body := s.send(method, address, headers, request["body"])
		values["body"], values["statusCode"] = body, status
		return status, body, values
	}

	status, _, values := call("Connection communication", map[string]any{"parameters": connection})
	label := evaluate(t, at[string](t, parts["Connection communication"], "response", "metadata", "value"), values)
	if status != 200 || label != "Make" {
		t.Errorf("the connection is labelled %v: %d", label, status)
	}
	wrong := map[string]any{"address": s.address, "apiKey": "whk_x"}
	_, _, values = call("Connection communication", map[string]any{"parameters": wrong})
	message := evaluate(t, at[string](t, parts["Base"], "response", "error", "message"), values).(string)
	if !strings.HasPrefix(message, "[401] This is not an API key of walhook.") {
		t.Errorf("a wrong key: %v", message)
	}

	// Make fills in the defaults of the parameters.
	parameters := map[string]any{}
	for _, parameter := range parts["Webhook parameters"].([]any) {
		if value := parameter.(map[string]any)["default"]; value != nil {
			parameters[at[string](t, parameter, "name")] = value
		}
	}
	webhook := map[string]any{"url": s.Receiver.URL("/abc")}
	for _, want := range []int{201, 200} { // the answer to the first one may be lost
		status, body, values := call("Attach", map[string]any{"webhook": webhook, "parameters": parameters})
		if status != want {
			t.Fatalf("attach: %d %v", status, body)
		}
		maps.Copy(webhook, evaluate(t, at[map[string]any](t, parts["Attach"], "response", "data"), values).(map[string]any))
	}
	s.finish(1)
	s.WaitRequests("/abc", 1)
	body := readJSON(t, []byte(s.Receiver.Bodies("/abc")[0]))
	output := evaluate(t, at[string](t, parts["Webhook communication"], "output"), map[string]any{"body": body})
	for _, field := range parts["Interface of the trigger"].([]any) {
		if name := at[string](t, field, "name"); output.(map[string]any)[name] == nil {
			t.Errorf("the trigger has no %s: %v", name, output)
		}
	}
	parameters["limit"] = json.Number("1")
	status, list, values := call("Samples", map[string]any{"parameters": parameters})
	if list, ok := list.([]any); status != 200 || !ok || len(list) != 1 {
		t.Fatalf("samples: %d %v", status, values["body"])
	} else if diff := cmp.Diff(body, list[0]); diff != "" {
		t.Errorf("a sample is not as what arrived (-arrived +sample):\n%s", diff)
	}
	for range 2 {
		if status, body, _ := call("Detach", map[string]any{"webhook": webhook}); status != 204 {
			t.Errorf("detach: %d %v", status, body)
		}
	}
	if n := testenv.Value[int64](t, s.Store, "select count(*) from walhook.webhook"); n != 0 {
		t.Errorf("%d webhooks are left", n)
	}
}
