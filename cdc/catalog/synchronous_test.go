package catalog

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStandbyNames(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]struct {
		needed int
		names  []string
	}{
		"": {1, nil}, "*": {1, []string{"*"}}, "one": {1, []string{"one"}}, "one, two": {1, []string{"one", "two"}},
		"FIRST 2 (one, two)": {2, []string{"one", "two"}}, `ANY 1 ( "a b" ,c)`: {1, []string{"a b", "c"}}, `2 ("x""y")`: {2, []string{`x"y`}},
	} {
		needed, names := parseStandbyNames(setting)
		if diff := cmp.Diff(want.names, slices.Clip(names)); diff != "" || needed != want.needed {
			t.Errorf("%s: %d, not %d (-want +got):\n%s", setting, needed, want.needed, diff)
		}
	}
}
