package main

import (
	"os"
	"testing"

	"walhook/testenv"
)

// TestMain lets the test binary be walhook itself, so that tests can run, signal and kill the real program.
func TestMain(m *testing.M) {
	if os.Getenv("WALHOOK_TEST_EXEC") == "1" {
		main()
		return
	}
	testenv.Main(m)
}
