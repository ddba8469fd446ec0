package main

import (
	"encoding/json"
	"fmt"

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
				fmt.Fprintf(w, "slot        %s: %s, %s\n", cfg.Slot, o.SlotStatus, map[bool]string{true: "read by a daemon", false: "read by nobody"}[o.SlotActive])
				fmt.Fprintf(w, "lag         %d bytes of WAL are held back; the stored position is %s\n", o.LagBytes, o.Position)
				fmt.Fprintf(w, "daemons     %d\n", o.Daemons)
				fmt.Fprintf(w, "queue       %d pending, the oldest since %.0f s\n", o.Pending, o.OldestSeconds)
				for _, e := range o.Endpoints {
					fmt.Fprintf(w, "in trouble  %s: %d failures in a row, %s\n", e.Host, e.Failures, e.Error)
				}
				for _, i := range o.Incidents {
					fmt.Fprintf(w, "incident    %s since %s: %s\n", i.Kind, i.At.UTC().Format("2006-01-02 15:04:05Z"), i.Detail)
				}
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
