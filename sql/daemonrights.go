package sql

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// MissingGroups returns those of GroupRoles that the server does not have.
func MissingGroups(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, `
		select g from unnest($1::text[]) with ordinality as u (g, n)
		 where not exists (select from pg_catalog.pg_roles where rolname = g) order by n`, GroupRoles)
	if err != nil {
		return nil, fmt.Errorf("check for the group roles: %w", err)
	}
	missing, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("check for the group roles: %w", err)
	}
	return missing, nil
}

// GroupsRemedy says how group roles that are missing get there. The owner is that of the schema walhook.
func GroupsRemedy(missing []string, owner string) string {
	return fmt.Sprintf(
		"as a role with CREATEROLE: CREATE ROLE %s; then run walhook attach again as %s, which gives them their rights",
		strings.Join(missing, "; CREATE ROLE "), owner,
	)
}

// RightsRemedy says what lets a role work on the store as a daemon. The owner is that of the schema walhook.
func RightsRemedy(user string, missing []string, owner string) string {
	grant := fmt.Sprintf("GRANT walhook_daemon TO %s;", pgx.Identifier{user}.Sanitize())
	if len(missing) > 0 {
		return "the group roles are missing; " + GroupsRemedy(missing, owner) + "; then " + grant
	}
	return grant
}

// ownRightsRemedy is that of the connected role.
func ownRightsRemedy(ctx context.Context, conn *pgx.Conn) string {
	missing, err := MissingGroups(ctx, conn)
	var user, owner string
	if err == nil {
		err = conn.QueryRow(ctx, `
			select current_user::text, coalesce((select pg_catalog.pg_get_userbyid(nspowner)::text
			                                       from pg_catalog.pg_namespace where nspname = 'walhook'), '')`).
			Scan(&user, &owner)
	}
	if err != nil {
		return "grant walhook_daemon to the role that connects"
	}
	return RightsRemedy(user, missing, owner)
}

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
