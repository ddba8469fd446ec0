package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"walhook/cdc"
)

func newPlanCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "plan",
		Short: "Print the SQL that attach would run, and what it refuses; changes nothing",
		Long: `Prints, as a script with comments, the exact SQL that attach would run, what it would refuse and why, which columns
leave the database, what each statement locks, and the SQL that undoes it all. It reads the catalog and changes nothing.

A DBA may run the first part by hand, as the owner of the tables; attach then finishes as a role with fewer rights.`,
		Example: "  walhook plan > attach.sql",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.config()
			if err != nil {
				return err
			}
			p, err := cdc.MakePlan(cmd.Context(), cfg.sourceURL(), cfg.storeURL(), cfg.target())
			if err != nil {
				return err
			}
			printPlan(cmd.OutOrStdout(), p, cfg)
			if len(p.Refusals) > 0 {
				return errSilent
			}
			return nil
		},
	}
}

func printPlan(w io.Writer, p *cdc.Plan, cfg *Config) {
	comment := func(format string, args ...any) {
		for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
			fmt.Fprintln(w, strings.TrimRight("-- "+line, " "))
		}
	}
	comment("walhook %s: what attach does with this configuration. Nothing has been changed.", Version())
	for _, f := range p.Preflight.Findings {
		comment("%-5s %s", f.Level, f.Found)
	}
	if len(p.Refusals) > 0 {
		fmt.Fprintln(w)
		comment("attach REFUSES:")
		for _, f := range p.Refusals {
			comment("  %s", f.Found)
			if f.Remedy != "" {
				comment("    %s", f.Remedy)
			}
		}
	}
	if p.Attached {
		fmt.Fprintln(w)
		comment("Everything is attached already: attach would only reinstall the schema's functions, views and grants.")
	}
	m := cfg.mapping()
	fmt.Fprintln(w)
	comment("Columns that are stored: %s of %s.", strings.Join(m.RespondentColumns(), ", "), m.Respondent.Display())
	if m.HasAssessmentTable() {
		comment("  and %s of %s.", strings.Join(m.AssessmentColumns(), ", "), m.AssessmentTable.Display())
	}
	if cfg.Publish == cdc.PublishAll {
		comment("With WALHOOK_PUBLISH=all the server sends whole rows to the daemon, which drops all other columns unread as it decodes.\n" +
			"No migration of the application meets the publication.")
	} else {
		comment("With WALHOOK_PUBLISH=mapped only these (and the replica identity's) leave the database. PostgreSQL then refuses to drop or\n" +
			"retype a listed column, and refuses the application's updates if the replica identity is ever set to FULL.")
	}
	part := func(title, text string) {
		if text == "" {
			return
		}
		fmt.Fprintln(w)
		comment("%s", title)
		fmt.Fprintln(w, strings.TrimRight(text, "\n"))
	}
	part("1. In the application's database, by the owner of the tables or a superuser. CREATE PUBLICATION takes SHARE UPDATE EXCLUSIVE\n"+
		"on each table: it waits for no reader and no writer, and none waits for it.", p.Owner)
	part("2. In the store, by a role that may create the schema. It touches nothing of the application.", p.Store)
	if p.Attached {
		return
	}
	if p.Slot != "" {
		fmt.Fprintln(w)
		comment("3. By attach itself, over a replication connection, as a role with REPLICATION. It waits until every transaction that\n"+
			"is running has ended; it takes no lock.\n  %s", p.Slot)
		comment("4. By attach itself, at that slot's snapshot, in a read-only transaction. ACCESS SHARE, as any SELECT.\n  %s",
			strings.ReplaceAll(strings.TrimSpace(p.Snapshot), "\n", "\n  "))
	}
	part("To undo it all (walhook detach --drop-schema):", commented(p.Undo))
}

func commented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("--   " + line)
	}
	return b.String()
}
