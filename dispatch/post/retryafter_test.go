package post

import (
	"math"
	"net/http"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, time.March, 18, 18, 44, 9, 0, time.UTC)
	soon := now.Add(90 * time.Second)
	for value, want := range map[string]time.Duration{
		"":                           0,
		"0":                          0,
		"120":                        2 * time.Minute,
		" 120 ":                      2 * time.Minute,
		"0007":                       7 * time.Second,
		"3600":                       time.Hour,
		"3601":                       time.Hour,
		"999999999999999999999999":   time.Hour,
		"18446744073709551617":       time.Hour,
		"-1":                         0,
		"+1":                         0,
		"2.5":                        3 * time.Second,
		"2.0":                        2 * time.Second,
		"2.":                         2 * time.Second,
		"0.25":                       time.Second,
		"3599.9":                     time.Hour,
		"3600.1":                     time.Hour,
		"99999999999999999999.5":     time.Hour,
		".5":                         0,
		"1.5.2":                      0,
		"2,5":                        0,
		"2.5s":                       0,
		".":                          0,
		"1e3":                        0,
		"0x10":                       0,
		"soon":                       0,
		"120 s":                      0,
		soon.Format(http.TimeFormat): 90 * time.Second,
		soon.Format(time.RFC850):     90 * time.Second,
		soon.Format(time.ANSIC):      90 * time.Second,
		soon.Format("Mon, 02 Jan 2006 15:04:05 UTC"):            90 * time.Second,
		soon.In(time.FixedZone("", 7200)).Format(time.RFC1123Z): 90 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):             0,
		now.AddDate(10, 0, 0).Format(http.TimeFormat):           time.Hour,
		"Fri, 31 Dec 9999 23:59:59 GMT":                         time.Hour,
		"Mon, 01 Jan 0001 00:00:00 GMT":                         0,
	} {
		if got := ParseRetryAfter(value, now, time.Hour); got != want {
			t.Errorf("%q: got %v, want %v", value, got, want)
		}
	}
	if got := ParseRetryAfter("10", now, 0); got != 0 {
		t.Errorf("limit 0: got %v", got)
	}
	if got := ParseRetryAfter("99999999999999999999", now, math.MaxInt64); got != math.MaxInt64 {
		t.Errorf("no limit: got %v", got)
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, value := range []string{"120", "-1", "99999999999999999999", "Wed, 21 Oct 2015 07:28:00 GMT", "Wednesday, 21-Oct-15 07:28:00 GMT", "Wed Oct 21 07:28:00 2015"} {
		f.Add(value, int64(1445412480), int64(time.Hour))
	}
	f.Fuzz(func(t *testing.T, value string, now, limit int64) {
		got := ParseRetryAfter(value, time.Unix(now, 0), time.Duration(limit))
		if got < 0 || got > max(time.Duration(limit), 0) {
			t.Errorf("%q with limit %v: %v", value, time.Duration(limit), got)
		}
	})
}
