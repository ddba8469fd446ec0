package session

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// URLError says why a connection string is invalid. It does not repeat the string, which may contain a password.
type URLError struct {
	Reason   string // empty: the string is malformed
	Variable string // the environment variable at fault, such as PGSSLMODE; empty: the string itself
}

func (e *URLError) Error() string {
	switch {
	case e.Reason == "":
		return "it is malformed"
	case e.Variable != "":
		return e.Reason + ", because of " + e.Variable + " in the environment"
	}
	return e.Reason
}

// CheckURL returns a *URLError unless the connection string is valid in combination with PostgreSQL's environment
// variables.
func CheckURL(url string) error {
	reason, ok := parseURL(url)
	if ok {
		return nil
	}
	for _, entry := range slices.Sorted(slices.Values(os.Environ())) {
		name, value, _ := strings.Cut(entry, "=")
		if reason == "" || !strings.HasPrefix(name, "PG") {
			continue
		}
		_ = os.Unsetenv(name)
		_, without := parseURL(url)
		_ = os.Setenv(name, value)
		if without {
			return &URLError{reason, name}
		}
	}
	return &URLError{Reason: reason}
}

// parseURL reports whether a connection string can be parsed, and otherwise which setting is invalid.
func parseURL(url string) (reason string, ok bool) {
	_, err := pgconn.ParseConfig(url)
	var parse *pgconn.ParseConfigError
	if !errors.As(err, &parse) {
		return "", err == nil
	}
	parse.ConnString = ""
	_, reason, _ = strings.Cut(parse.Error(), ": ")
	if strings.HasPrefix(reason, "failed to parse as") {
		reason = "" // the rest repeats a part of the string
	}
	return reason, false
}
