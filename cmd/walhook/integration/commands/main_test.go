package commands

import (
	"testing"

	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
)

func TestMain(m *testing.M) { harness.Main(m, func() { cli.Main("") }) }
