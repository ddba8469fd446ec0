package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"walhook/cdc/catalog"
	"walhook/cdc/setup"
)

func newDoctorCommand(env *Environment) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check every precondition and hazard, each with its remedy",
		Long: `Checks the application's database and the store, before or after attach, and prints each finding as ok, warn or fail, with what
to do. It changes nothing. docs/reference/doctor.md lists all checks.

Exit status 0: nothing fails. 1: a check fails; the checks source_connection and store_connection are those of a database that cannot be
reached. 2: a flag or a variable is wrong.

--json prints {"findings": [{"check", "level", "found", "remedy"}, ...]}; the names of the checks are stable.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.config()
			if err != nil {
				return err
			}
			findings := setup.Examine(cmd.Context(), setup.ExamineConfig{
				SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Target: cfg.target(),
				Retention: time.Duration(cfg.Retention), MaxSlotLag: int64(cfg.MaxSlotLag),
			})
			if cfg.CAFile != "" {
				findings = append(findings, examineCAFile(cfg.CAFile))
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"findings": findings})
			} else {
				printFindings(cmd.OutOrStdout(), findings)
			}
			for _, f := range findings {
				if f.Level == catalog.Fail && err == nil {
					return errSilent
				}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// examineCAFile checks the file that run would read on this host.
func examineCAFile(file string) catalog.Finding {
	const check = "ca_file"
	if _, err := rootCAs(file); err != nil {
		return catalog.Finding{
			Check: check, Level: catalog.Fail, Found: "no daemon starts on this host: " + err.Error(),
			Remedy: "name a PEM file with the authorities that issue the receivers' certificates",
		}
	}
	return catalog.Finding{Check: check, Level: catalog.OK, Found: "the certificates in " + file + " can be read"}
}

func printFindings(w io.Writer, findings []catalog.Finding) {
	count := map[catalog.Level]int{}
	for _, f := range findings {
		fmt.Fprintf(w, "%-4s  %-28s %s\n", f.Level, f.Check, strings.ReplaceAll(f.Found, "\n", "\n"+strings.Repeat(" ", 35)))
		if f.Remedy != "" && f.Level != catalog.OK {
			fmt.Fprintf(w, "      %-28s -> %s\n", "", strings.ReplaceAll(f.Remedy, "\n", "\n"+strings.Repeat(" ", 38)))
		}
		count[f.Level]++
	}
	fmt.Fprintf(w, "%d ok, %d warn, %d fail\n", count[catalog.OK], count[catalog.Warn], count[catalog.Fail])
}
