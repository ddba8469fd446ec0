package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// Each kind of file that may stand in WALHOOK_CA_FILE is taken whole or refused with what is wrong.
func TestCAFile(t *testing.T) {
	t.Parallel()
	pem := testenv.NewTLSReceiver(t).CAPEM()
	middle := len(pem) / 2
	broken := []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	for name, tt := range map[string]struct {
		content []byte
		refused string
	}{
		"one":                 {pem, ""},
		"several, with words": {concat("# ours\r\n", pem, "\r\n\nand another one\n", pem), ""},
		"lines of Windows":    {bytes.ReplaceAll(pem, []byte("\n"), []byte("\r\n")), ""},
		"no last line end":    {bytes.TrimSpace(pem), ""},
		"with a key":          {concat("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", pem), ""},
		"empty":               {nil, "it holds none"},
		"words":               {[]byte("hunter2\n"), "it holds none"},
		"a key alone":         {[]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "it holds none"},
		"binary":              {[]byte("\x30\x82\x01\x00\xff"), "it holds none"},
		"cut short":           {pem[:middle], "1 of its 1 cannot be read"},
		"one of two broken":   {concat(pem, broken), "1 of its 2 cannot be read"},
		"one of two mangled":  {concat(bytes.Replace(pem, []byte("-----END"), []byte("--END"), 1), pem), "1 of its 2 cannot be read"},
		"one of two cut":      {concat(pem, pem[:middle]), "1 of its 2 cannot be read"},
	} {
		file := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(file, tt.content, 0o600); err != nil {
			t.Fatal(err)
		}
		pool, err := rootCAs(file)
		var refused *ConfigError
		switch {
		case tt.refused == "" && (err != nil || pool == nil):
			t.Errorf("%s: %v", name, err)
		case tt.refused != "" && (!errors.As(err, &refused) || refused.Variable != "CA_FILE" || !strings.Contains(err.Error(), tt.refused) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%s: got %v, want %q", name, err, tt.refused)
		}
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "nowhere"), t.TempDir()} {
		var refused *ConfigError
		if _, err := rootCAs(path); !errors.As(err, &refused) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if pool, err := rootCAs(""); pool != nil || err != nil {
		t.Errorf("without a file: %v, %v", pool, err)
	}
}

func concat(parts ...any) []byte {
	var all []byte
	for _, part := range parts {
		switch part := part.(type) {
		case string:
			all = append(all, part...)
		case []byte:
			all = append(all, part...)
		}
	}
	return all
}

// A receiver whose certificate an own authority has signed is trusted with its file, and not without; nobody but the receiver can
// read what is sent, whatever the environment says.
func TestOwnAuthority(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("MAX_ATTEMPTS", "1")
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	s.Extra = []string{"SSLKEYLOGFILE=" + keys, "HTTPS_PROXY=http://127.0.0.1:1", "HTTP_PROXY=http://127.0.0.1:1", "ALL_PROXY=http://127.0.0.1:1"}
	s.Receiver = testenv.NewTLSReceiver(t)
	d := s.Run()
	s.Hook("/secret", "created")
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Fence()
	if got := testenv.Psql(t, s.Store, "select status, error from walhook.delivery_log"); got != "failed|TLS: certificate is signed by an unknown authority" {
		t.Errorf("without the file: %s", got)
	}
	d.Stop()

	file := filepath.Join(dir, "ca.pem")
	s.With("CA_FILE", file)
	if out, errOut, status := s.Walhook("run"); status != ExitUsage || out != "" || strings.Count(errOut, "\n") != 1 || !strings.Contains(errOut, "WALHOOK_CA_FILE="+file) {
		t.Errorf("with a file that is not there: status %d, %s%s", status, out, errOut)
	}
	if err := os.WriteFile(file, s.Receiver.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Start().Ready()
	s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
	s.Expect("/secret", "created 2")
	if _, err := os.Stat(keys); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("keys of connections were written: %v", err)
	}
	if requests := s.Receiver.Requests(); len(requests) == 1 && requests[0].Proto != "HTTP/2.0" {
		t.Errorf("the receiver was spoken to by %s", requests[0].Proto)
	}
}
