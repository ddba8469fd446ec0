package chaos

import (
	"os"
	"testing"

	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
)

// releaseVariable names the version that a daemon says it is.
const releaseVariable = "CHAOS_RELEASE"

func TestMain(m *testing.M) { harness.Main(m, func() { cli.Main(os.Getenv(releaseVariable)) }) }
