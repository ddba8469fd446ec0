package documents

import (
	"testing"

	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
)

// configured reads the configuration with only these variables set, and the required one.
func configured(t *testing.T, pairs ...string) (*cli.Config, error) {
	t.Helper()
	names := make([]string, len(cli.Variables))
	for i, v := range cli.Variables {
		names[i] = v.Name
	}
	harness.SetOnly(t, names, append([]string{"DATABASE_URL", "postgres://app:hunter2@db/app"}, pairs...)...)
	return cli.ReadConfig()
}
