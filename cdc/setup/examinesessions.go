package setup

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/cdc/catalog"
	"walhook/session"
	"walhook/sql"
)

// settings checks that the sessions have the pinned settings. A setting that requires a superuser stays as configured
// for the role.
func (e *examiner) settings(ctx context.Context, conn *pgx.Conn, what string) {
	const check = "session_settings"
	others, err := session.Unpinned(ctx, conn)
	if err != nil {
		e.cannotCheck(check, err)
		return
	}
	if len(others) == 0 {
		e.note(catalog.OK, check, "walhook's sessions of "+what+" have the settings that it needs", "")
		return
	}
	name, _, _ := strings.Cut(others[0], " = ")
	e.note(catalog.Warn, check,
		fmt.Sprintf("role %s may not change settings that its sessions of %s need otherwise: %s", conn.Config().User, what,
			strings.Join(others, ", ")),
		fmt.Sprintf(
			"as a superuser: ALTER ROLE %s RESET %s; if the setting comes from the database or the server, reset it there",
			pgx.Identifier{conn.Config().User}.Sanitize(), name,
		))
}

// othersRights checks whether roles other than the owner and the group roles have rights in the schema, also in the
// application's database if the store is elsewhere.
func (e *examiner) othersRights(ctx context.Context) {
	if e.view.separate() {
		e.othersRightsIn(ctx, e.source, "the application's database")
	}
	e.othersRightsIn(ctx, e.store, "the store")
}

func (e *examiner) othersRightsIn(ctx context.Context, conn *pgx.Conn, what string) {
	const check = "others_rights"
	var exists bool
	var found, remedies []string
	err := conn.QueryRow(ctx, sql.OthersRights.SQL).Scan(&exists, &found, &remedies)
	switch {
	case err != nil:
		e.cannotCheck(check, err)
	case exists:
		e.grade(len(found) > 0, catalog.Warn, check,
			listOrNone("nobody besides the owner and the group roles has a right in the schema walhook of "+what,
				"others have rights in the schema walhook of "+what+": ", found),
			"as the schema's owner, or by walhook attach as that role: "+strings.Join(remedies, " "))
	}
}
