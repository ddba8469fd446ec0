package api

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"walhook/testenv"
)

// limited reports whether a request is refused, and how long it is to wait.
func limited(t *testing.T, err error) (seconds string) {
	t.Helper()
	var refused problem
	if err == nil {
		return ""
	}
	if !errors.As(err, &refused) || refused.Status != http.StatusTooManyRequests || refused.header.Get("Retry-After") == "" {
		t.Errorf("not a limit: %v", err)
	}
	return refused.header.Get("Retry-After")
}

// A key may make 30 requests in any second and no more, for ever: less than 10,000 in any five minutes.
func TestLimitOfAKey(t *testing.T) {
	t.Parallel()
	l := newLimits()
	start := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	now := start
	l.now = func() time.Time { return now }
	key := sha256.Sum256([]byte("key"))
	var client netip.Prefix
	l.know(key) // the first request
	for i := range perSecond - 1 {
		if wait := limited(t, l.take(key, client)); wait != "" {
			t.Fatalf("request %d waits %s", i+2, wait)
		}
	}
	for now = start; now.Before(start.Add(time.Second)); now = now.Add(time.Second / 4) {
		if wait := limited(t, l.take(key, client)); wait != "1" {
			t.Errorf("request 31 after %s waits %q", now.Sub(start), wait)
		}
	}
	now = start.Add(time.Second)
	if wait := limited(t, l.take(key, client)); wait != "" {
		t.Errorf("after a second it waits %s", wait)
	}

	// Whoever asks as often as possible, for ten minutes.
	var allowed []time.Time
	for now = start.Add(time.Hour); now.Before(start.Add(time.Hour + 10*time.Minute)); now = now.Add(7 * time.Millisecond) {
		if l.take(key, client) == nil {
			allowed = append(allowed, now)
		}
	}
	most := func(length time.Duration) (most int) {
		first := 0
		for last := range allowed {
			for allowed[last].Sub(allowed[first]) >= length {
				first++
			}
			most = max(most, last-first+1)
		}
		return most
	}
	if n := most(time.Second); n != perSecond {
		t.Errorf("%d requests in a second", n)
	}
	if n := most(5 * time.Minute); n > 10_000 || n < 8_900 {
		t.Errorf("%d requests in five minutes", n)
	}

	// Whoever asks 30 times a second, evenly, never waits.
	for i := range 9_000 {
		now = start.Add(2*time.Hour + time.Duration(i)*time.Second/perSecond)
		if wait := limited(t, l.take(key, client)); wait != "" {
			t.Fatalf("request %d waits %s", i, wait)
		}
	}
}

// Unknown keys are limited for each client, known ones of the same client are not, and what is remembered is bounded.
func TestLimitOfUnknownKeys(t *testing.T) {
	t.Parallel()
	l := newLimits()
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	l.now = func() time.Time { return now }
	known, client := sha256.Sum256([]byte("known")), netip.MustParsePrefix("192.0.2.1/32")
	l.know(known)
	guess := func(i int) string { return limited(t, l.take(sha256.Sum256([]byte(fmt.Sprint("guess", i))), client)) }
	for i := range unknownAtOnce {
		if guess(i) != "" {
			t.Fatalf("guess %d waits", i)
		}
	}
	if guess(unknownAtOnce) != "1" {
		t.Error("the address may guess on")
	}
	if limited(t, l.take(known, client)) != "" {
		t.Error("a known key waits for the guesses of its address")
	}
	if limited(t, l.take(sha256.Sum256([]byte("other")), netip.MustParsePrefix("192.0.2.2/32"))) != "" {
		t.Error("another address waits")
	}
	now = now.Add(time.Second)
	for i := range unknownPerSecond {
		if guess(i) != "" {
			t.Errorf("guess %d waits after a second", i)
		}
	}
	if guess(0) == "" {
		t.Error("more guesses than a second gives")
	}
	l.revoked(known)
	if limited(t, l.take(known, client)) == "" {
		t.Error("a key that is not in force any more is not limited like a guess")
	}
	for i := range 3 * mostAddresses {
		_ = l.take(known, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32))
	}
	if len(l.unknown) > mostAddresses || len(l.known) != 0 {
		t.Errorf("%d addresses and %d keys are remembered", len(l.unknown), len(l.known))
	}
}

// A flood of unknown keys is refused without a lookup, and a key that is in use works meanwhile.
func TestFloodOfUnknownKeys(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key := s.key("'Zapier'")
	s.want(200, key, "GET", "/me", "")
	refused := 0
	testenv.Eventually(t, time.Minute, "unknown keys to be limited", func() (bool, string) {
		for i := range 4 * unknownAtOnce {
			request, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/me", nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("X-API-Key", fmt.Sprintf("whk_%064x", i))
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			switch {
			case response.StatusCode == http.StatusTooManyRequests:
				refused++
				if response.Header.Get("Retry-After") != "1" || !strings.HasPrefix(response.Header.Get("Content-Type"), "application/problem+json") {
					t.Errorf("%v", response.Header)
				}
			case response.StatusCode != http.StatusUnauthorized:
				t.Errorf("status %d", response.StatusCode)
			}
		}
		return refused > 0, "none was refused"
	})
	s.want(200, key, "GET", "/me", "")
}
