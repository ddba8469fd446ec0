package catalog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// InSavepoint runs fn in the store's session. If a transaction is open, it runs in a savepoint, which is rolled back
// if fn fails.
func InSavepoint(ctx context.Context, store *pgx.Conn, part func() error) error {
	if store.PgConn().TxStatus() == 'I' {
		return part()
	}
	if _, err := store.Exec(ctx, "savepoint walhook_part"); err != nil {
		return fmt.Errorf("set a savepoint in the store: %w", err)
	}
	err := part()
	end := "release savepoint walhook_part"
	if err != nil {
		end = "rollback to savepoint walhook_part; release savepoint walhook_part"
	}
	if _, endErr := store.PgConn().Exec(ctx, end).ReadAll(); endErr != nil && err == nil {
		err = fmt.Errorf("release a savepoint in the store: %w", endErr)
	}
	return err
}
