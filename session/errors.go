package session

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// PoolerAdvice is the remedy where a pooler cannot carry what walhook needs.
const PoolerAdvice = "a connection pooler such as PgBouncer stands in between and cannot carry it; let the URL name the PostgreSQL server itself"

// wrapConnectError says in one line why a connection could not be opened.
func wrapConnectError(err error, doing string, config *pgconn.Config) error {
	err = summarize(err, config)
	if isPoolerRefusal(err) {
		return fmt.Errorf("%s %s: %s: %w", doing, Address(config), PoolerAdvice, err)
	}
	return fmt.Errorf("%s %s: %w", doing, Address(config), err)
}

// isPoolerRefusal recognises what PgBouncer says of settings, and of replication, in a connection's first message.
func isPoolerRefusal(err error) bool {
	text := err.Error()
	return strings.Contains(text, "unsupported startup parameter") || strings.Contains(text, "replication connections")
}

// Address is what people may read of where a connection goes.
func Address(config *pgconn.Config) string {
	return fmt.Sprintf("%s:%d/%s", config.Host, config.Port, config.Database)
}

// conciseError is the one line of what went wrong that people need; what it wraps is all of it.
type conciseError struct {
	text string
	err  error
}

func (e *conciseError) Error() string { return e.text }
func (e *conciseError) Unwrap() error { return e.err }

// summarize picks from the attempts of one connection, with TLS and without and for each address of the host, the last that a
// server answered, or else the last. Should a server repeat the password, that is left out.
func summarize(err error, config *pgconn.Config) error {
	var connect *pgconn.ConnectError
	if !errors.As(err, &connect) {
		return err
	}
	attempts := []error{errors.Unwrap(connect)}
	if joined, ok := attempts[0].(interface{ Unwrap() []error }); ok {
		attempts = joined.Unwrap()
	}
	told := attempts[len(attempts)-1]
	for _, attempt := range attempts {
		var answer *pgconn.PgError
		if errors.As(attempt, &answer) {
			told = answer
		}
	}
	lines := strings.Split(told.Error(), "\n")
	text := strings.Join(slices.Compact(lines), "; ")
	if config.Password != "" {
		// A name that has the password in it is no secret.
		text = strings.NewReplacer(config.User+" ", config.User+" ", config.User+`"`, config.User+`"`, config.Password, "xxxxx").Replace(text)
	}
	return &conciseError{fmt.Sprintf("user %q: %s", config.User, text), err}
}
