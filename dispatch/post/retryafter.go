package post

import (
	"net/http"
	"strings"
	"time"
)

// ParseRetryAfter returns the wait that a Retry-After header asks for (RFC 9110, section 10.2.3): a number of seconds,
// or a date in one of HTTP's three formats, measured from now. It also accepts fractions of a second, and UTC as the
// name of the zone. The result is never negative nor above limit, and 0 if the value is missing, past or invalid. A
// caller that takes the longer of it and its own backoff can only be slowed down.
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
		at, err = time.Parse(time.RFC1123Z, strings.Replace(value, " UTC", " +0000", 1))
	}
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), limit)
}

// parseSeconds parses digits with or without a fraction, which counts as one more second. It stops at limit, so no
// number of digits overflows.
func parseSeconds(s string, limit time.Duration) (time.Duration, bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	if whole == "" || strings.Trim(whole, digits) != "" || strings.Trim(fraction, digits) != "" {
		return 0, false
	}
	var wait time.Duration
	for i := range len(whole) {
		digit := time.Duration(whole[i]-'0') * time.Second
		if wait > (limit-digit)/10 {
			wait = limit
			continue
		}
		wait = wait*10 + digit
	}
	if strings.Trim(fraction, "0") != "" {
		if wait > limit-time.Second {
			return limit, true
		}
		wait += time.Second
	}
	return min(wait, limit), true
}

const digits = "0123456789"
