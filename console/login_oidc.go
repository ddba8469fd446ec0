package console

import (
	"net/http"
)

// oidcLogin signs in by OpenID Connect.
type oidcLogin struct {
	cfg         OIDC
	redirectURL string
}

func (s *Server) oidcStart(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, nil, notFound("Not yet."))
}

func (s *Server) oidcCallback(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, nil, notFound("Not yet."))
}
