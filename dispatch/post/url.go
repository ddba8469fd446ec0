package post

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxURLChars is the bound of walhook.webhook.url.
const maxURLChars = 2048

// unreadableURL is shown instead of a URL that cannot be shown safely.
const unreadableURL = "(unreadable URL)"

// ErrBadURL reports that a webhook's URL cannot be used. No error that wraps it holds any of the URL.
var ErrBadURL = errors.New("URL is not usable")

// CheckURL reports whether a webhook can be sent to rawURL: an absolute http or https URL with a host, of at most 2048
// characters. Its error wraps [ErrBadURL]. It is the second check after the constraint of walhook.webhook, whose
// regular expression cannot be complete.
func CheckURL(rawURL string) error {
	_, err := parseURL(rawURL)
	return err
}

// DisplayURL returns scheme and host, with the port if there is one: as much of a URL as logs, errors, metrics and
// people who are not administrators may see. For anything else it returns a fixed text, so that it never returns a
// path, a query or user info.
func DisplayURL(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return unreadableURL
	}
	return displayURL(u)
}

func displayURL(u *url.URL) string {
	if u.Scheme != "http" && u.Scheme != "https" || u.Opaque != "" || !isHost(u) {
		return unreadableURL
	}
	return u.Scheme + "://" + u.Host
}

// parseURL drops the reason that net/url gives, because it quotes the URL.
func parseURL(rawURL string) (*url.URL, error) {
	if n := utf8.RuneCountInString(rawURL); n > maxURLChars {
		return nil, fmt.Errorf("%w: it has %d characters, the limit is %d", ErrBadURL, n, maxURLChars)
	}
	if strings.ContainsFunc(rawURL, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return nil, fmt.Errorf("%w: it holds white space or control characters", ErrBadURL)
	}
	u, err := url.Parse(rawURL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: its syntax is wrong", ErrBadURL)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%w: it does not start with http:// or https://", ErrBadURL)
	case u.Opaque != "" || u.Hostname() == "":
		return nil, fmt.Errorf("%w: it names no host", ErrBadURL)
	case !isHost(u):
		return nil, fmt.Errorf("%w: its host is neither a name nor an address", ErrBadURL)
	case !isPort(u.Port()):
		return nil, fmt.Errorf("%w: its port is not between 1 and 65535", ErrBadURL)
	}
	return u, nil
}

// isHost is stricter than RFC 3986, which allows nearly anything in a host. A host that reads like the rest of a URL
// must not be shown.
func isHost(u *url.URL) bool {
	name := u.Hostname()
	if name == "" {
		return false
	}
	v6 := strings.HasPrefix(u.Host, "[")
	for _, r := range name {
		switch {
		case r == '.' || r == '-' || r == '_':
		case r == ':':
			if !v6 {
				return false
			}
		case unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.Is(unicode.M, r):
		default:
			return false
		}
	}
	return utf8.ValidString(name)
}

// encodeQuery percent-encodes characters that a query may not contain (RFC 3986, section 3.4), as net/url does in a
// path. It keeps brackets, which many servers expect unescaped.
func encodeQuery(query string) string {
	const allowed = "-._~!$&'()*+,;=:@/?[]"
	var b strings.Builder
	for i := range len(query) {
		c := query[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(allowed, c) >= 0:
			b.WriteByte(c)
		case c == '%' && i+2 < len(query) && isHex(query[i+1]) && isHex(query[i+2]):
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func isHex(c byte) bool { return strings.IndexByte("0123456789abcdefABCDEF", c) >= 0 }

func isPort(port string) bool {
	if port == "" {
		return true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}
