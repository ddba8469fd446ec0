package harness

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
)

// A process that a test starts holds the reading end of a pipe. The process of the tests holds the writing end as long
// as it lives. So walhook exits with the tests even if they are killed, or ended by go test at their time limit.
const (
	lifelineVariable = "WALHOOK_TEST_LIFELINE"
	lifelineFD       = 3 // the first of exec.Cmd.ExtraFiles
)

// lifeline is the pipe of this process. Nothing is ever written to it.
type lifeline struct{ read, write *os.File }

var ownLifeline = sync.OnceValue(func() lifeline {
	read, write, err := os.Pipe()
	if err != nil {
		panic(fmt.Sprintf("create a pipe: %v", err))
	}
	return lifeline{read, write}
})

// tie makes a walhook process exit when the writing end of the pipe is closed.
func (l lifeline) tie(cmd *exec.Cmd) {
	cmd.ExtraFiles = []*os.File{l.read}
	cmd.Env = append(cmd.Env, lifelineVariable+"=1")
}

// exitWithTests waits for the end of the process that started this one.
func exitWithTests() {
	_, _ = os.NewFile(lifelineFD, "lifeline").Read(make([]byte, 1))
	os.Exit(1)
}
