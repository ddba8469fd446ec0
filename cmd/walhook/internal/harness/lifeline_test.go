package harness

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m, func() { time.Sleep(time.Hour) }) }

// A process that a test starts exits when the process of the tests is gone, whatever ended that.
func TestProcessesExitWithTheTests(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = []string{"WALHOOK_TEST_EXEC=1"}
	lifeline{read, write}.tie(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = read.Close()
	_ = write.Close() // as the system does when a process ends
	_ = cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != 1 {
		t.Errorf("exit status %d", status)
	}
}
