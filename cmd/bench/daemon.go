package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// daemon is a running walhook run or walhook console.
type daemon struct {
	cmd    *exec.Cmd
	sign   string        // what its log says once it works
	works  chan struct{} // closed then
	exited chan struct{}

	mu   sync.Mutex
	said string   // the line with the sign
	tail []string // of its log
}

// start starts walhook run. The site stops it.
func (s *site) start(ctx context.Context, env ...string) (*daemon, error) {
	return s.launch(ctx, "run", "msg=streaming", env...)
}

// launch starts a command of walhook that runs until the site stops it.
func (s *site) launch(ctx context.Context, command, sign string, env ...string) (*daemon, error) {
	d := &daemon{cmd: exec.CommandContext(ctx, s.b.walhook, command), sign: sign, works: make(chan struct{}), exited: make(chan struct{})}
	d.cmd.Env = slices.Concat(s.env, s.b.profileOf(), env)
	logs, err := d.cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start walhook %s: %w", command, err)
	}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start walhook %s: %w", command, err)
	}
	go func() {
		d.follow(logs)
		_ = d.cmd.Wait()
		close(d.exited)
	}()
	s.closes = append(s.closes, d.stop)
	return d, nil
}

// follow reads the log to its end.
func (d *daemon) follow(logs io.Reader) {
	var once sync.Once
	for scanner := bufio.NewScanner(logs); scanner.Scan(); {
		line := scanner.Text()
		if strings.Contains(line, d.sign) {
			once.Do(func() {
				d.mu.Lock()
				d.said = line
				d.mu.Unlock()
				close(d.works)
			})
		}
		d.mu.Lock()
		d.tail = append(d.tail[max(len(d.tail)-20, 0):], line)
		d.mu.Unlock()
	}
}

// ready waits until it works.
func (d *daemon) ready(ctx context.Context) error {
	select {
	case <-d.works:
		return nil
	case <-d.exited:
		d.mu.Lock()
		defer d.mu.Unlock()
		return fmt.Errorf("%w:\n%s", errEnded, strings.Join(d.tail, "\n"))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stop stops the daemon cleanly, or kills it after a while. It may be called repeatedly.
func (d *daemon) stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(30 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.exited
	}
}

// resident returns the daemon's resident memory in MiB, now and at its peak.
func (d *daemon) resident() (now, peak float64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read the daemon's memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		kB, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		switch {
		case err != nil:
		case name == "VmRSS":
			now = kB / 1024
		case name == "VmHWM":
			peak = kB / 1024
		}
	}
	return now, peak, nil
}
