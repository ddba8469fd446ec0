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
		Long: `Shows where the stream and the queue stand, from the databases alone: it does not ask a daemon. Exit status 1 when something is
wrong: each line begins with its verdict, and "fail" is what is wrong.

--watch looks again and again, every 2 s or as often as --watch=INTERVAL says, until Ctrl-C, which ends it with status 0. On a
terminal it draws the same lines anew; elsewhere an empty line stands between one look and the next.

--json prints one object on one line, which docs/reference/status.md describes; with --watch, a line for each look.`,
		Example: "  walhook status --watch=10s\n  walhook status --watch --json | jq -c '{at, pending}'",
		Args:    cobra.NoArgs,
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
	cmd.Flags().Var(&every, "watch", "look again and again, this often")
	flag := cmd.Flags().Lookup("watch")
	flag.DefValue, flag.NoOptDefVal = "", "2s" // without the flag it looks once
	return cmd
}

func printObservation(w io.Writer, o *setup.Observation) {
	for _, l := range o.Lines {
		fmt.Fprintf(w, "%-4s  %-10s  %s\n", l.Verdict, l.Name, oneLine(l.Text, longestReason))
	}
}

// clock is how people are told a time, in UTC.
const clock = "2006-01-02 15:04:05Z"
