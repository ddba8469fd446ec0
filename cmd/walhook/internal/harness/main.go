package harness

import (
	"os"
	"testing"

	"walhook/testenv"
)

// Main makes a test binary act as walhook, whose main function is given, so that tests can run, signal and kill the
// real program.
func Main(m *testing.M, program func()) {
	if os.Getenv("WALHOOK_TEST_EXEC") == "1" {
		if os.Getenv(lifelineVariable) != "" {
			go exitWithTests()
		}
		program()
		return
	}
	testenv.Main(m)
}
