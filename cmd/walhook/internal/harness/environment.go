package harness

import (
	"os"
	"testing"
)

// SetOnly sets variables of walhook, given as NAME and value in turn, in the test's own process, and unsets the other
// ones of names. The test must not run in parallel.
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
