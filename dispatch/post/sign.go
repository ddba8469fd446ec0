package post

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Bounds of a signing key in bytes, from the Standard Webhooks specification.
const (
	minKeyBytes = 24
	maxKeyBytes = 64

	secretPrefix = "whsec_"
)

// ErrBadSecret reports that a signing secret is not "whsec_" and the base64 of 24 to 64 bytes. No error that wraps it
// holds any of the secret.
var ErrBadSecret = errors.New("signing secret is malformed")

// Signer signs messages as Standard Webhooks specifies, with one signature for each of its secrets. The zero Signer has
// no secret and signs nothing. It may be used concurrently.
type Signer struct {
	keys []signingKey
}

type signingKey struct {
	*standardwebhooks.Webhook
	until time.Time // zero: for ever
}

// NewSigner decodes the secrets. Several secrets stand for a rotation: a receiver accepts a message when it knows any
// of them. The error wraps [ErrBadSecret].
func NewSigner(secrets ...string) (*Signer, error) {
	s := &Signer{keys: make([]signingKey, 0, len(secrets))}
	for _, secret := range secrets {
		// The library takes keys of any length and secrets without the prefix, so both are checked here.
		encoded, ok := strings.CutPrefix(secret, secretPrefix)
		if !ok {
			return nil, fmt.Errorf("%w: it does not start with %s", ErrBadSecret, secretPrefix)
		}
		if strings.ContainsAny(encoded, "\r\n") {
			return nil, fmt.Errorf("%w: it holds a line break", ErrBadSecret)
		}
		key, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, fmt.Errorf("%w: what follows %s is not base64", ErrBadSecret, secretPrefix)
		}
		if len(key) < minKeyBytes || len(key) > maxKeyBytes {
			return nil, fmt.Errorf("%w: its key has %d bytes, not %d to %d", ErrBadSecret, len(key), minKeyBytes, maxKeyBytes)
		}
		wh, err := standardwebhooks.NewWebhookRaw(key)
		if err != nil {
			return nil, fmt.Errorf("%w: its key was refused", ErrBadSecret)
		}
		s.keys = append(s.keys, signingKey{Webhook: wh})
	}
	return s, nil
}

// retireLast stops signing with the last of several secrets at that time. Call it before the Signer is shared.
func (s *Signer) retireLast(at time.Time) { s.keys[len(s.keys)-1].until = at }

// Sign returns the value of the webhook-signature header: "v1," and a base64 HMAC-SHA256 for each secret that is in use
// at that time, separated by spaces. It is empty when there is no secret.
func (s *Signer) Sign(messageID string, at time.Time, body []byte) (string, error) {
	if s == nil || len(s.keys) == 0 {
		return "", nil
	}
	signatures := make([]string, 0, len(s.keys))
	for _, key := range s.keys {
		if !key.until.IsZero() && !at.Before(key.until) {
			continue
		}
		signature, err := key.Sign(messageID, at, body)
		if err != nil {
			return "", fmt.Errorf("sign message: %w", err)
		}
		signatures = append(signatures, signature)
	}
	return strings.Join(signatures, " "), nil
}
