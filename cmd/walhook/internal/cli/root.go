package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"walhook/cdc"
)

// Environment holds the inputs of commands: variables and streams.
type Environment struct {
	lookup         func(string) (string, bool)
	stdout, stderr io.Writer

	warnOnce sync.Once
}

// config reads the configuration. Its error is a *ConfigError.
func (e *Environment) config() (*Config, error) { return e.configFor((*Config).check) }

// configFor is config with a check of its own, for commands that need other variables.
func (e *Environment) configFor(check func(*Config) error) (*Config, error) {
	e.warnOnce.Do(func() {
		for _, warning := range unknownVariables() {
			fmt.Fprintln(e.stderr, "walhook: "+warning)
		}
	})
	return readConfig(check)
}

func (e *Environment) logger(cfg *Config) *slog.Logger {
	return newLogger(e.stderr, cfg.LogLevel, cfg.LogFormat)
}

// usageError is invalid usage of the command line: exit status 2.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

func (e *usageError) Unwrap() error { return e.err }

const rootHelp = `walhook turns row changes into webhooks.

It reads PostgreSQL logical replication of the table in which an online-assessment application keeps one row per respondent,
and classifies each change as one of these events: {events}.
It finds the matching webhooks, which administrators keep in SQL in the schema walhook, POSTs a small JSON body to each,
retries failed attempts, and keeps a log in SQL. The application is not changed and does not notice.

Run these in order, with WALHOOK_DATABASE_URL set:

  walhook doctor    check that the database is ready, and what to do if it is not
  walhook preview   show what the mapping makes of the rows that exist
  walhook plan      print the SQL that attach will run
  walhook attach    run it: schema, publication, slot, state of the existing rows
  walhook run       start the daemon
  walhook console   start the page for administrators and the HTTP API

Without a database, try walhook demo.

Variables whose names begin with WALHOOK_ configure it: see walhook help environment. Webhooks, settings and log are in the
schema walhook, for the group roles walhook_admin and walhook_viewer; each object has a comment (\d+).

Exit status: 0 success; 1 failure, or something is wrong; 2 invalid usage or configuration.`

// eventList lists the names of all events.
func eventList() string {
	var names []string
	for event := range cdc.EventTypes {
		names = append(names, event.String())
	}
	return strings.Join(names, ", ")
}

// NewRoot returns the command with all its subcommands.
func NewRoot(env *Environment) *cobra.Command {
	root := &cobra.Command{
		Use:           "walhook",
		Short:         "Rows become webhooks",
		Long:          strings.Replace(rootHelp, "{events}", eventList(), 1),
		Version:       versionLine(build()),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("unknown command %q; see walhook --help", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return &usageError{errors.New("no command given; see walhook --help")}
		},
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
	})
	root.AddCommand(
		newPreviewCommand(env), newPlanCommand(env), newAttachCommand(env), newRunCommand(env), newReconcileCommand(env), newDetachCommand(env),
		newDoctorCommand(env), newStatusCommand(env), newConsoleCommand(env), newDemoCommand(env), newVersionCommand(env), newEnvironmentTopic(),
	)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd() // keeps the output that is set now
	for _, cmd := range everyCommand(root)[1:] {
		switch {
		case cmd.Name() == "help":
			cmd.Args = knownTopic
		case cmd.HasSubCommands():
			requireSubcommand(cmd)
		case cmd.Runnable():
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
		validate := cmd.Args
		if validate == nil {
			continue
		}
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := validate(cmd, args); err != nil {
				return &usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
			}
			return nil
		}
	}
	return root
}

// everyCommand returns a command and all its subcommands and topics.
func everyCommand(cmd *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{cmd}
	for _, below := range cmd.Commands() {
		all = append(all, everyCommand(below)...)
	}
	return all
}

// requireSubcommand lets a command that only groups others fail when it is called alone; cobra would exit with status 0.
func requireSubcommand(cmd *cobra.Command) {
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return &usageError{fmt.Errorf("%s needs one of its commands; see %s --help", cmd.CommandPath(), cmd.CommandPath())}
	}
}

// knownTopic refuses unknown topics of help; cobra would exit with status 0.
func knownTopic(cmd *cobra.Command, args []string) error {
	if _, rest, err := cmd.Root().Find(args); err != nil || len(rest) > 0 {
		return fmt.Errorf("there is no command or topic %q", strings.Join(args, " "))
	}
	return nil
}

// newEnvironmentTopic is `walhook help environment`.
func newEnvironmentTopic() *cobra.Command {
	return &cobra.Command{Use: "environment", Short: "The variables that configure walhook", Long: environmentHelp()}
}
