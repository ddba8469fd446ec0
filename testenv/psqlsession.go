package testenv

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// scriptSession runs scripts like psql: statement by statement, each in its own transaction, with results and notices
// in order.
type scriptSession struct {
	conn *pgx.Conn
	said *strings.Builder
}

// runInSession runs a script without psql. It does not support backslash commands.
func runInSession(url, script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), psqlPatience)
	defer cancel()
	conn, err := borrow(ctx, url)
	if err != nil {
		return err.Error(), errConnect
	}
	defer giveBack(ctx, url, conn)
	s := scriptSession{conn: conn, said: &strings.Builder{}}
	conn.PgConn().CustomData()[noticeKey] = s.report
	defer delete(conn.PgConn().CustomData(), noticeKey)
	for _, statement := range splitStatements(script) {
		if err = s.run(ctx, statement); err != nil {
			err = errStatement
			break
		}
	}
	return strings.TrimRight(s.said.String(), "\n"), err
}

func (s *scriptSession) run(ctx context.Context, statement string) error {
	results := s.conn.PgConn().Exec(ctx, statement)
	for results.NextResult() {
		rows := results.ResultReader()
		columns := len(rows.FieldDescriptions())
		for rows.NextRow() {
			values := make([]string, columns)
			for i, value := range rows.Values() {
				values[i] = string(value)
			}
			s.said.WriteString(strings.Join(values, "|") + "\n")
		}
		if _, err := rows.Close(); err != nil {
			break // closing the results returns it as well
		}
	}
	err := results.Close()
	var answer *pgconn.PgError
	switch {
	case errors.As(err, &answer):
		s.report(answer)
	case err != nil:
		fmt.Fprintln(s.said, err)
	}
	return err
}

// report prints the server's messages like psql.
func (s *scriptSession) report(said *pgconn.PgError) {
	fmt.Fprintf(s.said, "%s:  %s\n", said.Severity, said.Message)
	for _, part := range []struct{ name, text string }{{"DETAIL", said.Detail}, {"HINT", said.Hint}, {"CONTEXT", said.Where}} {
		if part.text != "" && (part.name != "CONTEXT" || said.Severity == "ERROR") {
			fmt.Fprintf(s.said, "%s:  %s\n", part.name, part.text)
		}
	}
}

// token matches anything in which a statement cannot end: a comment, a quoted string or name, a dollar-quoted string;
// otherwise a single semicolon, name or character.
var token = regexp.MustCompile(`(?s)^(?:--[^\n]*|/\*.*?\*/|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?:[A-Za-z_]\w*)?\$|[A-Za-z_][\w$]*|.)`)

var (
	comment = regexp.MustCompile(`(?s)^(--|/\*)`)
	dollar  = regexp.MustCompile(`^\$.*\$$`)
)

// splitStatements splits a script at the semicolons that end its statements, but not inside SQL function bodies (BEGIN
// ATOMIC).
func splitStatements(script string) []string {
	var statements []string
	var one strings.Builder
	nothing, depth, previous := true, 0, ""
	end := func() {
		if !nothing {
			statements = append(statements, one.String())
		}
		one.Reset()
		nothing, depth, previous = true, 0, ""
	}
	for script != "" {
		next := token.FindString(script)
		if dollar.MatchString(next) {
			if closing := strings.Index(script[len(next):], next); closing >= 0 {
				next = script[:len(next)+closing+len(next)]
			}
		}
		script = script[len(next):]
		if next == ";" && depth == 0 {
			end()
			continue
		}
		one.WriteString(next)
		if comment.MatchString(next) || strings.TrimSpace(next) == "" {
			continue
		}
		nothing = false
		switch {
		case strings.EqualFold(previous, "begin") && strings.EqualFold(next, "atomic"):
			depth = 1
		case depth > 0 && strings.EqualFold(next, "case"):
			depth++
		case depth > 0 && strings.EqualFold(next, "end"):
			depth--
		}
		previous = next
	}
	end()
	return statements
}
