package post

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"pgregory.net/rapid"
)

const specSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// The vector is that of the Standard Webhooks specification's own test suites.
func TestSignatureOfTheSpecification(t *testing.T) {
	t.Parallel()
	s, err := NewSigner(specSecret)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Sign("msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if err != nil {
		t.Fatal(err)
	}
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEveryRotatedSecretVerifies(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), minKeyBytes, maxKeyBytes)
		keys := rapid.SliceOfN(key, 1, 3).Draw(t, "keys")
		body := []byte(rapid.String().Draw(t, "body"))
		at := time.Unix(rapid.Int64Range(0, 1<<40).Draw(t, "at"), 0)
		secrets := make([]string, len(keys))
		for i, k := range keys {
			secrets[i] = "whsec_" + base64.StdEncoding.EncodeToString(k)
		}
		s, err := NewSigner(secrets...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Sign("msg_1", at, body)
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(got, " ")
		if len(parts) != len(keys) {
			t.Fatalf("%d secrets made %d signatures: %s", len(keys), len(parts), got)
		}
		header := http.Header{}
		header.Set(standardwebhooks.HeaderWebhookID, "msg_1")
		header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
		header.Set(standardwebhooks.HeaderWebhookSignature, got)
		for i, k := range keys {
			mac := hmac.New(sha256.New, k)
			mac.Write([]byte("msg_1." + strconv.FormatInt(at.Unix(), 10) + "."))
			mac.Write(body)
			if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); parts[i] != want {
				t.Fatalf("signature %d is %s, want %s", i, parts[i], want)
			}
			receiver, err := standardwebhooks.NewWebhook(secrets[i])
			if err != nil {
				t.Fatal(err)
			}
			if err := receiver.VerifyIgnoringTimestamp(body, header); err != nil {
				t.Fatalf("receiver with secret %d: %v", i, err)
			}
		}
	})
}

func TestMalformedSecretIsAnErrorThatHidesIt(t *testing.T) {
	t.Parallel()
	encode := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for name, secret := range map[string]string{
		"empty":      "",
		"no prefix":  encode(32),
		"no key":     "whsec_",
		"not base64": "whsec_hunter2*hunter2*hunter2*hunter2*hu",
		"URL base64": "whsec_" + strings.Repeat("-_", 16),
		"unpadded":   "whsec_" + strings.TrimRight(encode(25), "="),
		"line break": "whsec_" + encode(24) + "\n",
		"too short":  "whsec_" + encode(23),
		"too long":   "whsec_" + encode(65),
		"upper case": "WHSEC_" + encode(32),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := NewTarget("https://example.com/", specSecret, secret)
			if !errors.Is(err, ErrBadSecret) {
				t.Fatalf("got %v, want ErrBadSecret", err)
			}
			if rest := strings.TrimPrefix(secret, "whsec_"); rest != "" && strings.Contains(err.Error(), rest) {
				t.Errorf("the error shows the secret: %v", err)
			}
			o := Misconfigured(err, time.Now())
			if o.Kind != Retry || !strings.Contains(o.Error, "signing secret is malformed") {
				t.Errorf("outcome: %+v", o)
			}
		})
	}
}

func BenchmarkSign(b *testing.B) {
	b.ReportAllocs()
	s, err := NewSigner(specSecret)
	if err != nil {
		b.Fatal(err)
	}
	at := time.Unix(1773859449, 0)
	body := AppendBody(nil, "response.completed", at, "1112057", true)
	for b.Loop() {
		if _, err := s.Sign("msg_6910fbb528d5a9a9c8d57d1e1c793d06", at, body); err != nil {
			b.Fatal(err)
		}
	}
}

// A secret that was rotated out signs until its time has come, and not from then on.
func TestRetiredSecretSignsNothing(t *testing.T) {
	t.Parallel()
	const next = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	s, err := NewSigner(next, specSecret)
	if err != nil {
		t.Fatal(err)
	}
	until := time.Unix(1614265330, 0)
	s.retireLast(until)
	for _, c := range []struct {
		at      time.Time
		secrets []string
	}{{until.Add(-time.Second), []string{next, specSecret}}, {until, []string{next}}, {until.Add(time.Hour), []string{next}}} {
		alone, err := NewSigner(c.secrets...)
		if err != nil {
			t.Fatal(err)
		}
		want, err := alone.Sign("msg_1", c.at, []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Sign("msg_1", c.at, []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("at %s: %s, not %s", c.at, got, want)
		}
	}
}
