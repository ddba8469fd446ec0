package condition

import (
	"fmt"
	"slices"
	"strings"
)

// Condition says when something is so. Exactly one of its three forms applies:
//
//   - Column alone: the value is set.
//   - Column with Values: the value, as text, is one of these.
//   - Expression: the expression is true.
//
// The zero Condition is none.
type Condition struct {
	Column     string
	Values     []string
	Expression string `json:",omitempty"`
}

// IsZero reports whether there is no condition.
func (c Condition) IsZero() bool { return c.Column == "" && c.Expression == "" }

// IsColumn reports whether the condition is a column alone.
func (c Condition) IsColumn() bool { return c.Column != "" && len(c.Values) == 0 }

// String returns the condition in the form that Parse accepts, or "" if there is none.
func (c Condition) String() string {
	switch {
	case c.IsZero():
		return ""
	case c.Expression != "":
		return c.Expression
	case len(c.Values) > 0:
		return quoteColumn(c.Column) + "=" + strings.Join(c.Values, "|")
	}
	return quoteColumn(c.Column)
}

// Columns returns the distinct columns of the condition, in the order in which they appear.
func (c Condition) Columns() []string {
	if c.Expression == "" {
		if c.Column == "" {
			return nil
		}
		return []string{c.Column}
	}
	root, err := parseExpression(c.Expression)
	if err != nil {
		return nil
	}
	return columnsOf(root)
}

// Parse parses a condition: `column`, `column=a|b`, or an expression. Its error is an *Error.
//
// In the first two forms the column may be any name, in double quotes if it contains characters that are special in
// a condition. The second form has precedence: `a=b` compares column a with the text b. What follows its equals sign
// begins with no quote and contains neither the word `and` nor the word `or`.
func Parse(text string) (Condition, error) {
	if at := strings.IndexByte(text, 0); at >= 0 {
		return Condition{}, &Error{Text: text[:at], At: at, Reason: "a condition cannot contain a NUL character"}
	}
	if valid := strings.ToValidUTF8(text, "?"); valid != text {
		at := 0
		for text[at] == valid[at] {
			at++
		}
		return Condition{}, &Error{Text: valid, At: at, Reason: "it is not valid UTF-8"}
	}
	trimmed := strings.TrimSpace(text)
	if trimmed == "" {
		return Condition{}, &Error{Text: text, Reason: "it is empty: " + accepted}
	}
	column, rest, simple := cutColumn(trimmed)
	switch {
	case trimmed[0] == '=':
		return Condition{}, &Error{Text: trimmed, Reason: "a column's name is missing: " + accepted}
	case simple && rest == "":
		return Condition{Column: column}, nil
	case simple && isList(rest[1:]):
		values := strings.Split(rest[1:], "|")
		at := len(trimmed) - len(rest) + 1
		for i, value := range values {
			if values[i] = strings.TrimSpace(value); values[i] == "" {
				return Condition{}, &Error{Text: trimmed, At: at, Reason: "a value is empty: " + accepted}
			}
			at += len(value) + 1
		}
		return Condition{Column: column, Values: values}, nil
	}
	if _, err := parseExpression(trimmed); err != nil {
		return Condition{}, err
	}
	return Condition{Expression: trimmed}, nil
}

// Missing returns the error for a column of the condition that the table does not have.
func (c Condition) Missing(column string) *Error {
	text := c.String()
	if tokens, err := lex(c.Expression); err == nil {
		for _, t := range tokens {
			if t.kind == tokenColumn && t.text == column {
				return missing(text, t)
			}
		}
	}
	return missing(text, token{tokenColumn, column, 0})
}

// MissingColumn returns the error for a list of columns that names one that does not exist.
func MissingColumn(list, column string) *Error {
	return missing(list, token{tokenColumn, column, max(strings.Index(list, column), 0)})
}

func missing(text string, column token) *Error {
	return &Error{Text: text, At: column.at, Column: column.text, Reason: fmt.Sprintf("there is no column %q", column.text)}
}

// accepted says what a condition is.
const accepted = "a condition is a column, a column and values (status=done|closed), " +
	"or an expression (state in ('done','closed') and submitted > started)"

// cutColumn cuts a column's name off a condition of one of the first two forms; rest is empty or begins with an equals
// sign. It reports whether the condition may be of these forms.
func cutColumn(text string) (column, rest string, simple bool) {
	if text[0] == '"' {
		column, end, closed := unquote(text, '"')
		rest = strings.TrimSpace(text[end:])
		return column, rest, closed && column != "" && (rest == "" || rest[0] == '=')
	}
	end := strings.IndexAny(text, `='"()<>!,`)
	if end < 0 {
		end = len(text)
	} else if text[end] != '=' {
		return "", "", false
	}
	column, rest = strings.TrimSpace(text[:end]), text[end:]
	words := strings.Fields(column)
	simple = len(words) == 1 || len(words) > 1 && !slices.ContainsFunc(words, isKeyword)
	return column, rest, simple
}

// isList reports whether the text after a column and an equals sign is a list of values, and not the rest of an
// expression.
func isList(text string) bool {
	text = strings.TrimSpace(text)
	return !strings.HasPrefix(text, "'") && !slices.ContainsFunc(strings.Fields(text), isConnective)
}

func isConnective(word string) bool {
	return strings.EqualFold(word, "and") || strings.EqualFold(word, "or")
}

// quoteColumn quotes a column's name if Parse would not take it for one otherwise.
func quoteColumn(column string) string {
	if got, rest, simple := cutColumn(column + " "); simple && rest == "" && got == column {
		return column
	}
	return `"` + strings.ReplaceAll(column, `"`, `""`) + `"`
}

// unquote reads a quoted text, in which a doubled quote stands for one; end is the offset behind the closing quote.
func unquote(text string, quote byte) (value string, end int, closed bool) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		if text[i] == quote {
			if i+1 == len(text) || text[i+1] != quote {
				return b.String(), i + 1, true
			}
			i++
		}
		b.WriteByte(text[i])
	}
	return "", len(text), false
}
