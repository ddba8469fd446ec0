package session

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"walhook/testenv"
)

var (
	statement = regexp.MustCompile(
		`^\s*(with|select|insert into|update|delete from|copy|truncate|analyze|lock table|create|alter|drop|grant|revoke|do)\b`,
	)
	relation = regexp.MustCompile(
		`\b(?:from|join|update|into|copy|analyze|truncate|references|alter table|create table|drop table)\s+(?:only\s+)?([a-z_][a-z0-9_]*)(\s*[.(])?`,
	)
	named = regexp.MustCompile(
		`(?:with|recursive|,|\))\s+([a-z_]+) (?:\([a-z_, ]+\) )?as (?:materialized )?\(|\b([a-z_]+)\s+(?:constant\s+)?(?:bigint|text|boolean|smallint|oid|record|walhook\.[a-z_]+)\b`,
	)
	comment = regexp.MustCompile(`--[^\n]*|'[^'\n]*'`)
	// Words that follow such a keyword but are not relations.
	noRelation = map[string]bool{
		"select": true, "lateral": true, "set": true, "of": true, "skip": true, "the": true, "all": true, "public": true, "strict": true,
		"true": true, "old": true, "new": true, "null": true, "or": true, "exclusive": true, "bound": true, "if": true, "walhook_daemon": true,
		"tree":   true,                // cdc/catalog.partitionTree begins such a statement
		"upper":  true,                // a variable of PL/pgSQL
		"before": true, "after": true, // transition tables of a trigger, which take precedence over relations
	}
)

// bareNames returns the relations that a statement names without a schema. Names that the statement defines itself
// have none, and system catalogs are found by the pinned search_path.
func bareNames(text string) (bare []string) {
	text = comment.ReplaceAllString(strings.ToLower(text), " ")
	own := map[string]bool{}
	for _, match := range named.FindAllStringSubmatch(text, -1) {
		own[match[1]], own[match[2]] = true, true
	}
	for _, match := range relation.FindAllStringSubmatch(text, -1) {
		name := match[1]
		if match[2] == "" && !own[name] && !noRelation[name] && !strings.HasPrefix(name, "pg_") {
			bare = append(bare, name)
		}
	}
	return bare
}

// Every relation in walhook's statements is schema-qualified, so that no search_path decides which one it is.
func TestStatementsNameSchemas(t *testing.T) {
	t.Parallel()
	const sample = `with a as (select 1) select * from a join pg_class using (oid) join respondent r on true, unnest(b)
		where exists (select from walhook.queue)`
	if got := bareNames(sample); !slices.Equal(got, []string{"respondent"}) {
		t.Fatalf("found %q", got)
	}
	statements := 0
	for _, suffix := range []string{".sql", ".go"} {
		for _, file := range testenv.Files(t, "..", suffix) {
			switch {
			case strings.HasSuffix(file, "_test.go"),
				strings.HasPrefix(file, "../testenv/"), strings.HasSuffix(file, "/demo.go"),
				strings.HasPrefix(file, "../cmd/bench/"), strings.HasPrefix(file, "../examples/"),
				strings.Contains(file, "/testdata/"),
				strings.Contains(file, "/harness/"):
			case strings.HasSuffix(file, ".sql"):
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				statements++
				for _, name := range bareNames(string(text)) {
					t.Errorf("%s names %s without its schema", file, name)
				}
			default:
				fset := token.NewFileSet()
				parsed, err := parser.ParseFile(fset, file, nil, 0)
				if err != nil {
					t.Fatal(err)
				}
				ast.Inspect(parsed, func(n ast.Node) bool {
					literal, ok := n.(*ast.BasicLit)
					if !ok || literal.Kind != token.STRING {
						return true
					}
					text, err := strconv.Unquote(literal.Value)
					if err != nil || !statement.MatchString(text) {
						return true
					}
					statements++
					for _, name := range bareNames(text) {
						t.Errorf("%s names %s without its schema", fset.Position(literal.Pos()), name)
					}
					return true
				})
			}
		}
	}
	if statements < 100 {
		t.Errorf("found only %d statements", statements)
	}
}
