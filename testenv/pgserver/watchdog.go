package pgserver

import (
	"fmt"
	"io"
	"os/exec"
	"sync"
)

// watchScript reads the postmaster's pid, and an empty line when it has ended, until its input ends. That comes with the end
// of the process that holds the other side, however it ends. An orphan is then stopped, and the folder removed: a
// postmaster whose pid did not arrive in time ends within a minute of that by itself.
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

// watch lets a watchdog look after a folder, and after the server that will be named to it.
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

// guard names the postmaster to end.
func (w *watchdog) guard(pid int) { w.tell(fmt.Sprintln(pid)) }

// rest says that the postmaster has ended, and that its pid may become somebody else's.
func (w *watchdog) rest() { w.tell("\n") }

func (w *watchdog) tell(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = io.WriteString(w.input, line)
}

// end lets the watchdog finish, and waits for it.
func (w *watchdog) end() {
	_ = w.input.Close()
	_ = w.cmd.Wait()
}
