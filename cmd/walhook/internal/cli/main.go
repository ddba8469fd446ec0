// Package cli is the command walhook: its subcommands, its configuration, and the wiring of all other packages.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"walhook/cdc/catalog"
)

// The exit statuses.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// atExit is called before the process ends.
var atExit = func() {}

// Main is the program of a release of that version; "" is none. It does not return.
func Main(release string) {
	version = release
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as by nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	go func() {
		<-ctx.Done()
		// A second signal ends the process at once, as it would without us.
		stop()
	}()
	status := run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr)
	stop()
	atExit()
	os.Exit(status)
}

// run is the program: it takes everything from its arguments and returns the exit status.
func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	root := NewRoot(&Environment{lookup: lookup, stdout: stdout, stderr: stderr})
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var usage *usageError
	var config *ConfigError
	var misfit *catalog.MappingError
	if errors.As(err, &misfit) {
		variable := strings.TrimPrefix(misfit.Variable, Prefix+"_")
		err = badCondition(variable, misfit.Mistake.Text, misfit.Mistake)
	}
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &config):
		fmt.Fprintf(stderr, "walhook: %v\n", err)
		return ExitUsage
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "walhook: %v\n", err)
		return ExitUsage
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(stderr, "walhook: interrupted")
		return ExitFailed
	case errors.Is(err, errSilent):
		return ExitFailed
	default:
		fmt.Fprintf(stderr, "walhook: %v\n", err)
		return ExitFailed
	}
}

// errSilent ends a command with status 1 when it has said everything itself.
var errSilent = errors.New("failed")
