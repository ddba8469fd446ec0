package sql

import (
	"embed"
	"fmt"
	"regexp"
	"strings"
)

//go:embed queries/*.sql
var queryFiles embed.FS

// Query is one statement from queries/*.sql with its parameters numbered in the order in which they first appear.
type Query struct {
	Name   string
	SQL    string
	params []string
}

// Args are a query's arguments by parameter name.
type Args map[string]any

// Bind returns the arguments in the order of the statement's parameters. It panics when a name is missing or unknown, since
// that is a mistake in the code and not in the data.
func (q Query) Bind(args Args) []any {
	if len(args) != len(q.params) {
		panic(fmt.Sprintf("query %s takes %v, not %d arguments", q.Name, q.params, len(args)))
	}
	bound := make([]any, len(q.params))
	for i, name := range q.params {
		value, ok := args[name]
		if !ok {
			panic(fmt.Sprintf("query %s lacks argument %s", q.Name, name))
		}
		bound[i] = value
	}
	return bound
}

var (
	queryName  = regexp.MustCompile(`(?m)^-- name: ([A-Za-z]+)$`)
	queryParam = regexp.MustCompile(`@[a-z][a-z_]*`)
)

// Queries holds every statement of queries/*.sql by name.
var Queries = loadQueries()

func loadQueries() map[string]Query {
	queries := map[string]Query{}
	files, err := queryFiles.ReadDir("queries")
	if err != nil {
		panic(err)
	}
	for _, file := range files {
		text, err := queryFiles.ReadFile("queries/" + file.Name())
		if err != nil {
			panic(err)
		}
		marks := queryName.FindAllSubmatchIndex(text, -1)
		for i, mark := range marks {
			end := len(text)
			if i+1 < len(marks) {
				end = marks[i+1][0]
			}
			q := parseQuery(string(text[mark[2]:mark[3]]), string(text[mark[1]:end]))
			if _, twice := queries[q.Name]; twice {
				panic("query " + q.Name + " is defined twice")
			}
			queries[q.Name] = q
		}
	}
	return queries
}

func parseQuery(name, text string) Query {
	// What follows the semicolon at the end of a line is the comment of the next query.
	text, _, _ = strings.Cut(text+"\n", ";\n")
	q := Query{Name: name}
	numbers := map[string]int{}
	q.SQL = queryParam.ReplaceAllStringFunc(strings.TrimSpace(text), func(param string) string {
		n, seen := numbers[param]
		if !seen {
			n = len(numbers) + 1
			numbers[param] = n
			q.params = append(q.params, param[1:])
		}
		return fmt.Sprintf("$%d", n)
	})
	return q
}

func mustQuery(name string) Query {
	q, ok := Queries[name]
	if !ok {
		panic("query " + name + " is not defined")
	}
	return q
}

// overflowing returns a query of results that puts them into the overflow of the log.
func overflowing(name string) Query {
	q := mustQuery(name)
	q.Name = strings.TrimPrefix(q.Name, "Record") + "Overflow"
	q.SQL = strings.NewReplacer("insert into walhook.log ", "insert into walhook.log_overflow ",
		"insert into walhook.attempt ", "insert into walhook.attempt_overflow ").Replace(q.SQL)
	Queries[q.Name] = q
	return q
}
