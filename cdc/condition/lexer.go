package condition

import (
	"slices"
	"strings"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenColumn
	tokenKeyword
	tokenString
	tokenNumber
	tokenOperator // a comparison
	tokenPunctuation
)

// token is a word of an expression. Its text is lower-cased for keywords, and unquoted for columns and strings.
type token struct {
	kind tokenKind
	text string
	at   int
}

var keywords = []string{"and", "or", "not", "in", "is", "null", "true", "false"}

func isKeyword(word string) bool { return slices.Contains(keywords, strings.ToLower(word)) }

func isLetter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= utf8.RuneSelf
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// hints names what is written instead of SQL that an expression does not have.
var hints = map[string]string{
	"!=": "write <>", "==": "write =", "||": "texts cannot be joined", "&&": "write and", "::": "there are no casts",
	"--": "there are no comments", "/*": "there are no comments", "~": "there are no patterns", "?": "", "->": "look inside no document",
}

// lex splits an expression into tokens, the last of which is tokenEnd.
func lex(text string) ([]token, error) {
	var tokens []token
	fail := func(at int, reason string) ([]token, error) { return nil, &Error{Text: text, At: at, Reason: reason} }
	for i := 0; i < len(text); {
		c := text[i]
		begin := i
		switch {
		case strings.IndexByte(" \t\n\r\f\v", c) >= 0:
			i++
			continue
		case c == '\'', c == '"':
			value, length, closed := unquote(text[i:], c)
			if !closed {
				return fail(i, "this quote is not closed")
			}
			i += length
			kind := tokenString
			if c == '"' {
				kind = tokenColumn
				if value == "" {
					return fail(begin, "a column's name is empty")
				}
			}
			tokens = append(tokens, token{kind, value, begin})
		case isLetter(c):
			for i < len(text) && (isLetter(text[i]) || isDigit(text[i]) || text[i] == '$') {
				i++
			}
			word := text[begin:i]
			switch {
			case i < len(text) && text[i] == '\'':
				return fail(begin, "a text has no prefix: write 'text'")
			case i < len(text) && text[i] == '.':
				return fail(begin, "a column's name stands alone, without its table")
			case isKeyword(word):
				tokens = append(tokens, token{tokenKeyword, strings.ToLower(word), begin})
			default:
				tokens = append(tokens, token{tokenColumn, word, begin})
			}
		case isDigit(c), (c == '.' || c == '-' || c == '+') && numberLength(text[i:]) > 0 && !strings.HasPrefix(text[i:], "--"):
			n := numberLength(text[i:])
			i += n
			if n == 0 || i < len(text) && (isLetter(text[i]) || isDigit(text[i]) || text[i] == '.') {
				return fail(begin, "this is no number: write digits, such as 3, -0.5 or 1e6")
			}
			tokens = append(tokens, token{tokenNumber, strings.Join(strings.Fields(text[begin:i]), ""), begin})
		default:
			rest := text[i:]
			operator := ""
			for _, o := range []string{"<>", "<=", ">=", "=", "<", ">"} {
				if strings.HasPrefix(rest, o) {
					operator = o
					break
				}
			}
			switch {
			case operator != "":
				i += len(operator)
				if i < len(text) && strings.IndexByte("<>=!", text[i]) >= 0 {
					return fail(begin, "there is no such comparison: "+comparisons)
				}
				tokens = append(tokens, token{tokenOperator, operator, begin})
			case c == '(', c == ')', c == ',':
				i++
				tokens = append(tokens, token{tokenPunctuation, string(c), begin})
			default:
				_, size := utf8.DecodeRuneInString(rest)
				reason := "unexpected " + rest[:size]
				for sql, hint := range hints {
					if strings.HasPrefix(rest, sql) && hint != "" {
						reason = "unexpected " + sql + ": " + hint
					}
				}
				return fail(begin, reason)
			}
		}
	}
	return append(tokens, token{tokenEnd, "", len(text)}), nil
}

const comparisons = "write =, <>, <, <=, > or >="

// numberLength returns the length of the number, with its sign, at the beginning of text; 0 if there is none.
func numberLength(text string) int {
	i := 0
	if text[0] == '-' || text[0] == '+' {
		for i = 1; i < len(text) && text[i] == ' '; i++ {
		}
	}
	digits := func() (n int) {
		for ; i < len(text) && isDigit(text[i]); i++ {
			n++
		}
		return n
	}
	whole, fraction := digits(), 0
	if i < len(text) && text[i] == '.' {
		i++
		fraction = digits()
	}
	if whole+fraction == 0 {
		return 0
	}
	if end := i; i < len(text) && (text[i] == 'e' || text[i] == 'E') {
		i++
		if i < len(text) && (text[i] == '-' || text[i] == '+') {
			i++
		}
		if digits() == 0 {
			i = end
		}
	}
	return i
}
