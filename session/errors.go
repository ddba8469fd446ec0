package session

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// PoolerAdvice is the remedy if a pooler does not support what walhook needs.
const PoolerAdvice = "a connection pooler such as PgBouncer stands in between and cannot carry it; " +
	"let the URL name the PostgreSQL server itself"

// wrapConnectError says in one line why a connection could not be opened.
func wrapConnectError(err error, doing string, config *pgconn.Config) error {
	err = summarize(err, config)
	if isPoolerRefusal(err) {
		return fmt.Errorf("%s %s: %s: %w", doing, Address(config), PoolerAdvice, err)
	}
	return fmt.Errorf("%s %s: %w", doing, Address(config), err)
}

// isPoolerRefusal recognises PgBouncer's errors about startup parameters and replication connections.
func isPoolerRefusal(err error) bool {
	text := err.Error()
	return strings.Contains(text, "unsupported startup parameter") || strings.Contains(text, "replication connections")
}

// Address returns a connection's target without credentials, for messages.
func Address(config *pgconn.Config) string {
	return fmt.Sprintf("%s:%d/%s", config.Host, config.Port, config.Database)
}

// conciseError has a one-line message for people and wraps the complete error.
type conciseError struct {
	text string
	err  error
}

func (e *conciseError) Error() string { return e.text }
func (e *conciseError) Unwrap() error { return e.err }

// summarize reduces the attempts of one connection, with and without TLS and for each address of the host, to the
// last one that a server answered, or else to the last one. It masks the password in case the server repeated it.
func summarize(err error, config *pgconn.Config) error {
	var connect *pgconn.ConnectError
	if !errors.As(err, &connect) {
		return err
	}
	attempts := []error{errors.Unwrap(connect)}
	if joined, ok := attempts[0].(interface{ Unwrap() []error }); ok {
		attempts = joined.Unwrap()
	}
	reported := attempts[len(attempts)-1]
	for _, attempt := range attempts {
		var answer *pgconn.PgError
		if errors.As(attempt, &answer) {
			reported = answer
		}
	}
	lines := strings.Split(reported.Error(), "\n")
	text := strings.Join(slices.Compact(lines), "; ")
	if config.Password != "" {
		// A user name that contains the password is no secret.
		text = strings.NewReplacer(config.User+" ", config.User+" ", config.User+`"`, config.User+`"`, config.Password, "xxxxx").
			Replace(text)
	}
	return &conciseError{fmt.Sprintf("user %q: %s", config.User, text), err}
}
