package dispatch

import (
	"net/http"
	"strings"
	"time"
)

// ParseRetryAfter returns the wait that a Retry-After header asks for (RFC 9110, section 10.2.3): a number of seconds,
// or a date in one of HTTP's three formats, measured from now. It is never negative nor above limit, and 0 where the value
// is missing, past or nonsense; so a caller who takes the longer of it and its own backoff can only be slowed down.
func ParseRetryAfter(value string, now time.Time, limit time.Duration) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" || limit <= 0 {
		return 0
	}
	if wait, ok := parseSeconds(value, limit); ok {
		return wait
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), limit)
}

// parseSeconds reports whether s is all digits. It stops counting at limit, so no count of digits overflows.
func parseSeconds(s string, limit time.Duration) (time.Duration, bool) {
	var wait time.Duration
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		digit := time.Duration(c-'0') * time.Second
		if wait > (limit-digit)/10 {
			wait = limit
			continue
		}
		wait = wait*10 + digit
	}
	return min(wait, limit), true
}
