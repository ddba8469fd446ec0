package documents

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

var jsonRow = regexp.MustCompile("(?m)^\\| `([a-z_.\\[\\]]+)` \\| (array|boolean|integer|number|string) \\|")

// documentedFields returns the JSON fields that a text lists, with their types.
func documentedFields(text string) map[string]string {
	fields := map[string]string{}
	for _, match := range jsonRow.FindAllStringSubmatch(text, -1) {
		fields[match[1]] = match[2]
	}
	return fields
}

// The JSON of status and doctor has exactly the fields that their pages list.
func TestJSONIsDocumented(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	s.Hook("/broken", "created")
	s.Receiver.Respond("/broken", testenv.Always(testenv.Reply{Status: 500}))
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	testenv.Exec(t, s.Store, "insert into walhook.incident_log (kind, detail) values ('retention', 'x')")
	testenv.Eventually(t, harness.Patience, "an endpoint in trouble", func() (bool, string) {
		n := testenv.Value[int64](t, s.Store, "select count(*) from walhook.endpoint where failures > 0")
		return n == 1, ""
	})
	out, errOut, status := s.Walhook("status", "--json")
	if status != cli.ExitFailed || errOut != "" {
		t.Errorf("with an open incident status exits with %d: %s", status, errOut)
	}
	if diff := cmp.Diff(documentedFields(harness.TextsOf(t, "../../../docs/reference/status.md")[""]), harness.Fields(t, out)); diff != "" {
		t.Errorf("docs/reference/status.md (-) and status --json (+):\n%s\n%s", diff, out)
	}
	for _, text := range []string{`"ok":false`, `"unreachable":[]`, `"slot_status":"reserved"`, `"slot_active":true`, `"daemons":1`, `"switched_on":true`, `"pending":1,"pending_estimated":false`, `"endpoints_in_trouble_count":1`, `"problems":["retention: x (since `, `"webhooks":[1]`} {
		if !strings.Contains(out, text) {
			t.Errorf("status --json lacks %s: %s", text, out)
		}
	}
	out, _, _ = s.Walhook("status")
	for _, text := range []string{"(webhook 1): ", "fail  incident    retention: x (since "} {
		if !strings.Contains(out, text) {
			t.Errorf("status lacks %s:\n%s", text, out)
		}
	}
	out, _, _ = s.Walhook("doctor", "--json")
	if diff := cmp.Diff(documentedFields(harness.TextsOf(t, "../../../docs/reference/doctor.md")[""]), harness.Fields(t, out)); diff != "" {
		t.Errorf("docs/reference/doctor.md (-) and doctor --json (+):\n%s\n%s", diff, out)
	}
	d.Stop()
	s.Exec("insert into respondent (id, assessment_id, started_at, finished_at) select g, 1, '2026-01-01', '2025-01-01' from generate_series(100, 120) g")
	out, errOut, _ = s.With("FINISH_STAMP", "assessment_id", "ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_NAME", "title", "ASSESSMENT_ORGANIZATION", "title").
		Walhook("preview", "--json")
	if diff := cmp.Diff(documentedFields(harness.TextsOf(t, "../../../docs/reference/preview.md")[""]), harness.Fields(t, out)); diff != "" {
		t.Errorf("docs/reference/preview.md (-) and preview --json (+):\n%s\n%s%s", diff, out, errOut)
	}
}

// Both commands estimate a long queue, and say so.
func TestLongQueueIsEstimated(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).Attach()
	id := s.Hook("/hook", "created", "enabled", "false")
	// In one transaction: otherwise another session's statistics of the insert could be added after the analysis.
	testenv.Exec(t, s.Store, fmt.Sprintf(`
		insert into walhook.queue (webhook_id, committed_at, event_type, response_id)
		select %d, now() - interval '2 hours', 1, g::text from generate_series(1, 15000) g;
		analyze walhook.queue`, id))
	out, _, _ := s.Walhook("status")
	if !strings.Contains(out, "queue       about 15000 pending\n") {
		t.Errorf("status says\n%s", out)
	}
	out, _, _ = s.Walhook("status", "--json")
	if !strings.Contains(out, `"pending":15000,"pending_estimated":true,"oldest_seconds":0,`) {
		t.Errorf("status --json says\n%s", out)
	}
	out, _, _ = s.Walhook("doctor")
	if !strings.Contains(out, "about 15000 deliveries are pending, the oldest of those for webhooks that are enabled for 0s") {
		t.Errorf("doctor says\n%s", out)
	}
}
