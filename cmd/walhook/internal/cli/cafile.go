package cli

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// rootCAs returns the system's certificate authorities with those of WALHOOK_CA_FILE, nil where it is not set. A file that does
// not hold what it seems to hold is refused: deliveries would fail later, one by one. Its error is a [ConfigError].
func rootCAs(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	refuse := func(why string) (*x509.CertPool, error) {
		return nil, &ConfigError{Variable: "CA_FILE", Value: file, Accepted: "a PEM file of certificates; " + why}
	}
	content, err := os.ReadFile(file)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			err = path.Err // without the name again
		}
		return refuse(err.Error())
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	begun, read := bytes.Count(content, []byte("-----BEGIN CERTIFICATE-----")), 0
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			pool.AddCert(cert)
			read++
		}
	}
	switch {
	case begun == 0:
		return refuse("it holds none")
	case read < begun:
		return refuse(fmt.Sprintf("%d of its %d cannot be read", begun-read, begun))
	}
	return pool, nil
}
