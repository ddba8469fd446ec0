package pgserver

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// startAndWait is the environment variable that makes the test program start a server and wait to be killed.
const startAndWait = "WALHOOK_TEST_START_AND_WAIT"

func TestMain(m *testing.M) {
	if os.Getenv(startAndWait) != "" {
		s, err := Start(context.Background(), Options{})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if os.Getenv(startAndWait) == "killed" {
			s.Kill()
		}
		fmt.Println(s.PID(), s.watchdog.cmd.Process.Pid, s.base)
		_, _ = os.Stdin.Read(make([]byte, 1)) // forever: the test keeps it open
		os.Exit(1)
	}
	os.Exit(m.Run())
}
