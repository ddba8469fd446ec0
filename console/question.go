package console

import (
	"fmt"
	"net/http"
)

// question is what confirm.html asks before something is done that cannot be undone.
type question struct {
	Sentences    []string
	Button       string // "": there is nothing to do
	Action, Back string
	Danger       bool
	Fields       []choice // hidden
}

func (s *Server) ask(w http.ResponseWriter, r *http.Request, p *person, title string, q *question) error {
	return s.render(w, r, p, http.StatusOK, "confirm.html", title, q)
}

// counted returns "1 " and the singular, or the number and the plural.
func counted(number, singular, plural string) string {
	if number == "1" {
		return "1 " + singular
	}
	return number + " " + plural
}

// askAbout asks a question about a webhook. pending is how many of its deliveries are pending.
func (s *Server) askAbout(
	w http.ResponseWriter, r *http.Request, p *person, id int64, title string, about func(host, pending string) *question,
) error {
	var host, pending string
	err := p.scan(r.Context(), []any{&host, &pending},
		"select o.host, walhook.pending_of(o.id) from walhook.webhook_overview o where o.id = $1", id)
	if err != nil {
		return err
	}
	q := about(host, pending)
	q.Action, q.Back = r.URL.Path, webhookPath(id)
	return s.ask(w, r, p, fmt.Sprintf(title, id), q)
}

func (s *Server) askDelete(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	return s.askAbout(w, r, p, id, "Delete webhook %d?", func(host, pending string) *question {
		ends := "No delivery is pending."
		if pending != "0" {
			ends = counted(pending, "pending delivery ends", "pending deliveries end") + " as failed."
		}
		return &question{Sentences: []string{
			"This webhook sends nothing more to " + host + ".", ends,
			"The log keeps its deliveries, but they cannot be redelivered.",
		}, Button: "Delete webhook", Danger: true}
	})
}

func (s *Server) askDisable(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	return s.askAbout(w, r, p, id, "Disable webhook %d?", func(host, pending string) *question {
		waits := "No delivery is pending."
		if pending != "0" {
			waits = counted(pending, "pending delivery waits", "pending deliveries wait") + " until it is enabled again."
		}
		return &question{Sentences: []string{
			"Events that happen while it is disabled are not sent to " + host + ".", waits,
		}, Button: "Disable webhook", Danger: true}
	})
}

func (s *Server) askRotate(w http.ResponseWriter, r *http.Request, p *person, id int64) error {
	return s.askAbout(w, r, p, id, "Rotate the secret of webhook %d?", func(host, _ string) *question {
		return &question{Sentences: []string{
			"A new secret is created and shown to you.",
			"For 24 hours requests to " + host + " are signed with both secrets, " +
				"so that the receiver can switch to the new one without losing any.",
		}, Button: "Rotate secret"}
	})
}
