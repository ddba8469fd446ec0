package sql

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// RegisterTypes lets a connection to the store read and write log sequence numbers as the numbers that they are, of eight bytes,
// and send Rows where the store is installed.
func RegisterTypes(ctx context.Context, conn *pgx.Conn) error {
	conn.TypeMap().RegisterType(&pgtype.Type{Name: "pg_lsn", OID: lsnOID, Codec: pgtype.Uint64Codec{}})
	return registerRows(ctx, conn)
}

// ByIndex sets up a session that only looks up and writes rows by index, again and again. Otherwise a plan from the time
// when the store was new and empty would read whole tables until they are analyzed for the first time, and one for a small
// backlog would sort a large one. Each statement is planned once: the server would otherwise plan it again for the length
// of every array, which takes longer than running it for one event.
func ByIndex(ctx context.Context, conn *pgx.Conn) error {
	const settings = "set enable_seqscan = off; set enable_bitmapscan = off; set jit = off; " +
		"set plan_cache_mode = force_generic_plan"
	if _, err := conn.Exec(ctx, settings); err != nil {
		return fmt.Errorf("set up the store's session: %w", err)
	}
	return nil
}
