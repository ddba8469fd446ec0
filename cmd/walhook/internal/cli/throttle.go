package cli

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// ThrottleLines is how many lines of a kind are written in throttleTime. What is beyond that is counted.
	ThrottleLines = 50
	throttleTime  = time.Minute
)

// throttle is a slog.Handler that keeps a storm of like lines, such as a hundred thousand deliveries that fail, from flooding the log.
// Of each kind, which is a level and a message, it passes on so many in a time, and afterwards one line with the number of those left
// out. Errors, which tell of the stream, always pass, and so does what is below info, which is only written where somebody asks for all.
type throttle struct {
	slog.Handler
	storms *storms
}

// storms are the kinds of lines that a logger and those derived from it have written.
type storms struct {
	handler slog.Handler // for the numbers of lines left out
	mu      sync.Mutex
	kinds   map[lineKind]*storm
}

type lineKind struct {
	level   slog.Level
	message string
}

// storm is what was written of one kind since a time, and how much was left out.
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

// passes reports whether a line of the kind is to be written. The first that is not makes sure that their number will be told.
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
		time.AfterFunc(throttleTime-now.Sub(k.since), func() { s.tell(kind) })
	}
	return false
}

// tell writes how many lines of a kind were left out, and lets it begin anew.
func (s *storms) tell(kind lineKind) {
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
	slog.New(s.handler).Log(context.Background(), kind.level, "left out lines like others", "of", kind.message, "lines", left, "within", now.Sub(since))
}

// flushLog tells at the program's end what has been left out until then.
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
		t.storms.tell(kind)
	}
}
