package session

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// URLError says why a connection string is not accepted. It repeats nothing of the string itself, which may hold a password.
type URLError struct {
	Reason   string // empty: it has not the form of one
	Variable string // of the environment, where the reason comes from there, such as PGSSLMODE
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

// CheckURL returns a *URLError unless a connection string is accepted, together with what PostgreSQL's own variables add to it.
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

// parseURL reports whether a connection string can be taken apart, and otherwise what is wrong with the settings in it.
func parseURL(url string) (reason string, ok bool) {
	_, err := pgconn.ParseConfig(url)
	var parse *pgconn.ParseConfigError
	if !errors.As(err, &parse) {
		return "", err == nil
	}
	parse.ConnString = ""
	_, reason, _ = strings.Cut(parse.Error(), ": ")
	if strings.HasPrefix(reason, "failed to parse as") {
		reason = "" // the rest repeats what was taken for a port or a host
	}
	return reason, false
}
