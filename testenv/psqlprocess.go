package testenv

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// psqlPatience bounds a script. It is only reached if something is wrong.
const psqlPatience = 2 * time.Minute

// psqlProcess is a psql that is reused for further scripts.
type psqlProcess struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	output *os.File      // its output, including errors
	lines  *bufio.Reader // of output
	runs   int           // number of scripts so far
}

// Errors that stand for psql's exit statuses: no connection, or a failed statement.
var (
	errConnect   = errors.New("exit status 2")
	errStatement = errors.New("exit status 3")
)

// runInPsql runs a script in an idle psql, or in a new one, which is kept unless it exits.
func runInPsql(path, url, script string) (string, error) {
	psql, err := readyPsql(path, url)
	if err != nil {
		return "", err
	}
	out, err := psql.run(script)
	if err == nil || errors.Is(err, errStatement) {
		psqls.put(url, psql)
	}
	return out, err
}

// readyPsql returns a psql whose session is as good as new.
func readyPsql(path, url string) (*psqlProcess, error) {
	for {
		psql, ok := psqls.take(url)
		if !ok {
			return startPsql(path, url)
		}
		// This fails if its server was restarted, or its session was terminated.
		if _, _, err := psql.until("\\set ON_ERROR_STOP 1\nrollback; discard all;\n"); err == nil {
			return psql, nil
		}
	}
}

func startPsql(path, url string) (*psqlProcess, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	cmd := psqlCommand(path, url)
	cmd.Stdout, cmd.Stderr = writer, writer
	input, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		_ = reader.Close()
		return nil, fmt.Errorf("start psql: %w", err)
	}
	return &psqlProcess{cmd: cmd, input: input, output: reader, lines: bufio.NewReader(reader)}, nil
}

// run runs a script, and returns what psql printed.
func (p *psqlProcess) run(script string) (string, error) {
	// The semicolon runs a statement that has none; at the end of its input psql does so itself.
	input := script + "\n;\n"
	if !strings.Contains(script, ";") { // nothing follows it, so psql may continue after an error
		input = "\\set ON_ERROR_STOP 0\n" + input
	}
	out, failed, err := p.until(input)
	if err == nil && failed {
		err = errStatement
	}
	return out, err
}

// until sends input to psql, and returns what it printed and whether its last statement failed. An error means that
// psql exited.
func (p *psqlProcess) until(input string) (out string, failed bool, err error) {
	p.runs++
	mark := fmt.Sprintf("-- end of script %d, failed: ", p.runs)
	deadline := time.AfterFunc(psqlPatience, func() { _ = p.cmd.Process.Kill() })
	defer deadline.Stop()
	input += "\\echo '" + mark + "':ERROR\n"
	go func() { _, _ = io.WriteString(p.input, input) }() // concurrently, since psql may print a lot before it has read everything
	var said strings.Builder
	for {
		line, err := p.lines.ReadString('\n')
		if state, ok := strings.CutPrefix(line, mark); ok {
			return strings.TrimRight(said.String(), "\n"), state == "true\n", nil
		}
		said.WriteString(line)
		if err != nil {
			if ended := p.end(); ended != nil {
				err = ended // its status
			}
			return strings.TrimRight(said.String(), "\n"), true, err
		}
	}
}

// end makes psql exit by closing its input.
func (p *psqlProcess) end() error {
	_ = p.input.Close()
	defer p.output.Close()
	return p.cmd.Wait()
}
