package deliveries

import (
	"fmt"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// If many deliveries fail permanently at the same time, the daemon's log has few lines, and counts all of them.
func TestStormOfFailuresInTheLog(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("MAX_ATTEMPTS", "1", "LOG_LEVEL", "info")
	s.Attach()
	const hooks, responses = 300, 3
	// Each URL is a separate endpoint, because one that fails repeatedly would be throttled.
	testenv.Exec(t, s.Store, "insert into walhook.webhook (assessment_id, url, event_type) select '1', $1 || g, 'response.created' from generate_series(1, $2) g", s.Receiver.URL("/dead?"), hooks)
	s.Receiver.Respond("/dead", testenv.Always(testenv.Reply{Status: 500}))
	d := s.Start().Ready()
	s.Exec("insert into respondent (id, assessment_id) select g, 1 from generate_series(1, $1) g", responses)
	s.WaitLog("select count(*) from walhook.delivery_log where status = 'failed'", fmt.Sprint(hooks*responses))
	if status := d.Stop(); status != 0 {
		t.Errorf("the daemon exited with status %d", status)
	}
	lines, left, told := 0, 0, 0
	for line := range strings.Lines(d.Log.String()) {
		if strings.Contains(line, "msg=attempt ") {
			lines++
		}
		if _, rest, found := strings.Cut(line, `level=WARN msg="suppressed similar lines" of=attempt lines=`); found {
			var n int
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Errorf("%v in %s", err, line)
			}
			left += n
			told++
		}
	}
	if lines+left != hooks*responses || told == 0 || lines > cli.ThrottleLines*(told+1) {
		t.Errorf("of %d failures the log has %d lines, and %d lines that count others, %d in total", hooks*responses, lines, told, left)
	}
}
