package cdc

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// keepBytes has the server send text as it stands where the database's encoding is SQL_ASCII. Such a database holds any bytes, and asked
// for UTF8 the server ends the stream, or the copy, at the first row with others, in whichever column they are.
func keepBytes(ctx context.Context, conn *pgconn.PgConn) error {
	if conn.ParameterStatus("server_encoding") != "SQL_ASCII" {
		return nil
	}
	if _, err := conn.Exec(ctx, "set client_encoding to 'SQL_ASCII'").ReadAll(); err != nil {
		return fmt.Errorf("ask for the bytes of a database in SQL_ASCII: %w", err)
	}
	return nil
}
