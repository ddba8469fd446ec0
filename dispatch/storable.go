package dispatch

import (
	"strings"
	"unicode/utf8"
)

// storable returns the text of an error as the store can hold it. If the store's encoding is not UTF-8, each letter
// outside of ASCII becomes a question mark.
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
