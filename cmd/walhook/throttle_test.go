package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"walhook/testenv"
)

// logLine is what these tests look at of a line.
type logLine struct {
	Level string `json:"level"`
	Msg   string `json:"msg"`
	Of    string `json:"of"`
	Lines int    `json:"lines"`
}

// tally counts the lines of a log by level and message, and adds up those left out by level and message.
func tally(t *testing.T, text string) (written, left map[string]int) {
	t.Helper()
	written, left = map[string]int{}, map[string]int{}
	for line := range strings.Lines(text) {
		var l logLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		written[l.Level+" "+l.Msg]++
		if l.Of != "" {
			left[l.Level+" "+l.Of] += l.Lines
		}
	}
	return written, left
}

// Of a storm a bounded number of lines is written, each kind has a share of its own, and nothing is left out uncounted.
func TestThrottle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &logBuffer{}
		log := newLogger(out, slog.LevelDebug, "json")
		const storm, minutes = 100_000, 5
		var writers sync.WaitGroup
		for range 4 {
			writers.Go(func() {
				for i := range storm / 4 {
					log.Warn("attempt", "n", i)
					if i%(storm/4/minutes) == 0 {
						time.Sleep(throttleTime)
					}
				}
			})
		}
		for range throttleLines {
			log.With("a", 1).WithGroup("g").Warn("another kind")
			log.Info("attempt")
		}
		for range 500 {
			log.Error("the stream may have missed changes")
			log.Debug("attempt")
		}
		writers.Wait()
		flushLog(log)
		flushLog(log) // tells nothing twice
		written, left := tally(t, out.String())
		if got := written["WARN attempt"] + left["WARN attempt"]; got != storm {
			t.Errorf("of %d lines %d were written and %d counted", storm, written["WARN attempt"], left["WARN attempt"])
		}
		if got := written["WARN attempt"]; got < throttleLines || got > throttleLines*(minutes+1) {
			t.Errorf("in %d minutes %d lines were written", minutes, got)
		}
		if got := written["WARN left out lines like others"]; got == 0 || got > minutes+1 {
			t.Errorf("it was told %d times that lines were left out", got)
		}
		for kind, want := range map[string]int{"WARN another kind": throttleLines, "INFO attempt": throttleLines, "ERROR the stream may have missed changes": 500, "DEBUG attempt": 500} {
			if written[kind] != want || left[kind] != 0 {
				t.Errorf("%s: %d lines were written and %d left out", kind, written[kind], left[kind])
			}
		}
		// Left alone, a kind has its whole share again, and what was left out is told without another line.
		before := len(out.String())
		time.Sleep(2 * throttleTime)
		for range throttleLines + 7 {
			log.Warn("attempt")
		}
		time.Sleep(2 * throttleTime)
		written, left = tally(t, out.String()[before:])
		if written["WARN attempt"] != throttleLines || left["WARN attempt"] != 7 {
			t.Errorf("after a rest %d lines were written and %d left out", written["WARN attempt"], left["WARN attempt"])
		}
	})
}

// Deliveries that fail for good all at once are few lines in the daemon's log, and all of them are counted there.
func TestStormOfFailuresInTheLog(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).with("MAX_ATTEMPTS", "1", "LOG_LEVEL", "info")
	s.attach()
	const hooks, responses = 300, 3
	// Each URL is an endpoint of its own: one that fails again and again would be slowed down.
	testenv.Exec(t, s.store, "insert into walhook.webhook (assessment_id, url, event_type) select '1', $1 || g, 'response.created' from generate_series(1, $2) g", s.receiver.URL("/dead?"), hooks)
	s.receiver.Respond("/dead", testenv.Always(testenv.Reply{Status: 500}))
	d := s.start().ready()
	s.exec("insert into respondent (id, assessment_id) select g, 1 from generate_series(1, $1) g", responses)
	s.waitLog("select count(*) from walhook.delivery_log where status = 'failed'", fmt.Sprint(hooks*responses))
	if status := d.stop(); status != 0 {
		t.Errorf("the daemon ended with status %d", status)
	}
	lines, left, told := 0, 0, 0
	for line := range strings.Lines(d.log.String()) {
		if strings.Contains(line, "msg=attempt ") {
			lines++
		}
		if _, rest, found := strings.Cut(line, `level=WARN msg="left out lines like others" of=attempt lines=`); found {
			var n int
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Errorf("%v in %s", err, line)
			}
			left += n
			told++
		}
	}
	if lines+left != hooks*responses || told == 0 || lines > throttleLines*(told+1) {
		t.Errorf("of %d failures the log has %d, and %d times the number of others, %d in all", hooks*responses, lines, told, left)
	}
}
