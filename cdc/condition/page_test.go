package condition_test

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/condition"
	"walhook/testenv"
)

var (
	typesRow = regexp.MustCompile("(?m)^\\| ([^|]+) \\| (yes|no) \\| (yes|no) \\| `([^|]*)` \\|$")
	errorRow = regexp.MustCompile("(?m)^\\| `([^|]+)` \\| ([^|`]+) \\|$")
	quotedIn = regexp.MustCompile("`([^`]+)`")
	shownIn  = regexp.MustCompile(`(?m)^walhook: WALHOOK_FINISHED="(.*)" is not accepted: (.*)\n((?: .*\n){2})`)
)

// The page of conditions says of every type how it is compared, and of mistakes what is wrong with them.
func TestPageOfConditions(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/reference/conditions.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	url := testenv.Database(t, testenv.Postgres(t), "create type level as enum ('done', 'open')")
	table := func(definition string) map[string]condition.Type {
		testenv.Exec(t, url, definition)
		described, err := catalog.InspectTable(t.Context(), testenv.Connect(t, url), cdc.Name{Schema: "public", Table: "example"})
		if err != nil {
			t.Fatal(err)
		}
		testenv.Exec(t, url, "drop table example")
		return described.Types
	}
	accepted := func(types map[string]condition.Type, text string) error {
		parsed, err := condition.Parse(text)
		if err == nil {
			_, err = parsed.Bind(types)
		}
		return err
	}

	rows := typesRow.FindAllStringSubmatch(page, -1)
	if len(rows) < 15 {
		t.Fatalf("the page has %d rows of types", len(rows))
	}
	for _, row := range rows {
		names := quotedIn.FindAllStringSubmatch(row[1], -1)
		if strings.Contains(row[1], "enum") {
			names = [][]string{{"", "level"}}
		}
		for _, name := range names {
			types := table("create table example (c " + name[1] + ")")
			if err := accepted(types, "c in ("+row[4]+")"); (err == nil) != (row[2] == "yes") {
				t.Errorf("%s is equal: %s, and %v", name[1], row[2], err)
			}
			if err := accepted(types, "c < "+row[4]); (err == nil) != (row[3] == "yes") {
				t.Errorf("%s is ordered: %s, and %v", name[1], row[3], err)
			}
		}
	}

	types := table(regexp.MustCompile(`create table example[^\n]*`).FindString(page))
	mistakes := errorRow.FindAllStringSubmatch(page[strings.Index(page, "## Errors"):], -1)
	if len(mistakes) < 10 {
		t.Fatalf("the page has %d mistakes", len(mistakes))
	}
	for _, row := range mistakes {
		var mistake *condition.Error
		if err := accepted(types, row[1]); !errors.As(err, &mistake) || mistake.Reason != row[2] {
			t.Errorf("%s: %v\nand on the page: %s", row[1], err, row[2])
		}
	}
	shown := shownIn.FindStringSubmatch(page)
	if shown == nil {
		t.Fatal("the page shows no place")
	}
	_, err = condition.Parse(shown[1])
	if mistake := (*condition.Error)(nil); !errors.As(err, &mistake) || mistake.Reason != shown[2] || mistake.Place()+"\n" != shown[3] {
		t.Errorf("%v\nand on the page:\n%s", err, shown[0])
	}
}
