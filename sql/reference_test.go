package sql

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"walhook/testenv"
)

// The reference of SQL objects is what the comments in the database say.
func TestReferenceOfObjects(t *testing.T) {
	t.Parallel()
	const file = "../docs/reference/sql.md"
	url := installed(t)
	var b strings.Builder
	b.WriteString(`# SQL objects

What the schema ` + "`walhook`" + ` offers to administrators and viewers. Everything else in it is internal and may change with any version. This page
is made from the comments in the database (` + "`go test ./sql -run TestReferenceOfObjects -update`" + `), which ` + "`psql`" + ` shows with ` + "`\\d+`" + ` and ` + "`\\df+`" + `.

Ids of the application are text, even if they are numbers there: write ` + "`'17'`" + `, not ` + "`17`" + `. [Webhooks in SQL](../how-to/webhooks.md) has
recipes.
`)
	section := func(title, head, query string) {
		t.Helper()
		rows := testenv.Psql(t, url, query)
		if rows == "" {
			t.Fatalf("%s: nothing found", title)
		}
		fmt.Fprintf(&b, "\n%s\n\n%s", title, head)
		for row := range strings.SplitSeq(rows, "\n") {
			b.WriteString(row + "\n")
		}
	}
	section("## Functions", "| function | what it does | who may call it |\n| --- | --- | --- |\n", `
		select format('| `+"`walhook.%s(%s)`, returns `%s`"+` | %s | %s |', p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
		         replace(obj_description(p.oid, 'pg_proc'), '|', '\|'),
		         case when has_function_privilege('public', p.oid, 'execute') then 'everybody'
		              when has_function_privilege('walhook_viewer', p.oid, 'execute') then 'viewers, administrators' else 'administrators' end)
		  from pg_proc p
		 where p.pronamespace = 'walhook'::regnamespace and p.prorettype <> 'trigger'::regtype and has_function_privilege('walhook_admin', p.oid, 'execute')
		   and obj_description(p.oid, 'pg_proc') not like 'Internal: %'
		 order by p.proname`)
	objects := testenv.Psql(t, url, `
		select c.relname || '|' || case c.relkind when 'v' then 'view' else 'table' end || '|' ||
		       case when has_table_privilege('walhook_viewer', c.oid, 'select') then 'Viewers and administrators read it' else 'Administrators read it' end ||
		       case when has_table_privilege('walhook_admin', c.oid, 'insert') or has_any_column_privilege('walhook_admin', c.oid, 'insert') then '; administrators write it.'
		            when has_table_privilege('walhook_admin', c.oid, 'update') or has_any_column_privilege('walhook_admin', c.oid, 'update') then '; administrators update it.' else '.' end
		       || '|' || obj_description(c.oid, 'pg_class')
		  from pg_class c
		 where c.relnamespace = 'walhook'::regnamespace and c.relkind in ('r', 'v') and not c.relispartition
		   and has_table_privilege('walhook_admin', c.oid, 'select') and obj_description(c.oid, 'pg_class') not like 'Internal: %'
		 order by c.relkind, c.relname`)
	for object := range strings.SplitSeq(objects, "\n") {
		part := strings.SplitN(object, "|", 4)
		section(fmt.Sprintf("## The %s walhook.%s\n\n%s %s", part[1], part[0], part[3], part[2]), "| column | type | meaning |\n| --- | --- | --- |\n", fmt.Sprintf(`
			select format('| `+"`%%s` | `%%s`"+` | %%s |', a.attname, format_type(a.atttypid, a.atttypmod), replace(col_description(a.attrelid, a.attnum), '|', '\|'))
			  from pg_attribute a
			 where a.attrelid = 'walhook.%s'::regclass and a.attnum > 0 and not a.attisdropped and col_description(a.attrelid, a.attnum) not like 'Internal: %%'
			 order by a.attnum`, part[0]))
	}
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != b.String() {
		t.Errorf("%s does not match the comments; regenerate it with -update:\n%s", file, b.String())
	}
}
