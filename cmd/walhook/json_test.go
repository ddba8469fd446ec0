package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walhook/testenv"
)

var jsonRow = regexp.MustCompile("(?m)^\\| `([a-z_.\\[\\]]+)` \\| (array|boolean|integer|number|string) \\|")

// documentedFields returns the fields of JSON that a text lists, with their types.
func documentedFields(text string) map[string]string {
	fields := map[string]string{}
	for _, match := range jsonRow.FindAllStringSubmatch(text, -1) {
		fields[match[1]] = match[2]
	}
	return fields
}

// fieldsOf adds the fields of a value to those that were seen.
func fieldsOf(seen map[string]string, path string, value any) {
	switch v := value.(type) {
	case map[string]any:
		for name, below := range v {
			fieldsOf(seen, strings.TrimPrefix(path+"."+name, "."), below)
		}
		return
	case []any:
		seen[path] = "array"
		for _, below := range v {
			fieldsOf(seen, path+"[]", below)
		}
		return
	case bool:
		seen[path] = "boolean"
	case string:
		seen[path] = "string"
	case json.Number:
		// A number with a fraction once is one always.
		if strings.ContainsAny(v.String(), ".e") {
			seen[path] = "number"
		} else if seen[path] == "" {
			seen[path] = "integer"
		}
	}
}

// fields returns the fields of what a command printed.
func fields(t *testing.T, out string) map[string]string {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(out))
	decoder.UseNumber()
	seen := map[string]string{}
	for decoder.More() {
		var value any
		if err := decoder.Decode(&value); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		fieldsOf(seen, "", value)
	}
	return seen
}

// What status and doctor print for machines is what their pages list, both ways.
func TestJSONIsDocumented(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema)
	d := s.run()
	s.hook("/broken", "created")
	s.receiver.Respond("/broken", testenv.Always(testenv.Reply{Status: 500}))
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	testenv.Exec(t, s.store, "insert into walhook.incident_log (kind, detail) values ('retention', 'x')")
	testenv.Eventually(t, patience, "an endpoint in trouble", func() (bool, string) {
		n := testenv.Value[int64](t, s.store, "select count(*) from walhook.endpoint where failures > 0")
		return n == 1, ""
	})
	out, errOut, status := s.walhook("status", "--json")
	if status != exitFailed || errOut != "" {
		t.Errorf("with an open incident status ends with %d: %s", status, errOut)
	}
	if diff := cmp.Diff(documentedFields(textsOf(t, "../../docs/reference/status.md")[""]), fields(t, out)); diff != "" {
		t.Errorf("docs/reference/status.md (-) and status --json (+):\n%s\n%s", diff, out)
	}
	for _, text := range []string{`"ok":false`, `"slot_status":"reserved"`, `"slot_active":true`, `"daemons":1`, `"switched_on":true`, `"pending":1,"pending_estimated":false`, `"endpoints_in_trouble_count":1`, `"problems":["retention: x (since `, `"webhooks":[1]`} {
		if !strings.Contains(out, text) {
			t.Errorf("status --json lacks %s: %s", text, out)
		}
	}
	out, _, _ = s.walhook("status")
	for _, text := range []string{"(webhook 1): ", "fail  incident    retention: x (since "} {
		if !strings.Contains(out, text) {
			t.Errorf("status lacks %s:\n%s", text, out)
		}
	}
	out, _, _ = s.walhook("doctor", "--json")
	if diff := cmp.Diff(documentedFields(textsOf(t, "../../docs/reference/doctor.md")[""]), fields(t, out)); diff != "" {
		t.Errorf("docs/reference/doctor.md (-) and doctor --json (+):\n%s\n%s", diff, out)
	}
	d.stop()
}

// A long queue is estimated, and both commands say so.
func TestLongQueueIsEstimated(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).attach()
	id := s.hook("/hook", "created", "enabled", "false")
	testenv.Exec(t, s.store, "insert into walhook.queue (webhook_id, committed_at, event_type, response_id) select $1, now() - interval '2 hours', 1, g::text from generate_series(1, 15000) g", id)
	testenv.Psql(t, s.store, "analyze walhook.queue")
	out, _, _ := s.walhook("status")
	if !strings.Contains(out, "queue       about 15000 pending\n") {
		t.Errorf("status says\n%s", out)
	}
	out, _, _ = s.walhook("status", "--json")
	if !strings.Contains(out, `"pending":15000,"pending_estimated":true,"oldest_seconds":0,`) {
		t.Errorf("status --json says\n%s", out)
	}
	out, _, _ = s.walhook("doctor")
	if !strings.Contains(out, "about 15000 deliveries are pending, the oldest of those for webhooks that are enabled for 0s") {
		t.Errorf("doctor says\n%s", out)
	}
}
