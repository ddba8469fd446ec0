package deliveries

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/dispatch/post"
	"walhook/testenv"
)

// urlParts combine to all kinds of URLs that administrators or attackers may write.
var urlParts = [][]string{
	{"http", "https", "HTTP", "ftp", "javascript", ""},
	{"://", "://", "://", "://", ":", ":/", ":///", "//", ""},
	{"", "", "", "user@", "user:sEcReT@", "sEcReT:@", ":sEcReT@", "us%40er:sEc%2FReT@", "%zz@", "a@b@", "us/er@", "user:pa:sEcReT@", "us\"er:<sEcReT>@"},
	{
		"example.com", "Example.COM", "127.0.0.1", "127.1", "0x7f.1", "017700000001", "2130706433", "localhost", "localhost.", "[::1]", "[::ffff:127.0.0.1]", "[::1%25lo]", "[1:2]",
		"[::::]", "[g::1]", "::1", "ex_ample-1.com", "-", ".", "..", "a..b", "%41", "%", "a b", "a;b", "a=b", "a,b", "~", "!", "$", "&", "'", "(", "*", "+", "例え.jp", "xn--r8jz45g.jp", "é", "", "\\", "a\\b", "169.254.169.254",
		strings.Repeat("a", 64) + ".com", strings.Repeat("a.", 150) + "com",
	},
	{"", "", "", ":80", ":8443", ":0", ":65535", ":65536", ":99999", ":123456", ":", ":-1", ":port", ":8 0", ":080", ":00080"},
	{"", "", "/", "/hook", "/sEcReT/x", "/%2F", "/%zz", "/%", "/%4", "/a b", "/a\tb", "/a\nb", "/é", "/\u00a0", "/\u2028", "/\u200b", "//x", "/../x", "/;x", "/\\", "/\"", "/<x>", "/{x}", "/|", "/^", "/`", "/[", "/]", "/:@", "/\x7f", "/\u0080"},
	{"", "", "", "?", "?a=b", "?sEcReT", "?%zz", "?a b", "??", "?é", "?\"", "?<", "?#", "?[]"},
	{"", "", "", "#", "#x", "#%zz", "#a b", "##", "#sEcReT"},
	{"", "", "", " ", "\n", "\t"},
}

func oddURLs(n int) []string {
	random := rand.New(rand.NewPCG(1, 2))
	urls := []string{"http://h/" + strings.Repeat("x", 2039), "http://h/" + strings.Repeat("x", 2040), "http://h/" + strings.Repeat("é", 2039)}
	for len(urls) < n {
		var b strings.Builder
		for _, choices := range urlParts {
			b.WriteString(choices[random.IntN(len(choices))])
		}
		urls = append(urls, b.String())
		// Most other combinations would be refused for one part or another.
		urls = append(urls, "https://example.com"+urlParts[5][random.IntN(len(urlParts[5]))]+urlParts[6][random.IntN(len(urlParts[6]))]+urlParts[7][random.IntN(len(urlParts[7]))])
		urls = append(urls, "http://"+urlParts[2][random.IntN(len(urlParts[2]))]+urlParts[3][random.IntN(len(urlParts[3]))]+urlParts[4][random.IntN(len(urlParts[4]))]+"/sEcReT")
	}
	return urls
}

// The senders can use every URL that the store accepts, and display it like the store's views. A URL that they cannot
// use is refused immediately, without repeating it. The store refuses few usable URLs.
func TestStoreAndSendersAgreeOnURLs(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Attach()
	conn := testenv.Connect(t, s.Store)
	if _, err := conn.Exec(t.Context(), `create function pg_temp.take(url text, out kept text, out shown text, out refusal text) language plpgsql as $$
		begin
		  insert into walhook.webhook (url, event_type) values (take.url, 'response.created') returning webhook.url, walhook.display_url(webhook.url) into kept, shown;
		exception when check_violation then
		  get stacked diagnostics refusal = message_text;
		end $$`); err != nil {
		t.Fatal(err)
	}
	taken, seen := 0, map[string]bool{}
	for _, u := range oddURLs(5000) {
		if seen[u] {
			continue
		}
		seen[u] = true
		var kept, shown, refusal *string
		if err := conn.QueryRow(t.Context(), "select * from pg_temp.take($1)", u).Scan(&kept, &shown, &refusal); err != nil {
			t.Fatalf("%q: %v", u, err)
		}
		if refusal != nil {
			if !strings.HasPrefix(*refusal, "webhook.url must ") || strings.Contains(*refusal, "sEcReT") {
				t.Errorf("%q is refused with this message: %s", u, *refusal)
			}
			if post.CheckURL(u) == nil && !refusable.MatchString(u) {
				t.Errorf("%q is refused though it is usable: %s", u, *refusal)
			}
			continue
		}
		taken++
		target, err := post.NewTarget(*kept)
		if err != nil {
			t.Errorf("%q is accepted but the senders report: %v", *kept, err)
		} else if target.String() != *shown || post.DisplayURL(*kept) != *shown || strings.Contains(*shown, "sEcReT") {
			t.Errorf("%q is shown as %q by the store and as %q by the senders", *kept, *shown, target)
		}
	}
	if taken < 300 || len(seen)-taken < 300 {
		t.Errorf("of %d URLs %d were accepted, too few or too many for the test to be meaningful", len(seen), taken)
	}
}

// refusable matches URLs that net/url accepts and people do not write: an empty port, a second @, a host name that is
// not ASCII, line ends and blanks that the store trims, and invisible characters.
var refusable = regexp.MustCompile(`(?i)^https?://([^/?#]*:([/?#]|$)|[^/?#]*@[^/?#]*@|[^/?#]*[^\x00-\x7f]|.*[\x{200b}\x{2060}\x{feff}])`)

// For any URL that the store accepts, an attempt ends, at the latest by its timeout, with an error that shows at most
// scheme and host, and reaches no private address.
func TestAttemptsAtOddURLs(t *testing.T) {
	t.Parallel()
	inner := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s came", r.URL) }))
	t.Cleanup(inner.Close)
	_, port, err := net.SplitHostPort(inner.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nowhere := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no name server") }}
	client := post.NewClient(post.ClientConfig{Timeout: harness.Patience, Resolver: nowhere})
	t.Cleanup(client.Close)
	attempted := 0
	for _, u := range oddURLs(1500) {
		u = strings.Replace(u, ":8443", ":"+port, 1)
		target, err := post.NewTarget(u)
		if err != nil {
			continue
		}
		attempted++
		o := client.Attempt(t.Context(), post.Request{Target: target, MessageID: "msg_1", Body: []byte("{}")})
		if o.Kind != post.Retry || o.HTTPStatus != 0 || strings.Contains(o.Error, "sEcReT") || strings.ContainsAny(o.Error, "\r\n") ||
			!strings.HasPrefix(o.Error, "address refused: ") && !strings.HasPrefix(o.Error, "DNS: ") && !strings.HasPrefix(o.Error, "network error") {
			t.Errorf("%q: %+v", u, o)
		}
	}
	if attempted < 200 {
		t.Errorf("only %d attempts were made", attempted)
	}
}

// Path and query arrive as from any other client of net/http.
func TestPathAndQueryArriveAsWritten(t *testing.T) {
	t.Parallel()
	type arrived struct{ uri, host, auth string }
	got := make(chan arrived, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got <- arrived{r.RequestURI, r.Host, r.Header.Get("Authorization")}
	}))
	t.Cleanup(server.Close)
	client := post.NewClient(post.ClientConfig{Timeout: harness.Patience, Guard: post.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")})})
	t.Cleanup(client.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	for _, user := range urlParts[2] {
		for _, path := range urlParts[5] {
			for _, query := range urlParts[6] {
				u := "http://" + user + host + path + query + "#fragment"
				target, err := post.NewTarget(u)
				if err != nil || strings.Contains(user, "/") { // which turns the user into the host
					continue
				}
				if o := client.Attempt(t.Context(), post.Request{Target: target, MessageID: "msg_1", Body: []byte("{}")}); o.Kind != post.Success {
					t.Fatalf("%q: %+v", u, o)
				}
				ours := <-got
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u, strings.NewReader("{}"))
				if err != nil {
					t.Fatal(err)
				}
				resp, err := server.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				// http.Client sends a query unchanged, even characters that are invalid in one.
				theirs := <-got
				theirPath, theirQuery, _ := strings.Cut(theirs.uri, "?")
				ourPath, ourQuery, _ := strings.Cut(ours.uri, "?")
				theirs.uri, ours.uri = theirPath, ourPath
				if ours != theirs || decoded(ourQuery) != decoded(theirQuery) || !queryChars.MatchString(ourQuery) {
					t.Errorf("%q arrives as %+v with query %q but from http.Client as %+v with %q", u, ours, ourQuery, theirs, theirQuery)
				}
			}
		}
	}
}

// queryChars are the characters that RFC 3986 allows in a query, and brackets.
var queryChars = regexp.MustCompile(`^([A-Za-z0-9._~!$&'()*+,;=:@/?\[\]-]|%[0-9A-Fa-f]{2})*$`)

// decoded decodes a query; invalid percent-encoding is kept unchanged.
func decoded(query string) string {
	text, err := url.PathUnescape(query)
	if err != nil {
		return query
	}
	return text
}
