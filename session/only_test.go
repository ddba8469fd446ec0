package session

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// No other production code opens a connection, so that an unpinned one cannot exist by mistake.
func TestOnlyHereConnectionsAreOpened(t *testing.T) {
	t.Parallel()
	opens := map[string]bool{
		"Connect": true, "ConnectConfig": true, "ConnectWithOptions": true, "New": true, "NewWithConfig": true,
		"ParseConfig": true, "Open": true,
	}
	// The applications of the demonstration and of the benchmark are not part of walhook.
	elsewhere := []string{
		"../session/", "../testenv/", "../cmd/bench/", "../cmd/walhook/internal/cli/demo.go",
		"../cmd/walhook/internal/harness/", "../examples/",
	}
	seen := 0
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		for _, prefix := range elsewhere {
			if strings.HasPrefix(path, prefix) {
				return nil
			}
		}
		files := token.NewFileSet()
		parsed, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		seen++
		ast.Inspect(parsed, func(n ast.Node) bool {
			call, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if from, ok := call.X.(*ast.Ident); ok && opens[call.Sel.Name] {
				switch from.Name {
				case "pgx", "pgconn", "pgxpool", "stdlib":
					t.Errorf(
						"%s: %s.%s: let package session open connections", files.Position(call.Pos()), from.Name,
						call.Sel.Name,
					)
				}
			}
			return true
		})
		return nil
	})
	if err != nil || seen < 50 {
		t.Fatalf("looked at %d files: %v", seen, err)
	}
}
