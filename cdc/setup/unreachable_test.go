package setup

import (
	"slices"
	"testing"

	"walhook/cdc"
	"walhook/cdc/catalog"
)

// Whoever runs status and doctor from a monitor can tell a database that is away from one that is in trouble.
func TestUnreachableDatabasesAreNamed(t *testing.T) {
	t.Parallel()
	const away, alsoAway = "postgres://127.0.0.1:1/app?connect_timeout=5", "postgres://127.0.0.1:1/store?connect_timeout=5"
	o := Observe(t.Context(), away, alsoAway, "walhook")
	if o.OK || !slices.Equal(o.Unreachable, []string{"store", "source"}) {
		t.Errorf("unreachable are %q, and all is well: %v", o.Unreachable, o.OK)
	}
	findings := Examine(t.Context(), ExamineConfig{SourceURL: away, StoreURL: alsoAway, Target: catalog.Target{Mapping: cdc.Mapping{}}})
	if len(findings) != 1 || findings[0].Check != "source_connection" || findings[0].Level != catalog.Fail {
		t.Errorf("doctor finds %v", findings)
	}
}
