package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"walhook/cdc"
)

func newDoctorCommand(env *environment) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check every precondition and hazard, each with its remedy",
		Long: `Looks at the application's database and the store, before or after attach, and prints each thing that it looked at as ok,
warn or fail, with what to do. It changes nothing. Exit status 1 when anything fails.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.config()
			if err != nil {
				return err
			}
			findings, err := examine(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"findings": findings})
			} else {
				printFindings(cmd.OutOrStdout(), findings)
			}
			for _, f := range findings {
				if f.Level == cdc.Fail && err == nil {
					return errSilent
				}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// examine gathers the findings. A connection that fails is one itself.
func examine(ctx context.Context, cfg *Config) ([]cdc.Finding, error) {
	var findings []cdc.Finding
	source, err := cdc.ConnectSource(ctx, cfg.sourceURL())
	if err != nil {
		return []cdc.Finding{{Check: "source_connection", Level: cdc.Fail, Found: err.Error(), Remedy: "check WALHOOK_DATABASE_URL, pg_hba.conf and the network"}}, ctx.Err()
	}
	defer source.Close(context.WithoutCancel(ctx))
	preflight, err := cdc.Inspect(ctx, source, cfg.target())
	if err != nil {
		return nil, err
	}
	findings = append(findings, preflight.Findings...)
	if replication, err := cdc.ConnectReplication(ctx, cfg.sourceURL()); err != nil {
		findings = append(findings, cdc.Finding{Check: "replication_connection", Level: cdc.Fail, Found: err.Error(), Remedy: "allow the role in pg_hba.conf, and connect to the server itself"})
	} else {
		_ = replication.Close(context.WithoutCancel(ctx))
		findings = append(findings, cdc.Finding{Check: "replication_connection", Level: cdc.OK, Found: "a replication connection can be opened"})
	}
	return append(findings, cdc.Examine(ctx, source, cfg.storeURL(), cfg.target(), preflight)...), nil
}

func printFindings(w io.Writer, findings []cdc.Finding) {
	for _, f := range findings {
		fmt.Fprintf(w, "%-4s  %-22s %s\n", f.Level, f.Check, f.Found)
		if f.Remedy != "" && f.Level != cdc.OK {
			fmt.Fprintf(w, "      %-22s -> %s\n", "", f.Remedy)
		}
	}
}
