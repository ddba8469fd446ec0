package documents

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

var logKeyRow = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (boolean|number|string) \\|")

// documentedLogKeys returns the keys that the reference page lists, with their types.
func documentedLogKeys(t *testing.T) map[string]string {
	keys := map[string]string{}
	for _, match := range logKeyRow.FindAllStringSubmatch(harness.TextsOf(t, "../../../docs/reference/log.md")[""], -1) {
		keys[match[1]] = match[2]
	}
	return keys
}

// logCallKeys returns the keys in a call of slog, or none if it is another call.
func logCallKeys(t *testing.T, files *token.FileSet, call *ast.CallExpr) []string {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil
	}
	before, known := map[string]int{"Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "Log": 3}[method.Sel.Name]
	logger := ""
	switch x := method.X.(type) {
	case *ast.Ident:
		logger = x.Name
	case *ast.SelectorExpr:
		logger = x.Sel.Name
	case *ast.CallExpr: // slog.New(...)
		if from, ok := x.Fun.(*ast.SelectorExpr); ok && from.Sel.Name == "New" {
			logger = "log"
		}
	}
	if !known || !strings.EqualFold(logger, "log") {
		return nil
	}
	var keys []string
	for i := before; i < len(call.Args); i += 2 {
		literal, ok := call.Args[i].(*ast.BasicLit)
		if !ok {
			t.Errorf("%s: a key is not a literal", files.Position(call.Pos()))
			return keys
		}
		key, _ := strconv.Unquote(literal.Value)
		keys = append(keys, key)
	}
	return keys
}

// The reference page lists exactly the keys of the program's log, and a daemon's log lines have the documented types.
func TestLogKeysAreDocumented(t *testing.T) {
	t.Parallel()
	used := map[string]bool{"time": true, "level": true, "msg": true}
	calls := 0
	for _, folder := range []string{"../internal/cli", "../../../cdc", "../../../dispatch", "../../../sql"} {
		for _, source := range testenv.Files(t, folder, ".go") {
			if strings.HasSuffix(source, "_test.go") {
				continue
			}
			files := token.NewFileSet()
			parsed, err := parser.ParseFile(files, source, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(parsed, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					for _, key := range logCallKeys(t, files, call) {
						used[key] = true
						calls++
					}
				}
				return true
			})
		}
	}
	if calls < 40 {
		t.Errorf("only %d keys were found in the source", calls)
	}
	documented := documentedLogKeys(t)
	listed := map[string]bool{}
	for key := range documented {
		listed[key] = true
	}
	if diff := cmp.Diff(listed, used); diff != "" {
		t.Errorf("docs/reference/log.md (-) and the source (+):\n%s", diff)
	}

	s := harness.NewSite(t, harness.SampleSchema).With("LOG_FORMAT", "json", "MAX_ATTEMPTS", "2").Attach()
	d := s.Start()
	s.Hook("/ok", "created")
	s.Hook("/broken", "created")
	s.Receiver.Respond("/broken", testenv.Always(testenv.Reply{Status: 500}))
	testenv.Eventually(t, harness.Patience, "the daemon to stream", func() (bool, string) {
		return strings.Contains(d.Log.String(), `"msg":"streaming"`), d.Log.String()
	})
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.WaitLog("select count(*) from walhook.delivery_log where status <> 'pending'", "2")
	if status := d.Stop(); status != 0 {
		t.Errorf("the daemon exited with status %d", status)
	}
	attempts := map[string]int{}
	for line := range strings.Lines(d.Log.String()) {
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		for key, value := range got {
			kind := ""
			switch value.(type) {
			case string:
				kind = "string"
			case float64:
				kind = "number"
			case bool:
				kind = "boolean"
			}
			if documented[key] != kind {
				t.Errorf("%s is a %s in %s", key, kind, line)
			}
		}
		if got["msg"] == "attempt" {
			attempts[got["level"].(string)]++
		}
	}
	if diff := cmp.Diff(map[string]int{"DEBUG": 2, "WARN": 1}, attempts); diff != "" {
		t.Errorf("lines of attempts by level (-want +got):\n%s", diff)
	}
}
