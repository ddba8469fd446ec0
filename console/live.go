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
)

// live answers an EventSource: it renders the block of the template with what data returns, at once and then every few seconds, and sends
// what has changed. It ends with the session, with the server, or with an error; the browser then connects again.
//
// The page has <div data-live="/path">…</div>, whose content the script replaces with what comes.
func (s *Server) live(
	w http.ResponseWriter, r *http.Request, p *person, name, block string, data func(context.Context) (any, error),
) error {
	writer := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	last := ""
	for first := true; ; first = false {
		if !first {
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return nil
			case <-s.stopping:
				return nil
			}
			fresh, err := s.identify(r)
			if err != nil {
				return nil
			}
			p = fresh
		}
		found, err := data(r.Context())
		if err != nil {
			return err
		}
		text, err := s.fragment(r, p, name, block, found)
		if err != nil {
			return err
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
