package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"walhook/cdc/catalog"
	"walhook/cdc/setup"
	"walhook/session"
)

func newPlanCommand(env *Environment) *cobra.Command {
	var role, schemaFile string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Print the SQL that attach would run, and what it refuses; changes nothing",
		Long: `Prints the SQL of attach as a script for psql. It begins with a summary. Comments contain everything else: what attach would refuse
and why, the size of the table and an estimate of how long its snapshot takes, the columns that leave the database, what each statement
locks and whom it can block, and the SQL that undoes it all. It reads the catalog and some rows, and changes nothing.

The script has two parts. The owner of the tables or a superuser must run the first; it grants the daemon's role the rights that it
lacks, and nothing more. The second creates the schema walhook, and is most of the script. The daemon's role may run it, and attach runs it
in any case. --schema writes it to a file of its own, which the script includes; keep both files in one folder.

With --role the script is written for a daemon's role, and creates it if it does not exist; a DBA runs the script, and attach and run then
need only that role. If the store is on another server, run the same script there too: each part detects where it runs.

walhook preview shows beforehand what the mapping makes of the rows that exist.

Exit status 1, with the reasons on stderr, if attach as the role in WALHOOK_DATABASE_URL would refuse.`,
		Example: `  walhook plan --role walhook > attach.sql
  walhook plan --role walhook --schema schema.sql > attach.sql
  psql -v ON_ERROR_STOP=1 -f attach.sql
  sed -n 's/^--undo //p' attach.sql > undo.sql`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.config()
			if err != nil {
				return err
			}
			p, err := setup.MakePlan(cmd.Context(), setup.PlanConfig{
				SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Target: cfg.target(), Role: role,
			})
			if err != nil {
				return err
			}
			if err := (&planPrinter{w: cmd.OutOrStdout(), plan: p, cfg: cfg, schemaFile: schemaFile}).print(); err != nil {
				return err
			}
			return wouldRefuse(p)
		},
	}
	cmd.Flags().StringVar(&role, "role", "",
		"the daemon's role; default: the one in WALHOOK_DATABASE_URL (WALHOOK_STORE_URL in a store elsewhere)")
	cmd.Flags().StringVar(&schemaFile, "schema", "", "write the schema walhook to this file, and include it")
	return cmd
}

// wouldRefuse returns the error of a plan whose attach would refuse. The remedies are in the script, which often goes to a file.
func wouldRefuse(p *setup.Plan) error {
	if len(p.Refusals) == 0 {
		return nil
	}
	reasons := make([]string, len(p.Refusals))
	for i, f := range p.Refusals {
		reasons[i] = f.Found
	}
	return fmt.Errorf("attach as role %s would refuse: %s; the plan has the remedies", p.Preflight.User, strings.Join(reasons, "; "))
}

// planPrinter writes a plan as a script.
type planPrinter struct {
	w          io.Writer
	plan       *setup.Plan
	cfg        *Config
	schemaFile string // holds part 2; "": the script does
}

func (p *planPrinter) comment(format string, args ...any) {
	p.prefixed("-- ", fmt.Sprintf(format, args...))
}

func (p *planPrinter) prefixed(prefix, text string) {
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprintln(p.w, strings.TrimRight(prefix+line, " "))
	}
}

func (p *planPrinter) blank() { fmt.Fprintln(p.w) }

func (p *planPrinter) print() error {
	p.comment("walhook %s: what attach does with this configuration. Nothing has been changed.", Version())
	p.refusals()
	if p.plan.Role != p.plan.Preflight.User {
		p.comment("Planned as role %s, for the daemon's role %s.", p.plan.Preflight.User, p.plan.Role)
	} else {
		p.comment("Planned as role %s, which is to attach and to run the daemon.", p.plan.Role)
		p.comment("This is what attach runs as this role. walhook plan --role NAME prints what lets a role with fewer rights attach.")
	}
	if p.plan.Elsewhere {
		p.comment("The application's database is %s; the store is %s, for the role %s there. Run this script in both: each part detects where it runs.",
			p.plan.Source.Address, p.plan.Store.Address, p.plan.StoreRole)
	}
	p.summary()
	if !p.plan.Copy {
		p.comment("Run it by: psql -v ON_ERROR_STOP=1 -f FILE")
		p.comment("If it stops halfway, what it has done stays; the next plan prints what is left to do.")
	}
	p.lines("", p.onlyHere())
	p.lines("", []string{`set client_min_messages = warning; \set QUIET on`})
	p.stop()
	p.blank()
	for _, f := range p.plan.Preflight.Findings {
		p.comment("%-5s %s", f.Level, f.Found)
	}
	if p.plan.Copy {
		return nil
	}
	p.about()
	p.parts("1. To be run by the owner of the tables or a superuser. If you run attach as such a role, it does this itself, and that role then owns\nschema and publication.", p.plan.Owners)
	if len(p.plan.Rest) > 0 {
		p.blank()
		p.comment("After parts 1 and 2, only attach itself can do this, because it needs the snapshot that the slot exports. To be read, not to be run:")
		for _, step := range p.plan.Rest {
			p.comment("")
			p.comment("%s", step.Note)
			p.prefixed("--   ", step.SQL)
		}
	}
	p.undo()
	schema, err := p.separateSchema()
	if err != nil {
		return err
	}
	p.parts("2. To be run by the daemon's role, or the schema's owner. If you skip it, attach does it. A script run by somebody who may not SET ROLE\nto that role skips it by itself.", schema)
	return nil
}

// separateSchema writes part 2 to schemaFile, if set, and returns the part of the script that includes it.
func (p *planPrinter) separateSchema() ([]setup.PlanPart, error) {
	if p.schemaFile == "" || len(p.plan.Daemon) == 0 {
		return p.plan.Daemon, nil
	}
	var file strings.Builder
	file.WriteString("-- The schema walhook. The script of walhook plan includes this file, which is not to be run by itself.\n")
	part := p.plan.Daemon[0] // there is one store
	for _, step := range part.Steps {
		file.WriteString(step.SQL + "\n")
	}
	if err := os.WriteFile(p.schemaFile, []byte(file.String()), 0o644); err != nil {
		return nil, fmt.Errorf("write the schema: %w", err)
	}
	note := part.Steps[0].Note + " The file is in the folder of this script."
	part.Steps = []setup.PlanStep{{Note: note, SQL: `\ir '` + strings.ReplaceAll(filepath.Base(p.schemaFile), "'", "''") + "'"}}
	return []setup.PlanPart{part}, nil
}

// summary prints what the script does, in plain words.
func (p *planPrinter) summary() {
	if p.plan.Copy {
		p.copySummary()
		return
	}
	var items []string
	for _, part := range p.plan.Owners {
		who := "the owner of the tables or a superuser"
		if p.plan.Elsewhere && part.In == p.plan.Store {
			who = "a superuser, or a role with CREATEROLE and CREATE on the database"
		}
		items = append(items, fmt.Sprintf("Part 1 in %s, by %s, %s.", part.In.Address, who, summarize(part.Steps)))
	}
	for _, part := range p.plan.Daemon {
		where := "at the end of this script"
		if p.schemaFile != "" {
			where = "in the file " + p.schemaFile
		}
		items = append(items, fmt.Sprintf("Part 2 in %s, by role %s or by attach, creates or updates the tables, views, functions and grants of the schema walhook, %s.", part.In.Address, part.As, where))
	}
	if len(p.plan.Rest) > 0 {
		items = append(items, fmt.Sprintf("walhook attach creates the replication slot %q, reads the mapped columns of %s at its snapshot, and stores the state of its rows.",
			p.cfg.Slot, p.cfg.mapping().Respondent.Display()))
	}
	if len(items) == 0 {
		return
	}
	p.comment("")
	p.comment("What is done, in this order:")
	for i, item := range items {
		p.comment("  %d. %s", i+1, wrap(item, 130, "     "))
	}
	p.comment("No table of the application is altered. The lines that begin with %s undo it all.", strings.TrimSpace(undoPrefix))
	p.comment("")
}

func (p *planPrinter) copySummary() {
	p.comment("")
	p.comment("There is nothing to run in a copy. What the two ways on do, in this database and its store alone:")
	p.comment("  walhook attach --adopt: upgrades the schema, creates slot %s and what is missing of publication %s, compares the rows\n"+
		"    with the recorded state, fires what was missed, and records this database as the original.", p.cfg.Slot, p.cfg.Publication)
	p.comment("  walhook attach --fresh: the same schema, slot and publication; deletes every pending delivery, disables every webhook,\n" +
		"    and records the state of the rows from scratch, which fires nothing.")
	p.comment("")
}

var (
	createdObject = regexp.MustCompile(`^create (?:or replace )?(role|schema|function|publication) ((?:"(?:[^"]|"")*"|[\w.])+)`)
	roleAttribute = regexp.MustCompile(`^alter role (.*) (\w+)$`)
	otherChange   = regexp.MustCompile(`^(grant|alter|drop) (.*)`)
)

// summarize names what the statements create, grant and change, in their order.
func summarize(steps []setup.PlanStep) string {
	var done []string
	for _, step := range steps {
		for line := range strings.SplitSeq(step.SQL, "\n") {
			line = strings.TrimSuffix(line, ";")
			if match := createdObject.FindStringSubmatch(line); match != nil {
				done = append(done, "creates "+match[1]+" "+match[2])
			} else if match := roleAttribute.FindStringSubmatch(line); match != nil {
				done = append(done, "gives role "+match[1]+" "+strings.ToUpper(match[2]))
			} else if match := otherChange.FindStringSubmatch(line); match != nil {
				done = append(done, match[1]+"s "+match[2])
			}
		}
	}
	return strings.Join(done, "; ")
}

func (p *planPrinter) refusals() {
	if len(p.plan.Refusals) == 0 {
		return
	}
	blocked := len(p.plan.Blockers()) > 0
	if blocked {
		p.comment("attach as role %s would refuse, so this script does nothing:", p.plan.Preflight.User)
	} else {
		p.comment("attach as role %s would refuse:", p.plan.Preflight.User)
	}
	for _, f := range p.plan.Refusals {
		p.comment("  %s", f.Found)
		if f.Remedy != "" {
			p.comment("    %s", f.Remedy)
		}
	}
	switch {
	case blocked:
		p.comment("Remedy that, and make a new plan.")
	case len(p.plan.Owners) > 0 && p.plan.Role == p.plan.Preflight.User:
		p.comment("Part 1 below gives the role the rights that it lacks.")
	}
}

// stop makes a script fail that must not be run.
func (p *planPrinter) stop() {
	blockers := p.plan.Blockers()
	if len(blockers) == 0 {
		return
	}
	reasons := make([]string, len(blockers))
	for i, f := range blockers {
		reasons[i] = f.Found
	}
	p.lines("", []string{
		"do $walhook$ begin",
		"  raise exception 'attach would refuse: %', " + session.QuoteLiteral(strings.Join(reasons, "; ")),
		"    using hint = 'Nothing was changed. The comments of this script have the remedies; then make a new plan.';",
		"end $walhook$;",
	})
}

// about prints which columns leave the database, and how long the snapshot takes.
func (p *planPrinter) about() {
	m := p.cfg.mapping()
	p.blank()
	if p.plan.Attached {
		p.comment("Everything is attached already. attach would only reinstall the schema's functions, views and grants.")
	}
	p.comment("Columns that are stored: %s of %s.", strings.Join(m.RespondentColumns(), ", "), m.Respondent.Display())
	if m.HasAssessmentTable() {
		p.comment("  and %s of %s.", strings.Join(m.AssessmentColumns(), ", "), m.AssessmentTable.Display())
	}
	if p.cfg.Publish == catalog.PublishAll {
		p.comment("Columns that leave the database: all, because of WALHOOK_PUBLISH=all. The server sends whole rows to the daemon, which drops the other\n" +
			"columns as it decodes. No migration of the application is affected by the publication.")
	} else {
		p.comment("Columns that leave the database: these and the replica identity's, because of WALHOOK_PUBLISH=mapped. PostgreSQL then refuses to drop\n" +
			"or retype a listed column, and refuses the application's updates if the replica identity is ever set to FULL.")
	}
	if !p.plan.Attached {
		p.comment("walhook preview shows what this mapping makes of the rows that exist.")
	}
	if p.plan.Snapshot != "" {
		p.comment("%s", p.plan.Snapshot)
	}
}

func (p *planPrinter) parts(title string, parts []setup.PlanPart) {
	if len(parts) == 0 {
		return
	}
	p.blank()
	p.comment("%s", title)
	for _, part := range parts {
		p.blank()
		p.comment("In database %s, at %s:", part.In.Database, part.In.Address)
		if p.plan.Elsewhere {
			p.lines("", here(part.In, "walhook_here"))
		}
		if part.As != "" {
			p.lines("", []string{
				fmt.Sprintf("select %s as walhook_may \\gset", setup.MaySetRole(session.QuoteLiteral(part.As))),
				`\if :walhook_may`, "set role " + identifier(part.As) + ";",
			})
		}
		for _, step := range part.Steps {
			if step.Note != "" {
				p.comment("%s", step.Note)
			}
			fmt.Fprintln(p.w, strings.TrimRight(step.SQL, "\n"))
		}
		if part.As != "" {
			p.lines("", []string{"reset role;", `\endif`})
		}
		if p.plan.Elsewhere {
			p.lines("", []string{`\endif`})
		}
	}
}

// onlyHere returns the head of a script. It pins the settings as walhook's own sessions do, and fails in any other database.
func (p *planPrinter) onlyHere() []string {
	places := []catalog.Place{p.plan.Source}
	if p.plan.Elsewhere {
		places = append(places, p.plan.Store)
	}
	known, names := make([]string, len(places)), make([]string, len(places))
	for i, place := range places {
		known[i], names[i] = in(place), place.Address
	}
	return slices.Concat([]string{`\set ON_ERROR_STOP on`}, session.PinScript(), []string{
		"do $walhook$ begin",
		"  if not (select " + strings.Join(known, " or ") + " from pg_control_system()) then",
		"    raise exception 'this script is for %, and this is another database (%)', " + session.QuoteLiteral(strings.Join(names, " and ")) + ", current_database();",
		"  end if;",
		"end $walhook$;",
	})
}

// in returns the condition that a session is in this database, for a query of pg_control_system().
func in(place catalog.Place) string {
	return fmt.Sprintf("system_identifier = %s and current_database() = %s", place.System, session.QuoteLiteral(place.Database))
}

// here begins a part of the script for one database only.
func here(place catalog.Place, variable string) []string {
	return []string{
		fmt.Sprintf("select %s as %s from pg_control_system() \\gset", in(place), variable),
		`\if :` + variable,
	}
}

func (p *planPrinter) lines(prefix string, lines []string) {
	for _, line := range lines {
		p.prefixed(prefix, line)
	}
}

const undoPrefix = "--undo "

func (p *planPrinter) undo() {
	if len(p.plan.Undo) == 0 {
		return
	}
	p.blank()
	p.comment("What undoes all this. Stop the daemons first, and run it as you ran part 1. Keep it: a later plan does not know what this one created.")
	p.comment("  sed -n 's/^%s//p' FILE > undo.sql", undoPrefix)
	p.lines(undoPrefix, p.onlyHere())
	for _, part := range p.plan.Undo {
		p.prefixed(undoPrefix, fmt.Sprintf("-- In database %s, at %s:", part.In.Database, part.In.Address))
		if p.plan.Elsewhere {
			p.lines(undoPrefix, here(part.In, "walhook_here"))
		}
		for _, step := range part.Steps {
			p.prefixed(undoPrefix, step.SQL)
		}
		if p.plan.Elsewhere {
			p.lines(undoPrefix, []string{`\endif`})
		}
	}
}

func identifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
