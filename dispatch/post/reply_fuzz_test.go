package post

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"
)

// Whatever a server sends back, the outcome is one of the kinds, its text is bounded, printable and tells nothing of
// the URL but scheme and host, and nothing is a success that does not say so.
func FuzzReply(f *testing.F) {
	for _, reply := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.0 500 \r\n\r\nat /secretpath: \x00\xff\u202e",
		"HTTP/1.1 429 Slow\r\nRetry-After: 99999999999999999999\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 503 Later\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: http://user:pass@example.com/secretpath\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 410 Gone\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 999 \r\n\r\n", "HTTP/9.9 200\r\n\r\n", "\x16\x03\x01", "",
	} {
		f.Add([]byte(reply))
	}
	const retryCap = time.Hour
	var reply atomic.Pointer[[]byte]
	rawURL := newWire(f, func(conn net.Conn) { _, _ = conn.Write(*reply.Load()) })
	client := newTestClient(f, ClientConfig{RetryCap: retryCap})
	target := newTestTarget(f, rawURL)
	f.Fuzz(func(t *testing.T, bytes []byte) {
		reply.Store(&bytes)
		o := client.Attempt(t.Context(), Request{Target: target, MessageID: "msg_1", Body: []byte(`{}`)})
		switch {
		case o.Kind == Success && (o.HTTPStatus < 200 || o.HTTPStatus > 299 || o.Error != ""):
			t.Errorf("a success with status %d and error %q", o.HTTPStatus, o.Error)
		case o.Kind == Gone && o.HTTPStatus != 410, o.Kind != Success && o.Kind != Gone && o.Kind != Retry:
			t.Errorf("kind %s with status %d", o.Kind, o.HTTPStatus)
		case o.Kind != Success && o.Error == "":
			t.Errorf("%s without a reason, status %d", o.Kind, o.HTTPStatus)
		case len(o.Error) > 2*maxDetail || !utf8.ValidString(o.Error) || strings.ContainsAny(o.Error, "\x00\n\r\u202e"):
			t.Errorf("error of %d bytes: %q", len(o.Error), o.Error)
		case strings.Contains(o.Error, "secretpath"):
			t.Errorf("the error tells the path: %q", o.Error)
		case o.RetryAfter < 0 || o.RetryAfter > retryCap:
			t.Errorf("Retry-After is %s", o.RetryAfter)
		}
	})
}
