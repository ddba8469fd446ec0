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

// hints says what to write instead of SQL that expressions do not support.
var hints = map[string]string{
	"!=": "write <>", "==": "write =", "||": "texts cannot be joined", "&&": "write and", "::": "there are no casts",
	"--": "there are no comments", "/*": "there are no comments", "~": "there are no patterns",
	"->": "an expression cannot look inside a document",
}

// lex splits an expression into tokens, the last of which is tokenEnd.
func lex(text string) ([]token, error) {
	var tokens []token
	for at := 0; at < len(text); {
		if strings.IndexByte(" \t\n\r\f\v", text[at]) >= 0 {
			at++
			continue
		}
		next, length, mistake := lexToken(text[at:])
		if mistake != "" {
			return nil, &Error{Text: text, At: at, Reason: mistake}
		}
		next.at = at
		tokens = append(tokens, next)
		at += length
	}
	return append(tokens, token{tokenEnd, "", len(text)}), nil
}

// lexToken reads the token at the beginning of text, which is not a blank. mistake is why there is none; "": there is one.
func lexToken(text string) (t token, length int, mistake string) {
	switch c := text[0]; {
	case c == '\'', c == '"':
		return lexQuoted(text)
	case isLetter(c):
		return lexWord(text)
	case isDigit(c), (c == '.' || c == '-' || c == '+') && numberLength(text) > 0 && !strings.HasPrefix(text, "--"):
		n := numberLength(text)
		if n == 0 || n < len(text) && (isLetter(text[n]) || isDigit(text[n]) || text[n] == '.') {
			return t, 0, "this is no number: write digits, such as 3, -0.5 or 1e6"
		}
		return token{kind: tokenNumber, text: strings.Join(strings.Fields(text[:n]), "")}, n, ""
	case c == '(', c == ')', c == ',':
		return token{kind: tokenPunctuation, text: string(c)}, 1, ""
	}
	return lexOperator(text)
}

func lexQuoted(text string) (t token, length int, mistake string) {
	value, length, closed := unquote(text, text[0])
	switch {
	case !closed:
		return t, 0, "this quote is not closed"
	case text[0] == '\'':
		return token{kind: tokenString, text: value}, length, ""
	case value == "":
		return t, 0, "a column's name is empty"
	}
	return token{kind: tokenColumn, text: value}, length, ""
}

func lexWord(text string) (t token, length int, mistake string) {
	n := 0
	for n < len(text) && (isLetter(text[n]) || isDigit(text[n]) || text[n] == '$') {
		n++
	}
	word := text[:n]
	switch {
	case n < len(text) && text[n] == '\'':
		return t, 0, "a text has no prefix: write 'text'"
	case n < len(text) && text[n] == '.':
		return t, 0, "a column's name stands alone, without its table"
	case isKeyword(word):
		return token{kind: tokenKeyword, text: strings.ToLower(word)}, n, ""
	}
	return token{kind: tokenColumn, text: word}, n, ""
}

func lexOperator(text string) (t token, length int, mistake string) {
	for _, operator := range []string{"<>", "<=", ">=", "=", "<", ">"} {
		if rest, found := strings.CutPrefix(text, operator); found {
			if rest != "" && strings.IndexByte("<>=!", rest[0]) >= 0 {
				return t, 0, "there is no such comparison: " + comparisons
			}
			return token{kind: tokenOperator, text: operator}, len(operator), ""
		}
	}
	_, size := utf8.DecodeRuneInString(text)
	mistake = "unexpected " + text[:size]
	for sql, hint := range hints {
		if strings.HasPrefix(text, sql) {
			mistake = "unexpected " + sql + ": " + hint
		}
	}
	return t, 0, mistake
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
