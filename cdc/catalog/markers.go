package catalog

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/condition"
)

// checkLists warns of a value that looks like several values, or that is the name of a column.
func (p *Preflight) checkLists(marker cdc.MappedMarker) {
	for _, v := range marker.Values {
		first, rest, several := strings.Cut(v, ",")
		found := fmt.Sprintf("%s names one value, %q", marker.Variable, v)
		if !several {
			comparison := fmt.Sprintf("(%s = %s)", pgx.Identifier{marker.Column}.Sanitize(), pgx.Identifier{v}.Sanitize())
			if c, err := condition.Parse(comparison); err == nil {
				if _, err := c.Bind(p.Respondent.Types); err == nil {
					p.note(Warn, "marker_list", found+", which is a column",
						fmt.Sprintf("to compare two columns, set %s=%s", marker.Variable, comparison))
				}
			}
			continue
		}
		if _, exists := p.Respondent.Columns[strings.TrimSpace(rest)]; !exists {
			p.note(Warn, "marker_list", found+": a comma does not separate values",
				"separate them by |, unless the value contains a comma")
			continue
		}
		remedy := fmt.Sprintf("set %s=%s=%s", marker.Variable, marker.Column, strings.TrimSpace(first))
		if marker.Kind == cdc.FinishedMarker {
			remedy += fmt.Sprintf(" and WALHOOK_FINISH_STAMP=%s", strings.TrimSpace(rest))
		}
		p.note(Warn, "marker_list",
			fmt.Sprintf("%s, although %q is a column: a comma does not separate conditions", found, strings.TrimSpace(rest)),
			remedy)
	}
}

// checkDefault warns of a marker that the defaults of its columns set in each new row.
func (p *Preflight) checkDefault(marker cdc.MappedMarker, bound *condition.Bound, defaults map[string]string) error {
	if marker.Fires == 0 {
		return nil
	}
	var set []string
	truth, err := bound.Eval(func(column int) condition.Text {
		name := bound.Columns()[column]
		byDefault, exists := defaults[name]
		if !exists {
			return condition.Text{Null: true}
		}
		set = append(set, fmt.Sprintf("%s is %s", name, byDefault))
		return defaultValue(byDefault, p.Respondent.Types[name], marker.IsColumn())
	})
	if err != nil {
		return fmt.Errorf("evaluate %s on the defaults of %s: %w", marker.Variable, p.Respondent.Name.Display(), err)
	}
	if met, _ := truth.Met(); met && len(set) > 0 {
		p.note(Warn, "marker_default", fmt.Sprintf("%s is already set by default in a new row (%s), so %s fires with response.created",
			marker.Variable, strings.Join(set, ", "), marker.Fires),
			fmt.Sprintf("map what changes later, such as other values of the column; if nothing does and this is meant, leave %s",
				marker.Variable))
	}
	return nil
}

// defaultValue returns the value of a default expression. If only the server can evaluate it, the value is unknown (Unchanged).
func defaultValue(expression string, t condition.Type, alone bool) condition.Text {
	literal := withoutCasts(expression)
	switch {
	case literal == "NULL":
		return condition.Text{Null: true}
	case literal == "true" || literal == "false":
		return condition.Text{Value: literal[:1]}
	case stringLiteral.MatchString(literal) && stringLiteral.FindString(literal) == literal:
		return condition.Text{Value: strings.ReplaceAll(literal[1:len(literal)-1], "''", "'")}
	case numberLiteral.MatchString(literal):
		return condition.Text{Value: strings.Trim(literal, "()")}
	case alone && condition.AlwaysSet(t.OID): // such as now(), whose value does not matter
		return condition.Text{Value: "set"}
	}
	return condition.Text{Unchanged: true}
}

var (
	stringLiteral = regexp.MustCompile(`'(?:[^']|'')*'`)
	numberLiteral = regexp.MustCompile(`^\(?-?[0-9.]+\)?$`)
	castOrString  = regexp.MustCompile(`'(?:[^']|'')*'|::(?:[a-z_.]*"[^"]+"|[a-z_.0-9]+(?: [a-z_]+)*)(?:\([0-9,]+\))?(?:\[\])?`)
)

// withoutCasts removes the casts that the server adds to expressions when it displays them.
func withoutCasts(expression string) string {
	return castOrString.ReplaceAllStringFunc(expression, func(part string) string {
		if strings.HasPrefix(part, "'") {
			return part
		}
		return ""
	})
}

// readDefaults returns the default expressions of the table's columns.
func readDefaults(ctx context.Context, source *pgx.Conn, t *Table) (map[string]string, error) {
	defaults := map[string]string{}
	var column, expression string
	err := readExpressions(ctx, source, `
		select a.attname::text, pg_catalog.pg_get_expr(d.adbin, d.adrelid)
		  from pg_catalog.pg_attrdef d
		  join pg_catalog.pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum and a.attgenerated = ''
		 where d.adrelid = $1`, []any{t.OID}, []any{&column, &expression}, func() error {
		defaults[column] = expression
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look up the defaults of %s: %w", t.Name.Display(), err)
	}
	return defaults, nil
}

// readExpressions runs a query that displays expressions, for which recent servers lock the table. If another session has
// locked it, there are no rows.
func readExpressions(ctx context.Context, source *pgx.Conn, query string, args, columns []any, row func() error) error {
	work := &pgx.Batch{}
	work.Queue("select pg_catalog.set_config('lock_timeout', '500ms', true)")
	work.Queue(query, args...).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, columns, row)
		return err
	})
	err := source.SendBatch(ctx, work).Close()
	if cdc.SQLState(err) == pgerrcode.LockNotAvailable {
		err = nil
	}
	return err
}

// valueChecks are the CHECK constraints on one column alone that a condition can express.
type valueChecks []struct {
	name  string
	bound *condition.Bound
}

// readValueChecks reads the constraints of a column and of its domain. The server evaluates none of them, since that would run
// other people's functions.
func readValueChecks(ctx context.Context, source *pgx.Conn, t *Table, column string) (checks valueChecks, err error) {
	var name, expression string
	var ofDomain bool
	typed := t.Types[column]
	typed.Collation = nil
	err = readExpressions(ctx, source, `
		select k.conname::text, pg_catalog.pg_get_expr(k.conbin, k.conrelid), k.contypid <> 0
		  from pg_catalog.pg_attribute a
		  join pg_catalog.pg_constraint k on k.contype = 'c'
		   and (k.conrelid = a.attrelid and k.conkey = array[a.attnum] or k.contypid = a.atttypid and k.contypid <> 0)
		 where a.attrelid = $1 and a.attname = $2 order by 1`, []any{t.OID, column}, []any{&name, &expression, &ofDomain}, func() error {
		shown := column
		if ofDomain {
			shown = "VALUE"
		}
		parsed, err := condition.Parse(asCondition(expression, shown))
		if err != nil || parsed.Expression == "" {
			return nil // a condition cannot express the constraint
		}
		columns := parsed.Columns()
		if len(columns) != 1 {
			return nil
		}
		if bound, err := parsed.Bind(map[string]condition.Type{columns[0]: typed}); err == nil {
			checks = append(checks, valueChecks{{name, bound}}...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look up the constraints of column %q: %w", column, err)
	}
	return checks, nil
}

var (
	oneOf  = regexp.MustCompile(`= ANY (?:\(\(ARRAY\[([^\]]*)\]\)\)|\(ARRAY\[([^\]]*)\]\))`)
	noneOf = regexp.MustCompile(`<> ALL (?:\(\(ARRAY\[([^\]]*)\]\)\)|\(ARRAY\[([^\]]*)\]\))`)
)

// asCondition translates an expression of the server into the grammar of conditions, as far as possible.
func asCondition(expression, column string) string {
	text := withoutCasts(expression)
	quoted := pgx.Identifier{column}.Sanitize()
	for _, spelling := range []string{column, quoted} {
		text = strings.ReplaceAll(text, "("+spelling+")", quoted)
	}
	return noneOf.ReplaceAllString(oneOf.ReplaceAllString(text, "in ($1$2)"), "not in ($1$2)")
}

// forbidding returns the constraint that forbids a value, or "". Other checks report values that the type does not have.
func (c valueChecks) forbidding(value string) string {
	for _, check := range c {
		truth, err := check.bound.Eval(func(int) condition.Text { return condition.Text{Value: value} })
		if err == nil && truth == condition.False {
			return fmt.Sprintf("the constraint %q", check.name)
		}
	}
	return ""
}
