package dispatch

import (
	"encoding/base64"
	"net/http"
	"net/url"
)

// Target is where a webhook's deliveries go: its URL and its signing secrets, parsed once. It never changes, and may be
// used concurrently. It prints as scheme and host.
type Target struct {
	display  string
	template *http.Request // copied by each attempt
	auth     []string      // value of the Authorization header; nil: none
	signer   *Signer
	secrets  *redactor
}

// NewTarget prepares a webhook's URL and secrets; a webhook without secrets is sent unsigned. Its error wraps
// [ErrBadURL] or [ErrBadSecret] and is safe to show; [Misconfigured] makes an outcome of it.
func NewTarget(rawURL string, secrets ...string) (*Target, error) {
	u, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	signer, err := NewSigner(secrets...)
	if err != nil {
		return nil, err
	}
	t := &Target{display: displayURL(u), signer: signer, secrets: newRedactor(u, secrets...)}
	if u.User != nil {
		t.auth = []string{basicAuth(u.User)}
	}
	// Neither is for the wire; without them here, nothing that net/http says of the request can hold them.
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	t.template = &http.Request{
		Method: http.MethodPost, URL: u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	return t, nil
}

// String returns scheme and host.
func (t *Target) String() string { return t.display }

// GoString returns scheme and host.
func (t *Target) GoString() string { return t.display }

// basicAuth is what http.Client does with user info (RFC 7617), which the transport alone does not.
func basicAuth(user *url.Userinfo) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(userPass(user)))
}

func userPass(user *url.Userinfo) string {
	password, _ := user.Password()
	return user.Username() + ":" + password
}
