package testenv

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// Files returns the files below a folder whose names end in suffix, for tests that read their own repository. It skips
// hidden folders and node_modules.
func Files(t testing.TB, folder, suffix string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != folder &&
			(strings.HasPrefix(entry.Name(), ".") && entry.Name() != ".." || entry.Name() == "node_modules"):
			return filepath.SkipDir
		case !entry.IsDir() && strings.HasSuffix(path, suffix):
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no file below %s ends in %s", folder, suffix)
	}
	return files
}
