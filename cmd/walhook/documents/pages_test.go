package documents

import (
	"bytes"
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"walhook/testenv"
	"walhook/testenv/pgserver"
)

// page is a document whose commands a test runs. The test fails if it skips any.
type page struct {
	t      *testing.T
	file   string
	blocks []*block
}

// block is a fenced block: shell commands or SQL.
type block struct {
	section, language, code string
	run                     bool
}

var fenced = regexp.MustCompile("(?ms)^#+ (.*?)$|^```([a-z]*)\n(.*?)^```$")

// readBlocks returns the blocks of a document that readers run, each with the heading above it.
func readBlocks(t *testing.T, file string) []*block {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []*block
	section := ""
	// A fenced block is matched as a whole, so that a shell comment is not taken for a heading.
	for _, match := range fenced.FindAllStringSubmatch(string(text), -1) {
		switch {
		case match[1] != "":
			section = match[1]
		case match[2] == "sh" || match[2] == "sql":
			blocks = append(blocks, &block{section: section, language: match[2], code: match[3]})
		}
	}
	return blocks
}

// openPage reads a document. The test must use all its blocks.
func openPage(t *testing.T, file string) *page {
	t.Helper()
	p := &page{t, file, readBlocks(t, file)}
	t.Cleanup(func() {
		for _, b := range p.blocks {
			if !b.run && !t.Failed() {
				t.Errorf("%s, %s: no test runs\n%s", file, b.section, b.code)
			}
		}
	})
	return p
}

// in returns the blocks under a heading, and marks them as used.
func (p *page) in(section string) []*block {
	p.t.Helper()
	var found []*block
	for _, b := range p.blocks {
		if b.section == section {
			b.run = true
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		p.t.Fatalf("%s has no commands under %q", p.file, section)
	}
	return found
}

// sections returns the headings that have blocks, in order.
func (p *page) sections() []string {
	var names []string
	for _, b := range p.blocks {
		if len(names) == 0 || names[len(names)-1] != b.section {
			names = append(names, b.section)
		}
	}
	return names
}

// script returns all blocks as one script.
func (p *page) script() string { return p.scriptOf(p.blocks) }

// scriptOf returns some blocks as one script. SQL is passed to psql.
func (p *page) scriptOf(blocks []*block) string {
	var script strings.Builder
	for _, b := range blocks {
		b.run = true
		if b.language == "sql" {
			script.WriteString("psql <<'SQL'\n" + b.code + "SQL\n")
			continue
		}
		script.WriteString(b.code)
	}
	return script.String()
}

// walkPrelude sets up the shell: it stops at the first command that fails, and defines a replacement for curl, so that
// the tests need only bash and psql.
const walkPrelude = `set -euo pipefail
curl() (
  address=${2#http://}; host=${address%%/*}
  exec 3<>"/dev/tcp/${host%:*}/${host#*:}"
  printf 'GET /%s HTTP/1.0\r\nHost: %s\r\n\r\n' "${address#*/}" "$host" >&3
  read -r _ status _ <&3
  if [[ $1 == *f* && $status != 2* ]]; then exit 22; fi
  sed '1,/^\r$/d' <&3
) 2>/dev/null
trap 'for job in $(jobs -p); do kill "$job" || true; done' EXIT
`

// walk runs a script like a reader, in a folder that contains walhook, with replacements for ports and folders, which
// must occur in the script. It returns the script's output.
func walk(t *testing.T, server *pgserver.Server, dir, script string, replace [][2]string, env ...string) string {
	t.Helper()
	path := testenv.PathWithPsql(t)
	for _, r := range replace {
		if !strings.Contains(script, r[0]) {
			t.Fatalf("the commands no longer contain %q", r[0])
		}
		script = strings.ReplaceAll(script, r[0], r[1])
	}
	at, err := url.Parse(server.URL("app"))
	if err != nil {
		t.Fatal(err)
	}
	password, _ := at.User.Password()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", walkPrelude+script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "WALHOOK_TEST_EXEC=1", path, "PGHOST="+at.Hostname(), "PGPORT="+at.Port(), "PGUSER="+at.User.Username(), "PGPASSWORD="+password, "PGDATABASE=app")
	cmd.Env = append(cmd.Env, env...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the commands failed: %v\n%s", err, out)
	}
	return string(out)
}

// saysInOrder verifies that the output contains the texts in this order.
func saysInOrder(t *testing.T, out string, texts ...string) {
	t.Helper()
	rest := out
	for _, text := range texts {
		_, after, found := strings.Cut(rest, text)
		if !found {
			t.Errorf("the commands do not print %q in the right place:\n%s", text, out)
			return
		}
		rest = after
	}
}

// documents returns all pages of the repository.
func documents(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "examples/*/*.md"} {
		found, err := filepath.Glob("../../../" + pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("no pages match %s: %v", pattern, err)
		}
		files = append(files, found...)
	}
	return files
}

// A test names every page with commands, and runs them. If it uses openPage, it must run all blocks.
func TestEveryPageIsRun(t *testing.T) {
	t.Parallel()
	tests, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var sources bytes.Buffer
	for _, test := range tests {
		text, err := os.ReadFile(test)
		if err != nil {
			t.Fatal(err)
		}
		sources.Write(text)
	}
	for _, file := range documents(t) {
		if blocks := readBlocks(t, file); len(blocks) > 0 && !bytes.Contains(sources.Bytes(), []byte(`"`+file+`"`)) {
			t.Errorf("no test runs the %d blocks of %s; the first is\n%s", len(blocks), file, blocks[0].code)
		}
	}
}

var (
	markdownLink = regexp.MustCompile(`\]\(([^)#\s]+)?(#[^)\s]*)?\)`)
	testNamed    = regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*|Fuzz[A-Z][A-Za-z0-9]*)`")
)

// Links between pages have a target, and tests that pages name exist.
func TestPagesPointAtWhatIsThere(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{}
	for _, file := range testenv.Files(t, "../../..", "_test.go") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(text), -1) {
			tests[match[1]] = true
		}
	}
	for _, file := range documents(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range testNamed.FindAllStringSubmatch(string(text), -1) {
			if !tests[match[1]] {
				t.Errorf("%s names %s, which is not a test", file, match[1])
			}
		}
		for _, match := range markdownLink.FindAllStringSubmatch(string(text), -1) {
			if match[1] == "" || strings.Contains(match[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), match[1])); err != nil {
				t.Errorf("%s links to %s: %v", file, match[1], err)
			}
		}
	}
}
