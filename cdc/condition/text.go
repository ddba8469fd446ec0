package condition

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

var (
	texts       = comparing(familyText, true, readText, strings.Compare, textLiteral)
	paddedTexts = comparing(familyPadded, true, readPadded, strings.Compare, paddedLiteral)
	names       = comparing(familyName, true, readText, strings.Compare, nameLiteral)
	enums       = comparing(familyEnum, false, readText, strings.Compare, enumLiteral)
	booleans    = comparing(familyBool, true, readText, strings.Compare, boolLiteral) // f sorts before t
	uuids       = comparing(familyUUID, true, readText, strings.Compare, uuidLiteral)
	bitStrings  = comparing(familyBits, true, readText, strings.Compare, bitLiteral)
	byteStrings = comparing(familyBytes, true, readText, strings.Compare, byteaLiteral) // hex sorts as its bytes do
)

func readText(text string) (string, error) { return text, nil }

// readPadded drops trailing blanks, which are insignificant in char(n).
func readPadded(text string) (string, error) { return strings.TrimRight(text, " "), nil }

const notText = "write a text in quotes"

func textLiteral(_ Type, l token, _ bool) (string, string) {
	if l.kind != tokenString {
		return "", notText
	}
	return l.text, ""
}

func paddedLiteral(_ Type, l token, _ bool) (string, string) {
	return strings.TrimRight(l.text, " "), textOnly(l)
}

func textOnly(l token) string {
	if l.kind != tokenString {
		return notText
	}
	return ""
}

func nameLiteral(_ Type, l token, _ bool) (string, string) {
	const longest = 63
	if len(l.text) > longest {
		return "", fmt.Sprintf("a name has at most %d bytes", longest)
	}
	return l.text, textOnly(l)
}

func enumLiteral(t Type, l token, _ bool) (string, string) {
	if len(t.Labels) > 0 && !slices.Contains(t.Labels, l.text) {
		return "", "its values are " + strings.Join(t.Labels, ", ")
	}
	return l.text, textOnly(l)
}

// boolLiteral reads a literal as boolin does: unique prefixes of true, false, yes, no, on and off, and 1 and 0.
func boolLiteral(_ Type, l token, _ bool) (string, string) {
	const reason = "write true or false"
	if l.kind != tokenString && l.kind != tokenKeyword {
		return "", reason
	}
	text := strings.ToLower(strings.Trim(l.text, " \t\n\r\f\v"))
	for word, value := range map[string]string{"true": "t", "false": "f", "yes": "t", "no": "f", "on": "t", "off": "f", "1": "t", "0": "f"} {
		if text != "" && text != "o" && strings.HasPrefix(word, text) {
			return value, ""
		}
	}
	return "", reason
}

// uuidLiteral returns a UUID in its output format.
func uuidLiteral(_ Type, l token, _ bool) (string, string) {
	const reason = "write a UUID, such as 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"
	text := strings.ToLower(l.text)
	if strings.HasPrefix(text, "{") && strings.HasSuffix(text, "}") {
		text = text[1 : len(text)-1]
	}
	plain := text
	if len(text) == 36 {
		for _, at := range []int{8, 13, 18, 23} {
			if text[at] != '-' {
				return "", reason
			}
		}
		plain = text[:8] + text[9:13] + text[14:18] + text[19:23] + text[24:]
	}
	if _, err := hex.DecodeString(plain); err != nil || len(plain) != 32 || l.kind != tokenString {
		return "", reason
	}
	return plain[:8] + "-" + plain[8:12] + "-" + plain[12:16] + "-" + plain[16:20] + "-" + plain[20:], ""
}

func bitLiteral(_ Type, l token, _ bool) (string, string) {
	if l.kind != tokenString || strings.Trim(l.text, "01") != "" {
		return "", "write the bits in quotes, such as '0101'"
	}
	return l.text, ""
}

// byteaLiteral returns bytes in the hex format. An odd number of digits is an error.
func byteaLiteral(_ Type, l token, _ bool) (string, string) {
	const reason = `write the bytes in hex, such as '\x00ff'`
	if l.kind != tokenString {
		return "", reason
	}
	if digits, isHex := strings.CutPrefix(l.text, `\x`); isHex {
		b, err := hex.DecodeString(digits)
		if err != nil {
			return "", reason
		}
		return `\x` + hex.EncodeToString(b), ""
	}
	for i := range len(l.text) {
		if l.text[i] == '\\' || l.text[i] >= 0x80 {
			return "", reason
		}
	}
	return `\x` + hex.EncodeToString([]byte(l.text)), ""
}

// comparePaddedWithText compares char(n) with text, as PostgreSQL does: beside text, the padding of char(n) is dropped
// and the text keeps its blanks; beside varchar, both lose them.
func comparePaddedWithText(a, b Type) func(a, b string) (int, error) {
	blanks := func(t Type) func(string) string {
		if t.OID == pgtype.TextOID {
			return func(s string) string { return s }
		}
		return func(s string) string { return strings.TrimRight(s, " ") }
	}
	left, right := blanks(a), blanks(b)
	return func(a, b string) (int, error) { return cmp.Compare(left(a), right(b)), nil }
}
