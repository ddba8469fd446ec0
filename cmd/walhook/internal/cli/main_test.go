package cli

import (
	"testing"

	"walhook/cmd/walhook/internal/harness"
)

func TestMain(m *testing.M) { harness.Main(m, func() { Main("") }) }
