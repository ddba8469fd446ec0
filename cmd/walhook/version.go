package main

import (
	"cmp"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set at release with -ldflags "-X main.version=1.2.3".
var version string

// Version is the version alone, as in User-Agent.
func Version() string {
	info, _ := debug.ReadBuildInfo()
	built := ""
	if info != nil && info.Main.Version != "(devel)" {
		built = info.Main.Version
	}
	return cmp.Or(version, built, "dev")
}

// build is what is known of this program.
type build struct{ version, commit, goVersion string }

func readBuild() build {
	b := build{Version(), "unknown", "unknown"}
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return b
	}
	b.goVersion = info.GoVersion
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.commit = s.Value
		}
	}
	return b
}

func newVersionCommand(_ *environment) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := readBuild()
			fmt.Fprintf(cmd.OutOrStdout(), "walhook %s, commit %s, %s\n", b.version, b.commit, b.goVersion)
			return nil
		},
	}
}
