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

// ByIndex sets a session up that does nothing but look up and write rows by index, again and again. A plan that was made while
// the store was new and empty would otherwise read whole tables until they are analyzed for the first time, and one for a small backlog would sort a large
// one. Each statement is planned once: the server would else plan it for the length of every array anew, which takes longer than to run it for one event.
func ByIndex(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, "set enable_seqscan = off; set enable_bitmapscan = off; set jit = off; set plan_cache_mode = force_generic_plan"); err != nil {
		return fmt.Errorf("set up the store's session: %w", err)
	}
	return nil
}
