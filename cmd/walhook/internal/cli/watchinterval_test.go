package cli

import (
	"strings"
	"testing"
	"time"
)

func TestWatchInterval(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"0s", "-1s", "1ms"} {
		_, errOut, status := call(t, "status", "--watch="+value)
		if status != ExitUsage || !strings.Contains(errOut, "--watch="+value+" is not accepted: a duration of at least 100ms") {
			t.Errorf("%s: status %d: %s", value, status, errOut)
		}
	}
	var days duration
	if err := days.Set("2w1d"); err != nil || time.Duration(days) != 15*24*time.Hour {
		t.Errorf("2w1d: %s: %v", &days, err)
	}
	if _, errOut, status := call(t, "status", "--watch", "1s"); status != ExitUsage || !strings.Contains(errOut, "is --watch=1s meant?") {
		t.Errorf("an interval without equals sign: status %d: %s", status, errOut)
	}
	if _, errOut, status := call(t, "status", "--watch=often"); status != ExitUsage || strings.Count(errOut, "\n") != 1 {
		t.Errorf("often: status %d: %s", status, errOut)
	}
}
