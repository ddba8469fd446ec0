package cdc

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// FatalError reports that retrying cannot help until somebody changes the configuration or the database.
type FatalError struct{ Err error }

func (e *FatalError) Error() string { return e.Err.Error() }

func (e *FatalError) Unwrap() error { return e.Err }

// Fatalf returns a *FatalError.
func Fatalf(format string, args ...any) error { return &FatalError{Err: fmt.Errorf(format, args...)} }

// SQLState returns the SQLSTATE of a server's error, or "" if err is not one.
func SQLState(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}

// IsRejected reports whether the store rejected the data itself, so that a retry would fail in the same way: a data
// exception, a constraint violation or a limit of the server (SQLSTATE classes 22, 23 and 54).
func IsRejected(err error) bool {
	state := SQLState(err)
	return strings.HasPrefix(state, "22") || strings.HasPrefix(state, "23") || strings.HasPrefix(state, "54")
}

// IsEncodingError reports whether the store's encoding cannot represent a text.
func IsEncodingError(err error) bool {
	state := SQLState(err)
	return state == pgerrcode.CharacterNotInRepertoire || state == pgerrcode.UntranslatableCharacter
}
