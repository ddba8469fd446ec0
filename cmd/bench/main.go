// Command bench measures walhook against floors of the same machine in the same run: what the parts cost alone that walhook
// is made of. It starts servers and receivers of its own, prints one table of ratios, and leaves nothing behind.
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

const usage = `Measures walhook against the machine that it runs on, in one run, and prints a table of ratios.

  go run ./cmd/bench                      everything, some minutes
  go run ./cmd/bench -only deliver,drain  some of it
  go run ./cmd/bench -scale 0.01          a look whether it works
  go run ./cmd/bench -json > run.json     to keep

Each measurement runs beside its floor: the least that the same work costs here without walhook. Compare ratios, never
absolute figures: those belong to the machine and its mood. BENCHMARKS.md says how to read them.

Needed are Go, PostgreSQL's server (see PGBIN in CONTRIBUTING.md) and its client programs pg_recvlogical and pgbench.

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
	only := flags.String("only", "", "measurements to make, separated by commas; empty: all but curves")
	curve := flags.String("curve", "", "of the curves, those with this in their name, beside the first")
	asJSON := flags.Bool("json", false, "print JSON instead of a table")
	binary := flags.String("walhook", "", "the walhook to measure; empty: it is built from this source")
	cpu := flags.String("cpu", "", "file for a CPU profile of all daemons that are measured, in pprof's form")
	allocs := flags.String("allocs", "", "the same for what they allocated")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *scale <= 0 {
		return fmt.Errorf("-scale is %g, and must be more than 0", *scale)
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	b := &bench{scale: *scale, curves: *curve, walhook: *binary, cpu: *cpu, allocs: *allocs, log: func(format string, args ...any) { fmt.Fprintf(progress, format+"\n", args...) }}
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

// measurement is something to be measured, with its floor.
type measurement struct {
	name, what string
	run        func(context.Context, *bench) ([]Result, error)
	extra      bool // only where it is asked for by name
}

var measurements = []measurement{
	{name: "deliver", what: "events queued, sent and logged, against a bare loop of POSTs", run: measureDeliver},
	{name: "drain", what: "page saves that fire nothing, against pg_recvlogical", run: measureDrain},
	{name: "queue", what: "events that are queued, against pg_recvlogical", run: measureQueue},
	{name: "latency", what: "from the application's statement to the POST, against the statement alone", run: measureLatency},
	{name: "memory", what: "resident memory: live, in one large transaction, with a backlog, with many webhooks", run: measureMemory},
	{name: "attach", what: "attach and reconcile, against COPY piped to COPY", run: measureAttach},
	{name: "harm", what: "the application's commits, and WAL kept while an endpoint is dead", run: measureHarm},
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
			return nil, fmt.Errorf("-only names %q, which is none of %s", name, strings.Join(names, ", "))
		}
	}
	return chosen, nil
}
