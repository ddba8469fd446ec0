package documents

import (
	"cmp"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

var (
	firesRow  = regexp.MustCompile("(?m)^\\| `([^|]*)` \\| (nothing|`[^|]*`) \\|$")
	firesWhat = regexp.MustCompile("`(response\\.[a-z]+)`")
)

// walhook attaches to every shape of the cookbook as written, with its variables, and each statement fires what the
// page shows next to it.
func TestMappingCookbook(t *testing.T) {
	t.Parallel()
	const file = "../../../docs/how-to/mapping.md"
	p := openPage(t, file)
	tables := harness.TextsOf(t, file)
	server := testenv.NewServer(t, nil)
	testenv.Exec(t, server.URL("postgres"), "create role walhook")
	shapes := 0
	for _, section := range p.sections() {
		if !recipeNumber.MatchString(section) {
			continue
		}
		shapes++
		blocks := p.in(section)
		statements := firesRow.FindAllStringSubmatch(tables[section], -1)
		t.Run(section, func(t *testing.T) {
			t.Parallel()
			if len(statements) < 3 {
				t.Fatalf("the shape has %d statements", len(statements))
			}
			s := harness.NewSiteOn(t, server, blocks[0].code)
			for _, b := range blocks[1:] {
				if b.language == "sql" {
					s.Exec(b.code)
					continue
				}
				for name, value := range exported(t, b.code) {
					s.With(name, value)
				}
			}
			s.Run()
			for _, event := range []string{"created", "started", "completed", "changed"} {
				s.Hook("/hook", event, "assessment_id", "null")
			}
			want := 0
			for _, statement := range statements {
				s.Exec(statement[1])
				for _, fires := range firesWhat.FindAllStringSubmatch(statement[2], -1) {
					want++
					s.WaitRequests("/hook", want)
					if got := s.Events("/hook")[want-1]; !strings.HasPrefix("response."+got, fires[1]+" ") {
						t.Fatalf("%s fires %s and not %s", statement[1], got, fires[1])
					}
				}
			}
			// Once walhook has forgotten a deleted row, everything before it has been queued.
			table := strings.ReplaceAll(cmp.Or(s.Env["RESPONDENT_TABLE"], "public.respondent"), ".", `"."`)
			s.Exec(`delete from "` + table + `"`)
			testenv.Eventually(t, harness.Patience, "the response to be forgotten", func() (bool, string) {
				left := testenv.Psql(t, s.Store, "select count(*) from walhook.response_state")
				return left == "0", left
			})
			if got := testenv.Psql(t, s.Store, "select (select count(*) from walhook.delivery_log), (select count(*) from walhook.queue)"); got != fmt.Sprintf("%d|0", want) {
				t.Errorf("queued and pending: %s, not %d", got, want)
			}
		})
	}
	if shapes < 5 {
		t.Errorf("the cookbook has %d shapes", shapes)
	}
}

// exported runs export commands in a shell and returns the variables without their prefix.
func exported(t *testing.T, code string) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euc", code+"\nenv -0")
	cmd.Env = []string{}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run the exports: %v\n%s", err, code)
	}
	found := map[string]string{}
	for entry := range strings.SplitSeq(string(out), "\x00") {
		if name, value, _ := strings.Cut(entry, "="); strings.HasPrefix(name, cli.Prefix+"_") {
			found[strings.TrimPrefix(name, cli.Prefix+"_")] = value
		}
	}
	if len(found) == 0 {
		t.Fatalf("the commands set nothing:\n%s", code)
	}
	return found
}
