package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// problem is an error as clients get it (RFC 9457).
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Field  string `json:"field,omitempty"` // the one that is wrong

	header http.Header
}

func (p problem) Error() string { return p.Detail }

func (p problem) reply() reply {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	header := p.header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set("Content-Type", "application/problem+json")
	return reply{status: p.Status, header: header, body: p}
}

func badRequest(detail string) problem { return problem{Status: http.StatusBadRequest, Detail: detail} }

// badField is badRequest for one field or parameter.
func badField(name, format string, args ...any) problem {
	return problem{Status: http.StatusBadRequest, Field: name, Detail: fmt.Sprintf(format, args...)}
}

func notFound(what string) problem {
	return problem{
		Status: http.StatusNotFound, Detail: "There is no such " + what + ", or the key may not see it. Check the id.",
	}
}

func unauthorized(detail string) problem {
	return problem{
		Status: http.StatusUnauthorized, Detail: detail,
		header: http.Header{"Www-Authenticate": {`Bearer realm="walhook"`}},
	}
}

func retryAfter(status int, wait time.Duration, detail string) problem {
	seconds := max(int64((wait+time.Second-1)/time.Second), 1)
	return problem{
		Status: status, Detail: detail, header: http.Header{"Retry-After": {strconv.FormatInt(seconds, 10)}},
	}
}

// noAnswer is the problem of a store that took too long.
func noAnswer() problem {
	return retryAfter(http.StatusServiceUnavailable, 5*time.Second,
		"The store did not answer in time. Try again, or ask for less.")
}

// problem returns the problem details of an error. Messages that the store's functions and triggers raise are written for
// people. Other errors of the server may contain a row, so clients do not see them.
func (a *api) problem(err error) problem {
	var known problem
	if errors.As(err, &known) {
		return known
	}
	var raised *pgconn.PgError
	if !errors.As(err, &raised) {
		if errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err) {
			return noAnswer()
		}
		return retryAfter(http.StatusServiceUnavailable, 5*time.Second, "The store cannot be reached. Try again.")
	}
	switch raised.Code {
	case pgerrcode.QueryCanceled, pgerrcode.LockNotAvailable, pgerrcode.DeadlockDetected:
		return noAnswer()
	case pgerrcode.UntranslatableCharacter, pgerrcode.CharacterNotInRepertoire:
		return problem{
			Status: http.StatusUnprocessableEntity,
			Detail: "A string has a character that the store cannot keep, such as U+0000. Leave it out.",
		}
	}
	status := map[string]int{
		pgerrcode.InsufficientPrivilege:            http.StatusForbidden,
		pgerrcode.NoDataFound:                      http.StatusNotFound,
		pgerrcode.CheckViolation:                   http.StatusUnprocessableEntity,
		pgerrcode.NotNullViolation:                 http.StatusUnprocessableEntity,
		pgerrcode.InvalidParameterValue:            http.StatusUnprocessableEntity,
		pgerrcode.NullValueNotAllowedDataException: http.StatusUnprocessableEntity,
	}[raised.Code]
	if raised.Code == pgerrcode.InsufficientPrivilege && raised.Routine != "exec_stmt_raise" {
		return retryAfter(http.StatusServiceUnavailable, 30*time.Second,
			"The console's role may not serve the API. The console's log says why; tell whoever runs walhook.")
	}
	if status == 0 || raised.Routine != "exec_stmt_raise" {
		return problem{
			Status: http.StatusInternalServerError,
			Detail: "The request failed. The console's log has the reason; tell whoever runs walhook.",
		}
	}
	if status == http.StatusNotFound && raised.ColumnName != "" {
		status = http.StatusConflict // the object exists, but lacks what the column names
	}
	return problem{Status: status, Detail: raised.Message + ". " + advice(status, raised), Field: raised.ColumnName}
}

// advice returns the hint of an error. Clients of the API cannot run hints in SQL. The hint of a missing object would reveal
// whether it belongs to another organization or does not exist.
func advice(status int, raised *pgconn.PgError) string {
	isSQL := strings.Contains(raised.Hint, "walhook.") || strings.Contains(raised.Hint, "SELECT ")
	if status != http.StatusNotFound && raised.Hint != "" && !isSQL {
		return raised.Hint
	}
	switch status {
	case http.StatusNotFound:
		return "GET /webhooks and GET /deliveries list what the key may see."
	case http.StatusConflict:
		return `To test without a response that matches, name one: {"response_id": "12345"}.`
	default:
		return "See openapi.json for what is expected."
	}
}
