package console

import (
	"net/http"
	"net/url"
)

// contentSecurityPolicy lets a page load only what the console itself serves. No site may put it into a frame.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func (s *Server) secureHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurityPolicy)
		h.Set("X-Frame-Options", "DENY")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
		h.Set("Cache-Control", "no-store")
		if s.https() {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// sameOrigin refuses requests that another site makes the browser send, except those that only read.
func (s *Server) sameOrigin(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	// Behind a proxy that changes the Host header, the browser's Origin is that of the public address.
	_ = protection.AddTrustedOrigin(s.cfg.URL.Scheme + "://" + s.cfg.URL.Host)
	deny := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, nil, forbidden("Another site sent this request. Nothing was changed."))
	})
	protection.SetDenyHandler(deny)
	protected := protection.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The protection assumes that a request without these headers does not come from a browser. Old browsers and some
		// proxies leave them out.
		bare := r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == ""
		if r.Method == http.MethodPost && bare && !s.refersHere(r) {
			deny.ServeHTTP(w, r)
			return
		}
		protected.ServeHTTP(w, r)
	})
}

// refersHere reports whether the request has no referrer, or one of the console's pages.
func (s *Server) refersHere(r *http.Request) bool {
	if r.Referer() == "" {
		return true
	}
	from, err := url.Parse(r.Referer())
	return err == nil && (from.Host == r.Host || from.Host == s.cfg.URL.Host)
}
