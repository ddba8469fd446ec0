package console

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	liveEvery = 3 * time.Second  // how often a live part is looked up
	liveWrite = 10 * time.Second // how long a browser may take to read it
	liveProxy = time.Minute      // how long a proxy's headers are believed; the browser then connects again
)

// isLive reports whether an EventSource makes the request, by itself.
func isLive(r *http.Request) bool { return r.Header.Get("Accept") == "text/event-stream" }

// live answers an EventSource: it renders the block of the template with what data returns, immediately and then every few
// seconds, and sends it if it has changed. It ends with the session, with the server, or with an error; the browser then
// connects again.
//
// The page has <div data-live="/path">…</div>, whose content the script replaces with what comes.
func (s *Server) live(
	w http.ResponseWriter, r *http.Request, p *person, name, block string, data func(context.Context, *person) (any, error),
) error {
	select {
	case s.liveParts <- struct{}{}:
		defer func() { <-s.liveParts }()
	default: // the page is complete without it
		w.WriteHeader(http.StatusServiceUnavailable)
		return nil
	}
	writer := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	var over <-chan time.Time
	if s.cfg.Login == LoginProxy {
		over = time.After(liveProxy)
	}
	last := ""
	for first := true; ; first = false {
		if !first {
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return nil
			case <-s.stopping:
				return nil
			case <-over:
				return nil
			}
			fresh, err := s.identify(r)
			if err != nil {
				return nil
			}
			p = fresh
		}
		text := ""
		found, err := data(r.Context(), p)
		if err == nil {
			text, err = s.fragment(r, p, name, block, found)
		}
		switch {
		case err != nil && first:
			return err
		case err != nil: // a page that says so would be one of the messages
			if r.Context().Err() == nil {
				s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
			}
			return nil
		}
		message := ": still here\n\n"
		if text != last {
			message = "data: " + strings.ReplaceAll(strings.ReplaceAll(text, "\r", ""), "\n", "\ndata: ") + "\n\n"
			last = text
		}
		_ = writer.SetWriteDeadline(time.Now().Add(liveWrite))
		if _, err := fmt.Fprint(w, message); err != nil {
			return nil
		}
		if err := writer.Flush(); err != nil {
			return nil
		}
	}
}
