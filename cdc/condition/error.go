package condition

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error is a mistake in a condition.
type Error struct {
	Text   string // the condition
	At     int    // offset of the mistake in bytes
	Reason string // what is wrong, and what is accepted
	Column string // the column that the table does not have, or ""
}

// Error returns the reason and, in two further lines, the place.
func (e *Error) Error() string { return e.Reason + "\n" + e.Place() }

// Place returns the line of the condition that contains the mistake, and below it a caret.
func (e *Error) Place() string {
	at := min(e.At, len(e.Text))
	begin := strings.LastIndexByte(e.Text[:at], '\n') + 1
	end := len(e.Text)
	if n := strings.IndexByte(e.Text[at:], '\n'); n >= 0 {
		end = at + n
	}
	printable := func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}
	const indent = "    "
	return indent + strings.Map(printable, e.Text[begin:end]) + "\n" +
		indent + strings.Repeat(" ", utf8.RuneCountInString(e.Text[begin:at])) + "^"
}

// Near describes the place in one line: its number and what stands there.
func (e *Error) Near() string {
	const longest = 30
	at := min(e.At, len(e.Text))
	near := strings.Fields(e.Text[at:])
	excerpt := strings.Join(near, " ")
	if len(excerpt) > longest {
		excerpt = strings.ToValidUTF8(excerpt[:longest], "") + "..."
	}
	return fmt.Sprintf("character %d (%s)", utf8.RuneCountInString(e.Text[:at])+1, excerpt)
}
