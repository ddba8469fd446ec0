package post

import (
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

func TestCheckURL(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"https://example.com", "http://example.com/", "HTTPS://Example.COM:8443/a/b?c=d#e", "http://user:pw@host_1/x",
		"http://127.0.0.1:80", "https://[::1]:8443/", "https://例え.jp/", "https://h/%41?q=%zz", "http://h:/", "http://h?q",
		"https://h/" + strings.Repeat("x", maxURLChars-len("https://h/")),
	} {
		if err := CheckURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "example.com", "/path", "//host/path", "ftp://host/secret", "mailto:a@b", "https:", "https://", "https:///secret",
		"https://:443/", "https://user:secret@/", "https:host/secret", "https://host:0/", "https://host:65536/", "https://host:99999/",
		"https://host:port/", "https://ho st/", "https://host/se cret", "https://host/sec\x00ret", "https://host/\u00a0", "https://host/%zz",
		"https://host;secret/", "https://host=secret", "https://ho%73t/", "https://[::1%25secret]/", "https://[::1/", "https://host\\secret",
		"https://h/" + strings.Repeat("x", maxURLChars),
	} {
		err := CheckURL(bad)
		if !errors.Is(err, ErrBadURL) {
			t.Errorf("%q: got %v, want ErrBadURL", bad, err)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows it: %v", bad, err)
		}
	}
}

func TestDisplayURL(t *testing.T) {
	t.Parallel()
	for rawURL, want := range map[string]string{
		"https://example.com":                        "https://example.com",
		"HTTPS://user:secret@Example.com:8443/s?s#s": "https://Example.com:8443",
		"http://[2606:4700::1111]:80/secret":         "http://[2606:4700::1111]:80",
		"http://a@b@host/secret":                     "http://host",
		"https://user:se/cret@host/":                 unreadableURL,
		"secret":                                     unreadableURL,
		"":                                           unreadableURL,
		"https:secret":                               unreadableURL,
		"ftp://host/secret":                          unreadableURL,
		"http://host/%zzsecret":                      unreadableURL,
		"http://[fe80::1%25secret]/":                 unreadableURL,
		"http://host;secret/":                        unreadableURL,
	} {
		if got := DisplayURL(rawURL); got != want {
			t.Errorf("%q: got %s, want %s", rawURL, got, want)
		}
	}
}

var shown = regexp.MustCompile(`^https?://([^/?#@\\\s%;=&]+)$`)

// checkShown holds what DisplayURL returned against the text itself, without net/url: a host ends at the first of
// "/?#", and user info at the last "@" before that.
func checkShown(t *testing.T, rawURL, got string) {
	t.Helper()
	if got == unreadableURL {
		return
	}
	host := shown.FindStringSubmatch(got)
	if host == nil {
		t.Fatalf("%q is shown as %q", rawURL, got)
	}
	_, rest, found := strings.Cut(rawURL, "://")
	if !found {
		t.Fatalf("%q has no authority and is shown as %q", rawURL, got)
	}
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	rest = rest[strings.LastIndexByte(rest, '@')+1:]
	if unescaped, err := url.PathUnescape(rest); rest != host[1] && (err != nil || unescaped != host[1]) {
		t.Fatalf("%q is shown as %q, but its host is %q", rawURL, got, rest)
	}
}

var urlSeeds = []string{
	"https://user:secret@example.com:8443/path/secret?token=secret#secret", "http://[::1]:80/", "https:opaque", "//host/path",
	"https://host\\@evil/", "https://a@b@c/", "http://host:80:90/", "https://%68ost/", "https://[fe80::1%25x]/", "http://h\x00/", "https://例え.jp/",
}

func FuzzDisplayURL(f *testing.F) {
	for _, seed := range urlSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rawURL string) {
		checkShown(t, rawURL, DisplayURL(rawURL))
	})
}

func FuzzCheckURL(f *testing.F) {
	for _, seed := range urlSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rawURL string) {
		target, err := NewTarget(rawURL)
		if check := CheckURL(rawURL); (check == nil) != (err == nil) {
			t.Fatalf("%q: CheckURL says %v, NewTarget %v", rawURL, check, err)
		}
		if err != nil {
			if !errors.Is(err, ErrBadURL) {
				t.Fatalf("%q: %v is not ErrBadURL", rawURL, err)
			}
			return
		}
		if target.String() == unreadableURL {
			t.Fatalf("%q is accepted but cannot be shown", rawURL)
		}
		checkShown(t, rawURL, target.String())
		if _, err := http.NewRequestWithContext(t.Context(), http.MethodPost, rawURL, http.NoBody); err != nil {
			t.Fatalf("%q is accepted but net/http says %v", rawURL, err)
		}
	})
}
