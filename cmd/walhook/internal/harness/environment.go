package harness

import (
	"os"
	"testing"
)

// SetOnly sets walhook's environment variables in the test's own process, given as alternating names and values, and
// unsets the others in names. The test must not run in parallel.
func SetOnly(t *testing.T, names []string, pairs ...string) {
	t.Helper()
	const prefix = "WALHOOK_"
	for _, name := range names {
		t.Setenv(prefix+name, "") // restores it after the test
		if err := os.Unsetenv(prefix + name); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < len(pairs); i += 2 {
		t.Setenv(prefix+pairs[i], pairs[i+1])
	}
}
