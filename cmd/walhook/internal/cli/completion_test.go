package cli

import (
	"os/exec"
	"strings"
	"testing"
)

// The completion of each shell is made, and offers the commands and flags that there are.
func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		out, errOut, status := call(t, "completion", shell)
		if status != ExitOK || errOut != "" || !strings.Contains(out, "__complete") {
			t.Errorf("%s: status %d, %d bytes: %s", shell, status, len(out), errOut)
		}
		if shell != "bash" {
			continue
		}
		check := exec.CommandContext(t.Context(), "bash", "-n")
		check.Stdin = strings.NewReader(out)
		if said, err := check.CombinedOutput(); err != nil {
			t.Errorf("bash does not read its completion: %v\n%s", err, said)
		}
	}
	for typed, want := range map[string][]string{
		"":               {"attach\t", "completion\t", "console\t", "demo\t", "detach\t", "doctor\t", "help\t", "plan\t", "preview\t", "reconcile\t", "run\t", "status\t", "version\t"},
		"d":              {"demo\t", "detach\t", "doctor\t"},
		"detach --":      {"--drop-schema\t", "--help\t"},
		"doctor --j":     {"--json\t"},
		"run ":           {},
		"completion ":    {"bash\t", "fish\t", "powershell\t", "zsh\t"},
		"completion zs":  {"zsh\t"},
		"help environ":   {},
		"help reconcile": {"reconcile\t"},
	} {
		words := append([]string{"__complete"}, strings.Split(typed, " ")...)
		out, _, status := call(t, words...)
		offers, directive, _ := strings.Cut(out, ":4\n") // no file is ever meant
		lines := strings.Split(strings.TrimSuffix(offers, "\n"), "\n")
		if offers == "" {
			lines = nil
		}
		good := status == ExitOK && directive == "" && strings.HasSuffix(out, ":4\n") && len(lines) == len(want)
		for i := 0; good && i < len(want); i++ {
			good = strings.HasPrefix(lines[i], want[i])
		}
		if !good {
			t.Errorf("walhook %s<TAB>: status %d, offers\n%s", typed, status, out)
		}
	}
}
