package sql

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// rightsText is what each group role may do; TestRightsAreThoseWrittenDown holds it against a server.
//
//go:embed testdata/rights.txt
var rightsText string

// LackingRights returns what the connected role lacks of what walhook_daemon is given, such as "insert on table walhook.queue".
func LackingRights(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	var lacking []string
	for line := range strings.Lines(rightsText) {
		right, ofDaemon := strings.CutPrefix(strings.TrimSpace(line), "walhook_daemon ")
		object, privileges, found := strings.Cut(right, ": ")
		kind, name, _ := strings.Cut(object, " ")
		if !ofDaemon || !found {
			continue
		}
		args := []any{name, ""}
		if kind == "column" {
			at := strings.LastIndexByte(name, '.')
			args = []any{name[:at], "", name[at+1:]}
		}
		for privilege := range strings.SplitSeq(privileges, ", ") {
			var has bool
			query := map[string]string{
				"table":    "select coalesce(has_table_privilege(to_regclass($1), $2), false)",
				"column":   "select coalesce(has_column_privilege(to_regclass($1), $3, $2), false)",
				"sequence": "select coalesce(has_sequence_privilege(to_regclass($1), $2), false)",
				"function": "select coalesce(has_function_privilege(to_regprocedure($1), $2), false)",
				"schema":   "select has_schema_privilege($1, $2)",
			}[kind]
			args[1] = privilege
			if err := conn.QueryRow(ctx, query, args...).Scan(&has); err != nil {
				return nil, fmt.Errorf("look up the right to %s %s %s: %w", privilege, kind, name, err)
			}
			if !has {
				lacking = append(lacking, fmt.Sprintf("%s on %s %s", privilege, kind, name))
			}
		}
	}
	return lacking, nil
}
