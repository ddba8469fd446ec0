package documents

import (
	"cmp"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

var (
	firesRow  = regexp.MustCompile("(?m)^\\|(?:[^|`]*\\|)? `([^|`]*)` \\| (nothing|`[^|]*`) \\|$")
	firesWhat = regexp.MustCompile("`(response\\.[a-z]+)`")
)

// walhook attaches to every shape of the cookbook as written, with its variables, and each statement fires what the
// page shows next to it.
func TestMappingCookbook(t *testing.T) {
	t.Parallel()
	runMappings(t, "../../../docs/how-to/mapping.md", 7)
}

// The same for the applications.
func TestApplicationsCookbook(t *testing.T) {
	t.Parallel()
	runMappings(t, "../../../docs/how-to/applications.md", 12)
}

// runMappings runs every section of a page that has a mapping. A section without tables has those of the section before.
func runMappings(t *testing.T, file string, sections int) {
	t.Helper()
	p := openPage(t, file)
	texts := harness.TextsOf(t, file)
	server := testenv.NewServer(t, nil)
	testenv.Exec(t, server.URL("postgres"), "create role walhook")
	tables, ran := "", 0
	for _, section := range p.sections() {
		statements := firesRow.FindAllStringSubmatch(texts[section], -1)
		if len(statements) == 0 {
			continue // openPage reports its blocks
		}
		ran++
		env, grants := map[string]string{}, ""
		for i, b := range p.in(section) {
			switch {
			case b.language == "sh":
				maps.Copy(env, exported(t, b.code))
			case i == 0:
				tables = b.code
			default:
				grants += b.code
			}
		}
		create := tables
		t.Run(section, func(t *testing.T) {
			t.Parallel()
			if rows := strings.Count(texts[section], "\n|") - 2; len(statements) < 3 || len(statements) != rows {
				t.Fatalf("the section has %d statements in %d rows", len(statements), rows)
			}
			s := harness.NewSiteOn(t, server, create)
			for name, value := range env {
				s.With(name, value)
			}
			s.Exec(grants)
			s.Run()
			for _, event := range []string{"created", "started", "completed", "changed"} {
				s.Hook("/hook", event, "assessment_id", "null")
			}
			followMapping(s, statements)
		})
	}
	if ran != sections {
		t.Errorf("%s has %d mappings, not %d", file, ran, sections)
	}
}

// followMapping runs the statements, and compares what each has fired with the page. An event belongs to the statement
// that wrote its LSN.
func followMapping(s *harness.Site, statements [][]string) {
	t := s.T
	t.Helper()
	table := strings.ReplaceAll(cmp.Or(s.Env["RESPONDENT_TABLE"], "public.respondent"), ".", `"."`)
	column := cmp.Or(s.Env["RESPONDENT_ASSESSMENT"], "assessment_id")
	catchUp := func() {
		end := s.WALEnd()
		s.Exec(fmt.Sprintf(`update "%s" set "%s" = "%s"`, table, column, column)) // changes nothing
		s.WaitRead(end)
	}
	ends := []string{s.WALEnd()}
	total := 0
	for _, statement := range statements {
		if strings.Contains(statement[1], " walhook.") {
			catchUp() // settings apply to what is read from now on
		}
		s.Exec(statement[1])
		ends = append(ends, s.WALEnd())
		total += len(firesWhat.FindAllString(statement[2], -1))
	}
	catchUp()
	s.WaitLog("select count(*) from walhook.queue", "0")
	for i, statement := range statements {
		fired := testenv.Values[string](t, s.Store, `select walhook.event_name(event_type) from walhook.log
			where succeeded and lsn > $1::text::pg_lsn and lsn <= $2::text::pg_lsn order by delivery_id`, ends[i], ends[i+1])
		var want []string
		for _, fires := range firesWhat.FindAllStringSubmatch(statement[2], -1) {
			want = append(want, fires[1])
		}
		if !slices.Equal(fired, want) {
			t.Errorf("%s\nfires %v, not %v", statement[1], fired, want)
		}
	}
	if s.Env["ASSESSMENT_ORGANIZATION"] != "" {
		s.WaitLog("select count(*) from walhook.response_state s where walhook.organization_of(s) is null and not walhook.has_flag(s.flags, 'excluded')", "0")
	}
	if got := len(s.Receiver.Bodies("/hook")); got != total {
		t.Errorf("%d requests arrived, not %d", got, total)
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
