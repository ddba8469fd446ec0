package dispatch

import (
	"strings"
	"unicode/utf8"
)

// storable returns the text of an error as a store in another encoding than UTF-8 can hold it: in ASCII, with a question mark for each
// other letter.
func (s *Scheduler) storable(text string) string {
	if !s.asciiText.Load() {
		return text
	}
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return '?'
		}
		return r
	}, text)
}
