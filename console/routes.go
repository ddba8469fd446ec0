package console

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
)

// page answers a request of a person who is signed in. Its error becomes a page of its own: a *refusal with its status
// and sentence, anything else with status 500.
type page func(w http.ResponseWriter, r *http.Request, p *person) error

// withID returns the page about the entry whose id is in the path. what names the kind of entry.
func withID(
	what string, about func(w http.ResponseWriter, r *http.Request, p *person, id int64) error,
) page {
	return func(w http.ResponseWriter, r *http.Request, p *person) error {
		id := number(r.PathValue("id"))
		if id == nil {
			return notFound("There is no such " + what + ".")
		}
		return about(w, r, p, *id)
	}
}

// route is one line of the table of routes.
type route struct {
	method, pattern string
	page            page
}

// routes are all pages for people who are signed in. Each file of pages lists its own.
func (s *Server) routes() []route {
	return slices.Concat(
		[]route{
			{"GET", "/{$}", s.overview},
			{"GET", "/overview/live", s.overviewLive},
			{"GET", "/settings", s.settings},
			{"POST", "/settings", s.saveSettings},
			{"POST", "/logout", s.logout},
		},
		s.webhookRoutes(), s.deliveryRoutes(), s.recordRoutes(),
	)
}

// maxForm bounds the size of a form, in bytes.
const maxForm = 1 << 20

// routesHandler returns everything that the console serves. The API has keys instead of sessions, and its clients are
// not browsers, so it is beside the pages and not behind their middleware.
func (s *Server) routesHandler(apiHandler http.Handler) http.Handler {
	pages := http.NewServeMux()
	for _, route := range s.routes() {
		pages.Handle(route.method+" "+route.pattern, s.signedIn(route.page))
	}
	pages.HandleFunc("GET /login", s.loginPage)
	pages.HandleFunc("POST /login", s.login)
	if s.oidc != nil {
		pages.HandleFunc("GET /login/start", s.oidcStart)
		pages.HandleFunc("GET /login/callback", s.oidcCallback)
	}
	pages.Handle("/", s.signedIn(func(http.ResponseWriter, *http.Request, *person) error {
		return notFound("There is no such page.")
	}))

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /static/", http.HandlerFunc(s.pages.static))
	mux.Handle("/api/", apiHandler)
	mux.Handle("/", s.sameOrigin(pages))
	return s.secureHeaders(mux)
}

// signedIn runs the page for whoever is signed in, and sends others to /login.
func (s *Server) signedIn(page page) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := s.identify(r)
		if err != nil {
			s.refuseEntry(w, r, err)
			return
		}
		if err = parseForm(w, r); err == nil {
			err = page(w, r, p)
		}
		if err != nil {
			s.fail(w, r, p, err)
		}
	})
}

// parseForm reads the form of a POST. A form that cannot be read completely is refused, because a missing field means
// something: a checkbox that is not checked, for example.
func parseForm(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if r.Method != http.MethodPost || r.ContentLength == 0 {
		return nil
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return &refusal{
			status: http.StatusUnsupportedMediaType, err: err,
			sentence: "The request is not a form of this console (application/x-www-form-urlencoded).",
		}
	}
	err = r.ParseForm()
	var tooLarge *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLarge) {
		return &refusal{status: http.StatusBadRequest, sentence: "The form cannot be read.", err: err}
	}
	return err
}
