package documents

import (
	"os"
	"testing"

	"walhook/cmd/walhook/internal/cli"
)

// configured reads the configuration with only these variables set, besides one that is required.
func configured(t *testing.T, pairs ...string) (*cli.Config, error) {
	t.Helper()
	for _, v := range cli.Variables {
		t.Setenv(cli.Prefix+"_"+v.Name, "")
		if err := os.Unsetenv(cli.Prefix + "_" + v.Name); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("WALHOOK_DATABASE_URL", "postgres://app:hunter2@db/app")
	for i := 0; i < len(pairs); i += 2 {
		t.Setenv(cli.Prefix+"_"+pairs[i], pairs[i+1])
	}
	return cli.ReadConfig()
}
