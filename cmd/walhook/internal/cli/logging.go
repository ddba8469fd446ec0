package cli

import (
	"io"
	"log"
	"log/slog"
	"time"
)

// newLogger returns the program's logger. A throttle suppresses floods of similar lines.
func newLogger(w io.Writer, level slog.Level, format string) *slog.Logger {
	// net/http writes to the standard logger what receivers send unasked; that is theirs, and not for our log.
	log.SetOutput(io.Discard)
	return slog.New(newThrottle(newLogHandler(w, level, format)))
}

// newLogHandler returns what writes the lines of the log. Times are UTC with milliseconds, durations texts.
func newLogHandler(w io.Writer, level slog.Level, format string) slog.Handler {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && len(groups) == 0 {
			a.Value = slog.StringValue(a.Value.Time().UTC().Format("2006-01-02T15:04:05.000Z07:00"))
		}
		if a.Value.Kind() == slog.KindDuration {
			a.Value = slog.StringValue(a.Value.Duration().Round(time.Millisecond).String())
		}
		return a
	}}
	if format == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}
