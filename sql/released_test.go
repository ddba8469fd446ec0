package sql

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walhook/testenv"
)

// countRows counts the rows of every table, the partitions of one table as one.
const countRows = `select c.relname, (xpath('/row/n/text()', query_to_xml('select count(*) as n from ' || c.oid::regclass, false, true, '')))[1]
	from pg_class c where c.relnamespace = 'walhook'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition order by 1`

// A store of each released schema version, with rows in every table, becomes one of the present version and keeps them all.
func TestReleasedStoresUpgrade(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/released/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("there is no released store: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			url := testenv.Database(t, testenv.Postgres(t), "")
			testenv.Psql(t, url, string(text))
			conn := testenv.Connect(t, url)
			have, err := Version(t.Context(), conn)
			if err != nil || filepath.Base(file) != fmt.Sprintf("%03d.sql", have) {
				t.Errorf("%s is a store of version %d, %v", file, have, err)
			}
			before := testenv.Psql(t, url, countRows)
			for line := range strings.Lines(before) {
				if strings.HasSuffix(strings.TrimSpace(line), "|0") {
					t.Errorf("%s has nothing in %s", file, line)
				}
			}
			for range 2 {
				if err := Install(t.Context(), conn); err != nil {
					t.Fatal(err)
				}
			}
			if err := CheckVersion(t.Context(), conn); err != nil {
				t.Error(err)
			}
			after := map[string]bool{}
			for line := range strings.Lines(testenv.Psql(t, url, countRows) + "\n") {
				after[strings.TrimSpace(line)] = true
			}
			for line := range strings.Lines(before) {
				if line = strings.TrimSpace(line); !after[line] {
					t.Errorf("the upgrade did not keep %s: %v", line, after)
				}
			}
			const objects = `select 'class', oid::regclass::text, relkind::text from pg_class where relnamespace = 'walhook'::regnamespace and not relispartition and relkind not in ('i', 'I')
				union all select 'column', attrelid::regclass || '.' || attname, atttypid::regtype || ' ' || attnotnull from pg_attribute join pg_class c on c.oid = attrelid
				  where relnamespace = 'walhook'::regnamespace and not relispartition and relkind <> 'i' and attnum > 0 and not attisdropped
				union all select 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index join pg_class c on c.oid = indrelid where relnamespace = 'walhook'::regnamespace and not relispartition
				union all select 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) from pg_constraint where connamespace = 'walhook'::regnamespace and contype <> 'n'
				  and not exists (select from pg_class p where p.oid = conrelid and p.relispartition)
				union all select 'proc', oid::regprocedure::text, md5(prosrc) from pg_proc where pronamespace = 'walhook'::regnamespace order by 1, 2`
			fresh := installed(t)
			testenv.Exec(t, fresh, "update walhook.settings set time_zone = $1", testenv.Value[string](t, url, "select time_zone from walhook.settings"))
			testenv.Exec(t, fresh, buildTimeIndexes)
			if diff := cmp.Diff(testenv.Psql(t, fresh, objects), testenv.Psql(t, url, objects)); diff != "" {
				t.Errorf("a store that was upgraded is not what one that is new is (-new +upgraded):\n%s", diff)
			}
		})
	}
}

var costs = regexp.MustCompile(`(?m)^-- Locks and cost: .{20,}$`)

// Each migration tells at its head which locks it takes on tables that have rows, and what it costs: who upgrades a large store
// reads it in the plan.
func TestMigrationsTellTheirCost(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("migrations/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no migrations: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(string(text), "\n\n")
		if !costs.MatchString(head) {
			t.Errorf("%s does not say at its head: -- Locks and cost: ...", file)
		}
		body := strings.ToLower(string(text))
		for _, heavy := range []string{"alter table", "drop ", "update walhook.", "delete from walhook."} {
			if strings.Contains(body, heavy) && strings.Contains(head, "Locks and cost: create") {
				t.Errorf("%s only creates, by its head, and has %q", file, heavy)
			}
		}
	}
}
