package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"walhook/cdc"
)

func newStatusCommand(env *environment) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show lag, slot health, queue depth and endpoints in trouble",
		Long:  "Shows where the stream and the queue stand, from the databases alone: it does not ask a daemon. Exit status 1 when something is wrong.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.config()
			if err != nil {
				return err
			}
			o, err := cdc.Observe(cmd.Context(), cfg.sourceURL(), cfg.storeURL(), cfg.Slot)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if asJSON {
				if err := json.NewEncoder(w).Encode(o); err != nil {
					return err
				}
			} else {
				printObservation(w, cfg.Slot, o)
			}
			if !o.OK {
				return errSilent
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printObservation(w io.Writer, slot string, o *cdc.Observation) {
	fmt.Fprintf(w, "slot        %s: %s, %s\n", slot, o.SlotStatus, map[bool]string{true: "read by a daemon", false: "read by nobody"}[o.SlotActive])
	fmt.Fprintf(w, "lag         %d bytes of WAL are held back; the stored position is %s\n", o.LagBytes, o.Position)
	fmt.Fprintf(w, "daemons     %d\n", o.Daemons)
	if !o.SwitchedOn {
		fmt.Fprintln(w, "switch      webhooks are switched off: nothing is queued and nothing is sent")
	}
	fmt.Fprintf(w, "queue       %s pending, the oldest for an enabled webhook since %.0f s\n", cdc.PendingText(o.Pending, o.Estimated), o.OldestSeconds)
	for _, e := range o.Endpoints {
		fmt.Fprintf(w, "in trouble  %s: %d failures in a row, %s\n", e.Host, e.Failures, e.Error)
	}
	if more := o.Troubled - int64(len(o.Endpoints)); more > 0 {
		fmt.Fprintf(w, "in trouble  and %d other endpoints\n", more)
	}
	for _, i := range o.Incidents {
		fmt.Fprintf(w, "incident    %s since %s: %s\n", i.Kind, i.At.UTC().Format("2006-01-02 15:04:05Z"), i.Detail)
	}
}
