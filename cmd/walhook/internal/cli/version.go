package cli

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by Main; "" outside releases.
var version string

// Version is the version alone, as in User-Agent.
func Version() string {
	info, built := build(), ""
	if info != nil && info.Main.Version != "(devel)" {
		built = info.Main.Version
	}
	return cmp.Or(version, built, "dev")
}

func newVersionCommand(_ *Environment) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print version, commit, Go version and platform",
		Long: `Prints one line: the version, which is also that of the header User-Agent, the commit that the program was built from, the
version of Go, and the platform.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(cmd.OutOrStdout(), versionLine(build()))
			return nil
		},
	}
}

// build is what the program was built from, nil where that is not known.
func build() *debug.BuildInfo {
	info, _ := debug.ReadBuildInfo()
	return info
}

// commitOf is the commit that the program was built from. A build outside a checkout, as go install does it, knows none.
func commitOf(info *debug.BuildInfo) (commit string, changed bool) {
	commit = "unknown"
	if info != nil {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				commit = s.Value
			case "vcs.modified":
				changed = s.Value == "true"
			}
		}
	}
	return commit, changed
}

// versionLine says what the build recorded.
func versionLine(info *debug.BuildInfo) string {
	commit, changed := commitOf(info)
	if changed {
		commit += " with changes"
	}
	return fmt.Sprintf("walhook %s, commit %s, %s, %s/%s", Version(), commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
