package cli

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// ThrottleLines is how many lines of a kind are written per throttleTime. The rest is counted.
	ThrottleLines = 50
	throttleTime  = time.Minute
)

// throttle is a slog.Handler that keeps similar lines, such as those of a hundred thousand failed deliveries, from flooding
// the log. Of each kind (level and message) it passes ThrottleLines per throttleTime, and then one line with the number that
// it suppressed. Errors always pass, because they concern the stream; debug messages pass, because somebody asked for them.
type throttle struct {
	slog.Handler
	storms *storms
}

// storms counts the lines of each kind that a logger and those derived from it have written.
type storms struct {
	handler slog.Handler // for the lines that report suppressed ones
	mu      sync.Mutex
	kinds   map[lineKind]*storm
}

type lineKind struct {
	level   slog.Level
	message string
}

// storm counts the lines of one kind since a time: written and suppressed.
type storm struct {
	since         time.Time
	written, left int
}

func newThrottle(handler slog.Handler) *throttle {
	return &throttle{handler, &storms{handler: handler, kinds: map[lineKind]*storm{}}}
}

// Handle passes the line on or counts it.
func (t *throttle) Handle(ctx context.Context, line slog.Record) error {
	limited := line.Level >= slog.LevelInfo && line.Level < slog.LevelError
	if limited && !t.storms.passes(lineKind{line.Level, line.Message}) {
		return nil
	}
	return t.Handler.Handle(ctx, line)
}

// WithAttrs returns a throttle that counts with this one.
func (t *throttle) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &throttle{t.Handler.WithAttrs(attrs), t.storms}
}

// WithGroup returns a throttle that counts with this one.
func (t *throttle) WithGroup(name string) slog.Handler {
	return &throttle{t.Handler.WithGroup(name), t.storms}
}

// passes reports whether to write a line of the kind. The first that it suppresses schedules the report of their number.
func (s *storms) passes(kind lineKind) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kinds[kind]
	if k == nil {
		k = &storm{}
		s.kinds[kind] = k
	}
	now := time.Now()
	if k.left == 0 && now.Sub(k.since) >= throttleTime {
		k.since, k.written = now, 0
	}
	if k.written < ThrottleLines {
		k.written++
		return true
	}
	k.left++
	if k.left == 1 {
		time.AfterFunc(throttleTime-now.Sub(k.since), func() { s.report(kind) })
	}
	return false
}

// report writes how many lines of a kind were suppressed, and resets its count.
func (s *storms) report(kind lineKind) {
	s.mu.Lock()
	k := s.kinds[kind]
	left, since := k.left, k.since
	now := time.Now()
	if left > 0 {
		*k = storm{since: now}
	}
	s.mu.Unlock()
	if left == 0 {
		return
	}
	slog.New(s.handler).Log(context.Background(), kind.level, "suppressed similar lines", "of", kind.message, "lines", left, "within", now.Sub(since))
}

// flushLog reports the lines suppressed so far when the program ends.
func flushLog(log *slog.Logger) {
	t, ok := log.Handler().(*throttle)
	if !ok {
		return
	}
	t.storms.mu.Lock()
	kinds := make([]lineKind, 0, len(t.storms.kinds))
	for kind := range t.storms.kinds {
		kinds = append(kinds, kind)
	}
	t.storms.mu.Unlock()
	for _, kind := range kinds {
		t.storms.report(kind)
	}
}
