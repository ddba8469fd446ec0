package testenv

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Connect opens a connection, which is closed when the test ends.
func Connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// Exec runs statements in a separate session; with arguments, a single statement.
func Exec(t testing.TB, url, statements string, args ...any) {
	t.Helper()
	if err := TryExec(url, statements, args...); err != nil {
		t.Fatalf("run %.200s: %v", statements, err)
	}
}

// TryExec is Exec for tests that expect an error.
func TryExec(url, statements string, args ...any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	conn, err := borrow(ctx, url)
	if err != nil {
		return err
	}
	defer giveBack(ctx, url, conn)
	if len(args) == 0 {
		_, err = conn.PgConn().Exec(ctx, statements).ReadAll()
	} else {
		_, err = conn.Exec(ctx, statements, args...)
	}
	return err
}

// Value runs a query and returns its single value.
func Value[T any](t testing.TB, url, query string, args ...any) T {
	t.Helper()
	values := Values[T](t, url, query, args...)
	if len(values) != 1 {
		t.Fatalf("query %s: %d rows instead of 1", query, len(values))
	}
	return values[0]
}

// Values runs a query and returns its single column.
func Values[T any](t testing.TB, url, query string, args ...any) []T {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := borrow(ctx, url)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer giveBack(ctx, url, conn)
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		t.Fatalf("query %s: %v", query, err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("query %s: %v", query, err)
	}
	return values
}
