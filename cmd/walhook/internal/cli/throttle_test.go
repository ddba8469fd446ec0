package cli

import (
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"walhook/cmd/walhook/internal/harness"
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
		out := &harness.LogBuffer{}
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
		for range ThrottleLines {
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
		if got := written["WARN attempt"]; got < ThrottleLines || got > ThrottleLines*(minutes+1) {
			t.Errorf("in %d minutes %d lines were written", minutes, got)
		}
		if got := written["WARN suppressed similar lines"]; got == 0 || got > minutes+1 {
			t.Errorf("it was told %d times that lines were left out", got)
		}
		for kind, want := range map[string]int{"WARN another kind": ThrottleLines, "INFO attempt": ThrottleLines, "ERROR the stream may have missed changes": 500, "DEBUG attempt": 500} {
			if written[kind] != want || left[kind] != 0 {
				t.Errorf("%s: %d lines were written and %d left out", kind, written[kind], left[kind])
			}
		}
		// Left alone, a kind has its whole share again, and what was left out is told without another line.
		before := len(out.String())
		time.Sleep(2 * throttleTime)
		for range ThrottleLines + 7 {
			log.Warn("attempt")
		}
		time.Sleep(2 * throttleTime)
		written, left = tally(t, out.String()[before:])
		if written["WARN attempt"] != ThrottleLines || left["WARN attempt"] != 7 {
			t.Errorf("after a rest %d lines were written and %d left out", written["WARN attempt"], left["WARN attempt"])
		}
	})
}
