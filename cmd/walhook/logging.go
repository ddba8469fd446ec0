package main

import (
	"io"
	"log"
	"log/slog"
	"time"
)

// newLogger returns the program's logger. Times are UTC with milliseconds, durations texts, and storms are held back by a throttle.
func newLogger(w io.Writer, level slog.Level, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && len(groups) == 0 {
			a.Value = slog.StringValue(a.Value.Time().UTC().Format("2006-01-02T15:04:05.000Z07:00"))
		}
		if a.Value.Kind() == slog.KindDuration {
			a.Value = slog.StringValue(a.Value.Duration().Round(time.Millisecond).String())
		}
		return a
	}}
	// net/http writes to the standard logger what receivers send unasked; that is theirs, and not for our log.
	log.SetOutput(io.Discard)
	var handler slog.Handler = slog.NewTextHandler(w, options)
	if format == "json" {
		handler = slog.NewJSONHandler(w, options)
	}
	return slog.New(newThrottle(handler))
}
