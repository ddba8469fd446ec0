package post

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func redactorOf(t *testing.T, rawURL string) *redactor {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	return newRedactor(u)
}

func TestDetailHidesTheURLHoweverItIsEchoed(t *testing.T) {
	t.Parallel()
	const rawURL = "https://anna:pa%24sw0rd@hooks.example.com/services/T0KENabc%2Fdef/x?sig=S1G%20NATURE&k=q7w8#frag1234"
	r := redactorOf(t, rawURL)
	quoted, err := json.Marshal(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	echoes := []string{
		rawURL,
		strings.ToUpper(rawURL),
		string(quoted),
		html.EscapeString(rawURL),
		url.QueryEscape(rawURL),
		url.QueryEscape(url.QueryEscape(rawURL)),
		strings.ReplaceAll(rawURL, "/", `\/`),
		"Cannot POST /services/T0KENabc%2Fdef/x?sig=S1G%20NATURE&k=q7w8",
		"no route for /services/T0KENabc/def/x",
		"unknown token T0KENabc in path",
		"bad signature 'S1G NATURE' (k: q7w8)",
		"sig=S1G+NATURE",
		"user anna with password pa$sw0rd",
		"authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("anna:pa$sw0rd")),
		"at frag1234",
	}
	for _, echo := range echoes {
		for _, around := range []string{"%s", "<pre>%s</pre>", strings.Repeat("x ", 250) + "%s", "%[1]s%[1]s%[1]s"} {
			body := fmt.Sprintf(around, echo)
			got := strings.ToLower(r.detail([]byte(body), false))
			for _, secret := range []string{"t0kenabc", "s1g", "q7w8", "pa$sw", "pa%24", "anna", "yw5uyt", "frag12"} {
				if strings.Contains(got, secret) {
					t.Errorf("%q still shows %q: %s", body, secret, got)
				}
			}
		}
	}
	if got := r.detail([]byte("see https://hooks.example.com/help: invalid payload"), false); got != "see https://hooks.example.com/help: invalid payload" {
		t.Errorf("harmless text was changed: %s", got)
	}
}

// A secret that the window cuts in two is still recognised by its beginning.
func TestDetailHidesASecretAtTheEndOfTheWindow(t *testing.T) {
	t.Parallel()
	r := redactorOf(t, "https://h/SECRETSECRETSECRET")
	for n := 1; n < len("/SECRETSECRETSECRET"); n++ {
		body := strings.Repeat("/SECRETSECRETSECRET ", 50) + "/SECRETSECRETSECRET"[:n]
		if got := r.detail([]byte(body), true); strings.Contains(got, "SEC") {
			t.Fatalf("cut after %d bytes: %s", n, got)
		}
	}
}

func TestDetailIsOneCleanLine(t *testing.T) {
	t.Parallel()
	r := redactorOf(t, "https://h/")
	for body, want := range map[string]string{
		"":                                "",
		"plain":                           "plain",
		"a\x00b\r\n\tc\x1b[31md\x7fe":     "a b c [31md e",
		"\xff\xfeé\xc3":                   "\uFFFDé\uFFFD",
		"right\u202eleft\u2028next\u00a0": "right left next",
		"  {\n  \"error\": \"no\"\n}\n":   `{ "error": "no" }`,
	} {
		if got := r.detail([]byte(body), false); got != want {
			t.Errorf("%q: got %q, want %q", body, got, want)
		}
	}
	if got := r.detail([]byte(strings.Repeat("é", 2000)), true); got != strings.Repeat("é", maxDetail/2) {
		t.Errorf("got %d bytes: %q", len(got), got)
	}
}

func TestDetailIsAlwaysSafe(t *testing.T) {
	t.Parallel()
	secret := rapid.StringMatching(`[A-Za-z0-9_-]{8,40}`)
	rapid.Check(t, func(t *rapid.T) {
		user, segment, value := secret.Draw(t, "user"), secret.Draw(t, "segment"), secret.Draw(t, "value")
		u, err := url.Parse("https://" + user + "@host/" + segment + "?t=" + value)
		if err != nil {
			t.Fatal(err)
		}
		noise := rapid.StringOf(rapid.Rune())
		var body []byte
		for _, s := range []string{user, segment, value, u.String()} {
			body = append(body, noise.Draw(t, "noise")...)
			body = append(body, rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")...)
			body = append(body, s...)
		}
		got := newRedactor(u).detail(body, rapid.Bool().Draw(t, "more"))
		if len(got) > maxDetail || !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) {
			t.Fatalf("not fit for a log: %q", got)
		}
		for _, s := range []string{user, segment, value} {
			if strings.Contains(strings.ToLower(got), strings.ToLower(s)) {
				t.Fatalf("%q shows %q", got, s)
			}
		}
	})
}

func BenchmarkDetail(b *testing.B) {
	b.ReportAllocs()
	u, err := url.Parse("https://hooks.example.com/services/T0KENabc/def?sig=SIGNATURE")
	if err != nil {
		b.Fatal(err)
	}
	r := newRedactor(u)
	body := []byte(strings.Repeat("<p>Not found: /services/T0KENabc/def</p>", 100))[:detailWindow]
	for b.Loop() {
		r.detail(body, true)
	}
}
