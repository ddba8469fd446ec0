package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"walhook/cdc/setup"
)

func newStatusCommand(env *Environment) *cobra.Command {
	var asJSON bool
	var every duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show lag, slot health, queue depth and endpoints in trouble",
		Long: `Shows the state of stream and queue as recorded in the databases; it does not contact a daemon. Each line begins with its verdict:
ok, warn or fail.

Exit status 0: no line fails. 1: a line fails, because something is unhealthy or because a database cannot be reached. In the JSON,
"unreachable" names such databases. 2: a flag or a variable is wrong.

--watch repeats every 2 s, or as often as --watch=INTERVAL says, until Ctrl-C, and then exits with status 0. On a terminal it redraws
in place; elsewhere an empty line separates the blocks.

--json prints one object on one line, described in docs/reference/status.md; with --watch, one line each time.`,
		Example: "  walhook status --watch=10s\n  walhook status --watch --json | jq -c '{at, pending}'",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && cmd.Flags().Changed("watch") {
				return fmt.Errorf("unexpected argument %q; is --watch=%s meant?", args[0], args[0])
			}
			return cobra.NoArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			watching := cmd.Flags().Changed("watch")
			if watching && time.Duration(every) < shortestWatch {
				return &usageError{fmt.Errorf("--watch=%s is not accepted: a duration of at least %s, such as 2s", &every, shortestWatch)}
			}
			cfg, err := env.config()
			if err != nil {
				return err
			}
			if watching {
				w := &watch{out: cmd.OutOrStdout(), cfg: cfg, every: time.Duration(every), json: asJSON}
				return w.run(cmd.Context())
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), watchPatience)
			defer cancel()
			o := setup.Observe(ctx, cfg.sourceURL(), cfg.storeURL(), cfg.Slot)
			if asJSON {
				if err := json.NewEncoder(cmd.OutOrStdout()).Encode(o); err != nil {
					return err
				}
			} else {
				printObservation(cmd.OutOrStdout(), o)
			}
			if !o.OK {
				return errSilent
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().Var(&every, "watch", "repeat at this interval")
	flag := cmd.Flags().Lookup("watch")
	flag.DefValue, flag.NoOptDefVal = "", "2s" // without the flag it prints once
	return cmd
}

func printObservation(w io.Writer, o *setup.Observation) {
	for _, l := range o.Lines {
		fmt.Fprintf(w, "%-4s  %-10s  %s\n", l.Verdict, l.Name, oneLine(l.Text, longestReason))
	}
}

// clock is the layout of times for people, in UTC.
const clock = "2006-01-02 15:04:05Z"
