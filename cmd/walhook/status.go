package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"walhook/cdc"
)

func newStatusCommand(env *environment) *cobra.Command {
	var asJSON bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show lag, slot health, queue depth and endpoints in trouble",
		Long: `Shows where the stream and the queue stand, from the databases alone: it does not ask a daemon. Exit status 1 when something is
wrong.

--watch looks again and again, every 2 s or as often as --watch=INTERVAL says, until Ctrl-C, which ends it with status 0. On a
terminal it draws the same lines anew; elsewhere an empty line stands between one look and the next. Databases that cannot be
reached are said, and asked again.

--json prints one object on one line, which docs/operations.md describes; with --watch, a line for each look.`,
		Example: "  walhook status --watch=10s\n  walhook status --watch --json | jq -c '{at, pending}'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			watching := cmd.Flags().Changed("watch")
			if watching && every < shortestWatch {
				return &usageError{fmt.Errorf("--watch=%s is not accepted: a duration of at least %s, such as 2s", every, shortestWatch)}
			}
			cfg, err := env.config()
			if err != nil {
				return err
			}
			if watching {
				w := &watch{out: cmd.OutOrStdout(), cfg: cfg, every: every, json: asJSON}
				return w.run(cmd.Context())
			}
			o, err := cdc.Observe(cmd.Context(), cfg.sourceURL(), cfg.storeURL(), cfg.Slot)
			if err != nil {
				return err
			}
			if asJSON {
				if err := json.NewEncoder(cmd.OutOrStdout()).Encode(o); err != nil {
					return err
				}
			} else {
				printObservation(cmd.OutOrStdout(), cfg.Slot, o)
			}
			if !o.OK {
				return errSilent
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().DurationVar(&every, "watch", 0, "look again and again, this often")
	cmd.Flags().Lookup("watch").NoOptDefVal = "2s"
	return cmd
}

func printObservation(w io.Writer, slot string, o *cdc.Observation) {
	fmt.Fprintf(w, "slot        %s: %s, %s\n", slot, o.SlotStatus, map[bool]string{true: "read by a daemon", false: "read by nobody"}[o.SlotActive])
	fmt.Fprintf(w, "lag         %s of WAL are held back; the stored position is %s\n", cdc.BytesText(o.LagBytes), o.Position)
	fmt.Fprintf(w, "daemons     %d\n", o.Daemons)
	if !o.SwitchedOn {
		fmt.Fprintln(w, "switch      webhooks are switched off: nothing is queued and nothing is sent")
	}
	fmt.Fprintf(w, "queue       %s pending", cdc.PendingText(o.Pending, o.Estimated))
	if o.OldestSeconds > 0 {
		fmt.Fprintf(w, ", the oldest for an enabled webhook since %.0f s", o.OldestSeconds)
	}
	fmt.Fprintln(w)
	for _, e := range o.Endpoints {
		fmt.Fprintf(w, "in trouble  %s (webhook %s): %s, %s\n", e.Host, strings.Trim(fmt.Sprint(e.Webhooks), "[]"), failuresText(e.Failures), oneLine(e.Error, shortLine))
	}
	if more := o.Troubled - int64(len(o.Endpoints)); more > 0 {
		fmt.Fprintf(w, "in trouble  and %d other endpoints\n", more)
	}
	for _, i := range o.Incidents {
		fmt.Fprintf(w, "incident    %s since %s: %s\n", i.Kind, i.At.UTC().Format(clock), i.Detail)
	}
	for _, problem := range o.Problems {
		fmt.Fprintf(w, "WRONG       %s\n", problem)
	}
}

func failuresText(n int) string {
	if n == 1 {
		return "1 failure"
	}
	return fmt.Sprintf("%d failures in a row", n)
}

// clock is how people are told a time, in UTC.
const clock = "2006-01-02 15:04:05Z"
