package post

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

// selfSigned is the configuration of a server with a self-signed certificate for 127.0.0.1, after change has had its
// way with both.
func selfSigned(t testing.TB, change func(*x509.Certificate, *tls.Config)) (config *tls.Config, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	config = &tls.Config{MinVersion: tls.VersionTLS12}
	change(template, config)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(cert)
	config.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	return config, roots
}

// newTLSReceiver serves with such a certificate.
func newTLSReceiver(t *testing.T, change func(*x509.Certificate, *tls.Config)) (rawURL string, roots *x509.CertPool) {
	t.Helper()
	config, roots := selfSigned(t, change)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.TLS = config
	s.Config.ErrorLog = discardLog
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL, roots
}

func TestTLSFailuresAreTold(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*x509.Certificate, *tls.Config)
		want   string
	}{
		"valid":   {func(*x509.Certificate, *tls.Config) {}, ""},
		"expired": {func(c *x509.Certificate, _ *tls.Config) { c.NotAfter = time.Now().Add(-time.Minute) }, "TLS: certificate has expired or is not yet valid"},
		"not yet": {func(c *x509.Certificate, _ *tls.Config) { c.NotBefore = time.Now().Add(time.Minute) }, "TLS: certificate has expired or is not yet valid"},
		"other usage": {func(c *x509.Certificate, _ *tls.Config) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}, "TLS: certificate is not valid"},
		"other address": {
			func(c *x509.Certificate, _ *tls.Config) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} },
			"TLS: certificate is not valid for this host",
		},
		"old server": {
			func(_ *x509.Certificate, c *tls.Config) {
				c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
			},
			"TLS: the server refused: protocol version not supported",
		},
		"very old server": {
			func(_ *x509.Certificate, c *tls.Config) {
				c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
			},
			"TLS: the server refused: protocol version not supported",
		},
		"name of old": {
			func(c *x509.Certificate, _ *tls.Config) {
				c.IPAddresses, c.Subject = nil, pkix.Name{CommonName: "127.0.0.1"}
			},
			"TLS: certificate is not valid for this host",
		},
		"no certificate": {
			func(_ *x509.Certificate, c *tls.Config) {
				c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
					return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
						return nil, errors.New("none")
					}}, nil
				}
			},
			"TLS: the server refused: internal error",
		},
		"another protocol": {
			func(_ *x509.Certificate, c *tls.Config) {
				c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
					return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: c.Certificates, NextProtos: []string{"smtp"}}, nil
				}
			},
			"TLS: the server refused: no application protocol",
		},
		"client certificate wanted": {
			func(_ *x509.Certificate, c *tls.Config) {
				c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
			},
			"TLS: the server refused: handshake failure",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rawURL, roots := newTLSReceiver(t, tt.change)
			o := post(t, newTestClient(t, ClientConfig{RootCAs: roots}), rawURL)
			if success := tt.want == ""; success != (o.Kind == Success) || !strings.HasPrefix(o.Error, tt.want) {
				t.Errorf("got %+v, want %q", o, tt.want)
			}
		})
	}
}

func TestDescribeNeverQuotes(t *testing.T) {
	t.Parallel()
	secret := errors.New("secret 10.1.2.3")
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&net.DNSError{Err: "secret", Name: "secret", Server: "10.1.2.3", IsNotFound: true}, "DNS: no such host"},
		{&net.DNSError{Err: "secret", Name: "secret", Server: "10.1.2.3", IsTimeout: true}, "DNS: the name server did not answer"},
		{&net.DNSError{Err: "secret", Name: "secret", Server: "10.1.2.3"}, "DNS: lookup failed"},
		{&net.OpError{Op: "dial", Err: syscall.ENETUNREACH}, "network unreachable"},
		{&net.OpError{Op: "dial", Err: fmt.Errorf("secret: %w", syscall.EHOSTUNREACH)}, "no route to host"},
		{&net.OpError{Op: "read", Err: syscall.ETIMEDOUT}, "connection lost: the server stopped acknowledging"},
		{&net.OpError{Op: "dial", Err: secret}, "network error (connect)"},
		{secret, "network error (connect)"},
		{fmt.Errorf("%w: because", ErrAddressRefused), "address refused"},
	} {
		if got := describe(tt.err, phaseConnect); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.err, got, tt.want)
		}
		if isTimeout(tt.err) {
			t.Errorf("%v counts as the attempt's own timeout", tt.err)
		}
	}
	if got := describe(secret, phaseTLS); got != "TLS: handshake failed" {
		t.Errorf("in the handshake: %q", got)
	}
}
