package condition

import (
	"strings"
	"unicode/utf8"
)

// minToasted is a lower bound of the size of a value that PostgreSQL stores out of line, and leaves out of the WAL of an
// update that does not change it: values that are no longer than the pointer to them stay in the row.
const minToasted = 20

// mayBeOmitted reports whether values of the family may be stored out of line. A numeric of that length has more than
// 30 digits, which no application's marker has.
func (f family) mayBeOmitted() bool {
	switch f {
	case familyText, familyPadded, familyBytes, familyBits, familyDocument:
		return true
	default:
		return false
	}
}

// isStoredShort reports whether every value that equals this text is stored in less than minToasted bytes, in whatever
// encoding the database has.
func (f family) isStoredShort(text string) bool {
	switch f {
	case familyText:
		size := 0
		for _, r := range text {
			if size++; r >= utf8.RuneSelf {
				size += utf8.UTFMax - 1
			}
		}
		return size < minToasted
	case familyBytes, familyBits, familyNumeric:
		return len(text) < minToasted
	case familyDocument:
		document := strings.TrimSpace(text)
		return document == "{}" || document == "[]" || document == "null" || document == "true" || document == "false"
	default:
		return false // char(n) is padded
	}
}
