package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

var (
	manTitle = regexp.MustCompile(`(?m)^\.TH .*$`)
	// Help indents what is to be typed by two blanks, the variables' meaning by six. Manual pages are made from Markdown, in which
	// four blanks keep a line as it is.
	helpIndent = regexp.MustCompile(`(?m)^ {2}`)
)

// manualPage renders a command's manual page, without a date, so that it changes with the command alone.
func manualPage(t *testing.T, cmd *cobra.Command) (name, text string) {
	t.Helper()
	title := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	cmd.Long = helpIndent.ReplaceAllString(cmd.Long, "    ")
	cmd.DisableAutoGenTag = true
	// The page shows in brackets what a flag means that has no value.
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.DefValue == "" {
			f.DefValue = f.NoOptDefVal
		}
	})
	var page bytes.Buffer
	if err := doc.GenMan(cmd, &doc.GenManHeader{Title: strings.ToUpper(title), Section: "1"}, &page); err != nil {
		t.Fatal(err)
	}
	titled := manTitle.ReplaceAllLiteralString(page.String(), `.TH "`+strings.ToUpper(title)+`" "1" "" "walhook" "walhook"`)
	if cmd.Name() != "environment" {
		titled = strings.TrimRight(titled, "\n") + "\n\n" + manualEnd
	}
	return title + ".1", titled
}

const manualEnd = `.SH ENVIRONMENT
\fBWALHOOK_DATABASE_URL\fP and others: see \fBwalhook-environment(1)\fP\&.

.SH EXIT STATUS
0: done. 1: failed, or something is wrong. 2: bad usage or bad configuration.
`

// What a manual page gives as an example of a value is accepted.
func TestManualPagesShowAcceptedValues(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../../docs/man/walhook-status.1")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), `\fB--watch\fP[=2s]`) {
		t.Errorf("the page does not show what --watch alone means:\n%s", page)
	}
}

// The manual pages are those of the commands. go test ./cmd/walhook -run ManPages -update writes them anew.
func TestManPages(t *testing.T) {
	t.Parallel()
	const dir = "../../../../docs/man"
	want := map[string]string{}
	for _, cmd := range everyCommand(NewRoot(&Environment{})) {
		if cmd.Name() == "help" {
			continue
		}
		name, text := manualPage(t, cmd)
		want[name] = text
	}
	if *update {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range want {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := map[string]string{}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got[file.Name()] = string(text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s is not what the commands say (-want +got):\n%s", dir, diff)
	}
}
