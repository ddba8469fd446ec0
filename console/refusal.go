package console

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/sql"
)

// refusal is an error that people can understand and often correct: PostgreSQL's, or a page's own.
type refusal struct {
	status             int    // of HTTP
	sentence           string // what was refused and why
	hint               string // what to do, often in SQL; may be empty
	column, constraint string // of PostgreSQL's error; may be empty
	err                error  // may be nil
}

func (r *refusal) Error() string { return r.sentence }
func (r *refusal) Unwrap() error { return r.err }

// Sentence is for templates.
func (r *refusal) Sentence() string { return r.sentence }

func notFound(sentence string) error {
	return &refusal{status: http.StatusNotFound, sentence: sentence}
}

func forbidden(sentence string) error {
	return &refusal{status: http.StatusForbidden, sentence: sentence}
}

// noAnswer returns the refusal of a page while the server that it needs does not answer.
func noAnswer(server string, err error) error {
	return &refusal{
		status: http.StatusServiceUnavailable, err: err,
		sentence: "The " + server + " does not answer at the moment. Try again soon.",
	}
}

// invalid refuses what was typed into the field that is named like the column.
func invalid(column, sentence string) error {
	return &refusal{status: http.StatusUnprocessableEntity, sentence: sentence, column: column}
}

// asRefusal returns the error as a refusal if people can do something about it, and otherwise unchanged.
func asRefusal(err error) error {
	var already *refusal
	if err == nil || errors.As(err, &already) {
		return err
	}
	var refused *pgconn.PgError
	var connect *pgconn.ConnectError
	var version *sql.VersionError
	switch {
	case errors.As(err, &version):
		return &refusal{status: http.StatusServiceUnavailable, sentence: asMessage(version.Error()), err: err}
	case errors.Is(err, errNoConnection):
		return &refusal{
			status: http.StatusServiceUnavailable, err: err,
			sentence: "All connections of the console to the store are in use at the moment. Try again in a few seconds.",
		}
	case errors.Is(err, pgx.ErrNoRows):
		return &refusal{status: http.StatusNotFound, sentence: "There is no such entry.", err: err}
	case errors.As(err, &refused):
		if status := statusOf(refused.Code); status != 0 {
			return &refusal{
				status: status, sentence: asSentence(status, refused.Message), hint: refused.Hint,
				column: refused.ColumnName, constraint: refused.ConstraintName, err: err,
			}
		}
	case errors.As(err, &connect), errors.Is(err, context.DeadlineExceeded):
		return noAnswer("store", err)
	}
	return err
}

// statusOf returns the HTTP status for an SQLSTATE; 0 if the error is a bug of ours.
func statusOf(code string) int {
	switch {
	case code == pgerrcode.InsufficientPrivilege:
		return http.StatusForbidden
	case code == pgerrcode.NoDataFound:
		return http.StatusNotFound
	case code == pgerrcode.UniqueViolation, code == pgerrcode.SerializationFailure,
		code == pgerrcode.DeadlockDetected, code == pgerrcode.LockNotAvailable:
		return http.StatusConflict
	case code == pgerrcode.QueryCanceled, code == pgerrcode.ReadOnlySQLTransaction, pgerrcode.IsConnectionException(code),
		pgerrcode.IsOperatorIntervention(code), pgerrcode.IsInsufficientResources(code):
		return http.StatusServiceUnavailable
	case code == pgerrcode.RaiseException, code == pgerrcode.ObjectNotInPrerequisiteState,
		pgerrcode.IsIntegrityConstraintViolation(code), pgerrcode.IsDataException(code):
		return http.StatusUnprocessableEntity
	}
	return 0
}

// asSentence turns PostgreSQL's message into the sentence that the page shows.
func asSentence(status int, message string) string {
	switch {
	case status == http.StatusForbidden && strings.HasPrefix(message, "permission denied"):
		return "Your role may not do this. Only members of walhook_admin can change anything."
	case status == http.StatusServiceUnavailable:
		return "The store took too long, or does not accept changes at the moment. Try again, or ask for less."
	}
	return asMessage(message)
}

// asMessage makes a sentence of a message.
func asMessage(message string) string {
	if message == "" {
		return ""
	}
	message = strings.ToUpper(message[:1]) + message[1:]
	if !strings.HasSuffix(message, ".") {
		message += "."
	}
	return message
}
