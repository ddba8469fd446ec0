package post

import (
	"encoding/base64"
	"net/textproto"
	"net/url"
	"strings"
	"time"
)

// Target is the destination of a webhook's deliveries: its URL and its signing secrets, which [NewTarget] has checked,
// and its headers.
// It is immutable and may be used concurrently. It prints as scheme and host.
//
// There may be ten thousand in memory, so a Target keeps the URL as text, and each attempt parses it.
type Target struct {
	rawURL  string
	secrets []string
	signer  *Signer
	headers map[string][]string // by names in lower case
}

// NewTarget prepares a webhook's URL and secrets; a webhook without secrets is sent unsigned. Its error wraps
// [ErrBadURL] or [ErrBadSecret] and is safe to show; [Misconfigured] makes an outcome of it.
func NewTarget(rawURL string, secrets ...string) (*Target, error) {
	if err := CheckURL(rawURL); err != nil {
		return nil, err
	}
	t := &Target{rawURL: rawURL, secrets: secrets}
	if len(secrets) > 0 {
		var err error
		if t.signer, err = NewSigner(secrets...); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// RetireLastSecret stops signing with the last of several secrets at that time. Call it before the Target is shared.
func (t *Target) RetireLastSecret(at time.Time) { t.signer.retireLast(at) }

// SetHeaders sets headers that are sent beside those of the client. Call it before the Target is shared. The store has
// checked them: none is a header of the client's but Authorization, which then replaces that of the URL.
//
// Names are sent in lower case. In other spellings net/http gives some a meaning of its own: with Idempotency-Key, it
// may repeat a request that the receiver has seen.
func (t *Target) SetHeaders(headers map[string]string) {
	t.headers = make(map[string][]string, len(headers))
	for name, value := range headers {
		t.headers[strings.ToLower(name)] = []string{textproto.TrimString(value)}
	}
}

// Hostname returns the host of the URL, without its port.
func (t *Target) Hostname() string {
	u, err := parseURL(t.rawURL) // NewTarget has checked it
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// address returns the URL as it is sent, and the value of the Authorization header, or "". It removes user info and
// fragment, so that no error of net/http can quote them.
func (t *Target) address() (u *url.URL, auth string, err error) {
	u, err = url.Parse(t.rawURL) // NewTarget has checked it
	if err != nil {
		return nil, "", ErrBadURL
	}
	if u.User != nil {
		auth = basicAuth(u.User)
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	u.RawQuery = encodeQuery(u.RawQuery)
	return u, auth, nil
}

// redactor returns a redactor for the secret parts of the URL, for the signing secrets and for the values of headers.
func (t *Target) redactor() *redactor {
	u, err := parseURL(t.rawURL)
	if err != nil {
		u = new(url.URL)
	}
	r := newRedactor(u, t.secrets...)
	for _, values := range t.headers {
		r.addHeader(values[0])
	}
	return r
}

// String returns scheme and host.
func (t *Target) String() string { return DisplayURL(t.rawURL) }

// GoString returns scheme and host.
func (t *Target) GoString() string { return DisplayURL(t.rawURL) }

// basicAuth returns what http.Client sends for user info (RFC 7617). http.Transport alone does not.
func basicAuth(user *url.Userinfo) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(userPass(user)))
}

func userPass(user *url.Userinfo) string {
	password, _ := user.Password()
	return user.Username() + ":" + password
}
