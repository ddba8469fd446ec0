// Command bench compares walhook with baselines measured on the same machine in the same run: the cost of minimal
// equivalent work without walhook. It starts its own servers and receiver, prints a table of ratios, and removes
// everything.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const usage = `Compares walhook with baselines measured on the same machine in the same run, and prints a table of ratios.

  go run ./cmd/bench                      all measurements but pages and curves; takes some minutes
  go run ./cmd/bench -only deliver,drain  some measurements
  go run ./cmd/bench -scale 0.01          a short run, to see that it works
  go run ./cmd/bench -json > run.json     as JSON

A baseline is the cost of the minimal equivalent work without walhook. Compare ratios, never absolute figures: those
depend on the machine and its load. BENCHMARKS.md explains how to read them.

It needs Go, PostgreSQL's server (see PGBIN in CONTRIBUTING.md) and its client programs pg_recvlogical and pgbench.

`

func main() {
	if len(os.Args) > 1 && os.Args[1] == receiverArgument {
		if err := serveReceiver(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.Usage = func() {
		fmt.Fprint(progress, usage)
		flags.PrintDefaults()
		fmt.Fprintln(progress, "\nMeasurements:")
		for _, m := range measurements {
			fmt.Fprintf(progress, "  %-9s %s\n", m.name, m.what)
		}
	}
	scale := flags.Float64("scale", 1, "multiplies the sizes of all measurements")
	only := flags.String("only", "", "measurements to run, separated by commas; empty: all but pages and curves")
	curve := flags.String("curve", "", "run only the first curve and those with this text in their name")
	asJSON := flags.Bool("json", false, "print JSON instead of a table")
	binary := flags.String("walhook", "", "the walhook binary to measure; empty: build it from this source")
	cpu := flags.String("cpu", "", "write a CPU profile of all measured daemons to this file, in pprof format")
	allocs := flags.String("allocs", "", "write a profile of their allocations to this file, in pprof format")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *scale <= 0 {
		return fmt.Errorf("-scale is %g but must be greater than 0", *scale)
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	b := &bench{
		scale: *scale, curves: *curve, walhook: *binary, cpu: *cpu, allocs: *allocs,
		log: func(format string, args ...any) { fmt.Fprintf(progress, format+"\n", args...) },
	}
	defer b.close()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	report := Report{At: time.Now().UTC().Truncate(time.Second), Machine: machine(), Scale: *scale}
	for _, m := range chosen {
		b.log("%s: %s ...", m.name, m.what)
		began := time.Now()
		results, err := m.run(ctx, b)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		b.log("%s: done in %s", m.name, time.Since(began).Round(time.Second))
		report.Results = append(report.Results, results...)
	}
	if err := b.mergeProfiles(ctx); err != nil {
		return err
	}
	report.Server = b.version
	if *asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	return report.print(out)
}

// measurement measures something, and its baseline.
type measurement struct {
	name, what string
	run        func(context.Context, *bench) ([]Result, error)
	extra      bool // runs only if requested by name
}

var measurements = []measurement{
	{name: "deliver", what: "events queued, sent and logged, against a bare loop of POSTs", run: measureDeliver},
	{name: "drain", what: "page saves that fire nothing, against pg_recvlogical", run: measureDrain},
	{name: "queue", what: "queued events, against pg_recvlogical", run: measureQueue},
	{name: "latency", what: "from the application's statement to the POST, against the statement alone", run: measureLatency},
	{name: "memory", what: "resident memory: live, in one large transaction, with a backlog, with many webhooks", run: measureMemory},
	{name: "attach", what: "attach and reconcile, against COPY piped to COPY", run: measureAttach},
	{name: "harm", what: "the application's commits, and WAL retained while an endpoint is dead", run: measureHarm},
	{name: "pages", what: "the pages of the console and the requests of the API on a full store, and its memory", run: measurePages, extra: true},
	{name: "curves", what: "how queueing and delivery grow with log, webhooks, URLs and daemons", run: measureCurves, extra: true},
}

func choose(only string) ([]measurement, error) {
	var chosen []measurement
	if only == "" {
		for _, m := range measurements {
			if !m.extra {
				chosen = append(chosen, m)
			}
		}
		return chosen, nil
	}
	var names []string
	for _, m := range measurements {
		names = append(names, m.name)
	}
	for name := range strings.SplitSeq(only, ",") {
		found := false
		for _, m := range measurements {
			if m.name == name {
				chosen, found = append(chosen, m), true
			}
		}
		if !found {
			return nil, fmt.Errorf("-only names the unknown measurement %q; the measurements are %s", name, strings.Join(names, ", "))
		}
	}
	return chosen, nil
}
