package pgserver

import (
	"fmt"
	"io"
	"os/exec"
	"sync"
)

// watchScript reads the postmaster's pid, and an empty line when it has exited, until its input is closed. That happens
// when the process at the other end exits, for whatever reason. The script then stops an orphaned postmaster and
// removes the folder. A postmaster whose pid did not arrive in time exits on its own within a minute after that.
const watchScript = `
trap '' INT TERM HUP
pid=
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
	kill -QUIT "$pid"
	for second in 1 2 3 4 5 6; do
		kill -0 "$pid" || break
		sleep 1
	done
	kill -KILL "$pid"
fi 2>/dev/null
rm -rf -- "$1"
`

// watchdog is a process that cleans up after this one.
type watchdog struct {
	cmd   *exec.Cmd
	mu    sync.Mutex
	input io.WriteCloser
}

// watch starts a watchdog for a folder, and for the server that guard names later.
func watch(folder string) (*watchdog, error) {
	cmd := exec.Command("/bin/sh", "-c", watchScript, "walhook-pg-watchdog", folder)
	cmd.Dir = "/"
	cmd.SysProcAttr = ownGroup()
	input, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start the watchdog of %s: %w", folder, err)
	}
	return &watchdog{cmd: cmd, input: input}, nil
}

// guard names the postmaster to stop.
func (w *watchdog) guard(pid int) { w.tell(fmt.Sprintln(pid)) }

// rest reports that the postmaster has exited, so its pid may be reused.
func (w *watchdog) rest() { w.tell("\n") }

func (w *watchdog) tell(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = io.WriteString(w.input, line)
}

// end makes the watchdog exit, and waits for it.
func (w *watchdog) end() {
	_ = w.input.Close()
	_ = w.cmd.Wait()
}
