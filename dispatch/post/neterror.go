package post

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/textproto"
	"strings"
	"syscall"
)

func isTimeout(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) || errors.Is(err, syscall.ETIMEDOUT) {
		// The name server's or the kernel's timeout, which is shorter than the attempt's.
		return false
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// describe puts an error of net/http into fixed words. It always drops the original text, which may quote addresses,
// the URL or the reply.
func describe(err error, at phase) string {
	if errors.Is(err, ErrAddressRefused) {
		return refusal(err)
	}
	for _, describe := range []func(error) string{describeDNS, describeTLS, describeSocket, describeHTTP} {
		if text := describe(err); text != "" {
			return text
		}
	}
	if at == phaseTLS {
		return "TLS: handshake failed"
	}
	return "network error (" + at.String() + ")"
}

// refusal unwraps to the Guard's own text.
func refusal(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return ErrAddressRefused.Error()
}

func describeDNS(err error) string {
	var dns *net.DNSError
	switch {
	case !errors.As(err, &dns):
		return ""
	case dns.IsNotFound:
		return "DNS: no such host"
	case dns.IsTimeout:
		return "DNS: the name server did not answer"
	default:
		return "DNS: lookup failed"
	}
}

func describeTLS(err error) string {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		record   tls.RecordHeaderError
		op       *net.OpError
	)
	switch {
	case errors.As(err, &unknown):
		return "TLS: certificate is signed by an unknown authority"
	case errors.As(err, &hostname):
		return "TLS: certificate is not valid for this host"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "TLS: certificate has expired or is not yet valid"
	case errors.As(err, &invalid), errors.As(err, &verify):
		return "TLS: certificate is not valid"
	case errors.As(err, &record):
		return "TLS: the server does not speak TLS on this port"
	case errors.As(err, &op) && op.Op == "remote error":
		// The text of a TLS alert is one of a fixed table.
		return "TLS: the server refused: " + strings.TrimPrefix(op.Err.Error(), "tls: ")
	case errors.As(err, &op) && op.Op == "local error":
		return "TLS: " + strings.TrimPrefix(op.Err.Error(), "tls: ")
	default:
		return ""
	}
}

func describeSocket(err error) string {
	for _, known := range []struct {
		errno syscall.Errno
		text  string
	}{
		{syscall.ECONNREFUSED, "connection refused"},
		{syscall.ECONNRESET, "connection reset"},
		{syscall.ETIMEDOUT, "connection lost: the server stopped acknowledging"},
		{syscall.EPIPE, "connection closed by the server"},
		{syscall.EHOSTUNREACH, "no route to host"},
		{syscall.ENETUNREACH, "network unreachable"},
		{syscall.EADDRNOTAVAIL, "no local port or address left"},
		{syscall.EACCES, "connection forbidden by the local system"},
		{syscall.EPERM, "connection forbidden by the local system"},
		{syscall.EMFILE, "too many open files in this process"},
		{syscall.ENFILE, "too many open files on this machine"},
	} {
		if errors.Is(err, known.errno) {
			return known.text
		}
	}
	return ""
}

// describeHTTP compares texts, because net/http has no types for these errors. It returns none of them.
func describeHTTP(err error) string {
	var protocol textproto.ProtocolError
	text := err.Error()
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), strings.Contains(text, "server closed idle connection"):
		return "connection closed before the reply ended"
	case strings.Contains(text, "headers exceeded"), strings.Contains(text, "header list"):
		return "reply headers are too large"
	case errors.As(err, &protocol), strings.Contains(text, "malformed"), strings.Contains(text, "chunk"),
		strings.Contains(text, "line too long"), strings.Contains(text, "transfer encoding"),
		strings.Contains(text, "Content-Length"):
		return "reply is not HTTP"
	case strings.Contains(text, "http2:"), strings.Contains(text, "stream error"),
		strings.Contains(text, "connection error"), strings.Contains(text, "GOAWAY"):
		return "HTTP/2: the server broke off"
	default:
		return ""
	}
}
