package console

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"unicode/utf8"
)

// The cookies, by the end of their names.
const (
	sessionCookie = ""        // the token of the session
	saidCookie    = "-said"   // a sentence for the next page
	signInCookie  = "-signin" // a sign-in at the provider that has begun
)

// longestCookie bounds a value, in bytes: browsers drop cookies beyond 4096.
const longestCookie = 3500

func (s *Server) cookieName(end string) string {
	if s.https() {
		return "__Host-walhook" + end // a name with this prefix cannot be set by other hosts of the domain
	}
	return "walhook" + end
}

// setCookie sets a cookie for maxAge seconds: 0 as long as the browser runs, and less deletes it.
func (s *Server) setCookie(w http.ResponseWriter, end, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: s.cookieName(end), Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, Secure: s.https(), SameSite: http.SameSiteLaxMode,
	})
}

func (s *Server) readCookie(r *http.Request, end string) string {
	cookie, err := r.Cookie(s.cookieName(end))
	if err != nil {
		return ""
	}
	return cookie.Value
}

// saidSeconds is how long a sentence for the next page is kept.
const saidSeconds = 60

// say makes the next page show a sentence. It is kept in a cookie, since another console may serve that page.
func (s *Server) say(w http.ResponseWriter, sentence string) {
	for len(sentence) > longestCookie/2 {
		_, size := utf8.DecodeLastRuneInString(sentence)
		sentence = sentence[:len(sentence)-size]
	}
	s.setCookie(w, saidCookie, base64.RawURLEncoding.EncodeToString([]byte(sentence)), saidSeconds)
}

// said returns the sentence, and deletes it.
func (s *Server) said(w http.ResponseWriter, r *http.Request) string {
	value := s.readCookie(r, saidCookie)
	if value == "" {
		return ""
	}
	s.setCookie(w, saidCookie, "", -1)
	sentence, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil || !utf8.Valid(sentence) {
		return ""
	}
	return string(sentence)
}

// sessionID is the hash of a session's token, from which the token cannot be derived.
type sessionID [sha256.Size]byte

func newToken() string { return rand.Text() }

func idOf(token string) sessionID { return sha256.Sum256([]byte(token)) }

// sealer encrypts and authenticates with a key derived from a secret and a purpose, so text sealed for one purpose cannot be opened for
// another.
type sealer struct{ aead cipher.AEAD }

func newSealer(secret, purpose string) (sealer, error) {
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "walhook console: "+purpose, 32)
	if err != nil {
		return sealer{}, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return sealer{aead}, err
}

func (s sealer) seal(text []byte) []byte { return s.aead.Seal(nil, nil, text, nil) }

func (s sealer) open(sealed []byte) ([]byte, error) { return s.aead.Open(nil, nil, sealed, nil) }
