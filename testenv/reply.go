package testenv

import (
	"io"
	"net"
	"net/http"
	"time"
)

// Reply is how a Receiver answers. The zero value is an empty 200.
type Reply struct {
	Status int
	Header map[string]string
	Body   string
	Delay  time.Duration
	Hang   bool          // do not answer until the client disconnects
	Reset  bool          // reset the connection, or over HTTP/2 the stream, instead of answering
	Drip   time.Duration // send the body a byte at a time, with this pause in between
}

// Always returns a script with the same answer each time.
func Always(reply Reply) func(Request) Reply { return func(Request) Reply { return reply } }

// answer sends a reply. A receiver that is closed meanwhile breaks the connection, so that half a reply is not mistaken
// for a complete one.
func (r *Receiver) answer(w http.ResponseWriter, req *http.Request, reply Reply) {
	if reply.Hang {
		r.hang(req)
	}
	r.pause(req, reply.Delay)
	if reply.Reset {
		reset(w)
	}
	for name, value := range reply.Header {
		w.Header().Set(name, value)
	}
	if reply.Status != 0 {
		w.WriteHeader(reply.Status)
	}
	if reply.Drip == 0 {
		_, _ = io.WriteString(w, reply.Body)
		return
	}
	control := http.NewResponseController(w)
	for i := range len(reply.Body) {
		_, _ = io.WriteString(w, reply.Body[i:i+1])
		_ = control.Flush()
		r.pause(req, reply.Drip)
	}
}

// hang does not return. It ends with the client or the receiver.
func (r *Receiver) hang(req *http.Request) {
	select {
	case <-req.Context().Done():
	case <-r.closed:
	}
	panic(http.ErrAbortHandler)
}

func (r *Receiver) pause(req *http.Request, d time.Duration) {
	if d == 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-req.Context().Done():
		panic(http.ErrAbortHandler)
	case <-r.closed:
		panic(http.ErrAbortHandler)
	}
}

// reset does not return. Over HTTP/2 a handler cannot hijack the connection, so the server resets the stream.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	raw := conn
	if secured, ok := conn.(interface{ NetConn() net.Conn }); ok {
		raw = secured.NetConn() // closing the TLS connection itself would send close_notify first
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // the kernel then answers with RST instead of FIN
	}
	_ = raw.Close()
	panic(http.ErrAbortHandler)
}
