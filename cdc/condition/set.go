package condition

import (
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// MoneyOID is the OID of type money, for which pgtype has no constant.
const MoneyOID = 790

// Matches compares a value, as text, with those of a condition of the second form. A boolean's text is true or false in SQL and t or f
// on the wire; the condition may use either.
func Matches(values []string, value string, typeOID uint32) bool {
	if slices.Contains(values, value) {
		return true
	}
	switch typeOID {
	case pgtype.BPCharOID: // trailing blanks are insignificant, both as padding and in the condition
		value = strings.TrimRight(value, " ")
		return slices.ContainsFunc(values, func(v string) bool { return strings.TrimRight(v, " ") == value })
	case pgtype.BoolOID:
		return value == "t" && slices.Contains(values, "true") || value == "f" && slices.Contains(values, "false")
	}
	return false
}

// IsSet reports whether a value is neither false, zero nor empty by the rules of its type.
func IsSet(value string, typeOID uint32) bool {
	switch typeOID {
	case pgtype.BoolOID:
		return value != "f"
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.Float4OID, pgtype.Float8OID,
		pgtype.NumericOID:
		return !isZero(value)
	case MoneyOID: // letters belong to the currency of lc_monetary: kr0,00, CHF 0.00
		return strings.ContainsAny(value, "123456789")
	case pgtype.DateOID, pgtype.TimestampOID, pgtype.TimestamptzOID, pgtype.TimeOID, pgtype.TimetzOID, pgtype.UUIDOID:
		return true
	case pgtype.IntervalOID:
		return value != "00:00:00"
	case pgtype.BitOID, pgtype.VarbitOID:
		return strings.Contains(value, "1")
	case pgtype.ByteaOID:
		return value != "" && value != `\x`
	case pgtype.JSONOID, pgtype.JSONBOID:
		text := strings.TrimSpace(value)
		number := strings.HasPrefix(text, "0") || strings.HasPrefix(text, "-") // [0] and "0" are none
		return text != "null" && text != "false" && text != `""` && !isEmptyDocument(text) && !(number && isZero(text))
	case pgtype.BPCharOID:
		value = strings.TrimRight(value, " ")
	}
	return value != "" && value != "false" && value != "0" && !isEmptyDocument(value)
}

// isEmptyDocument reports whether the text is an empty JSON object or array, or an empty array of PostgreSQL, which is
// written as {} too.
func isEmptyDocument(text string) bool {
	if len(text) < 2 || text[0]+2 != text[len(text)-1] { // the closing bracket or brace is the second after the opening
		return false
	}
	return (text[0] == '{' || text[0] == '[') && strings.TrimSpace(text[1:len(text)-1]) == ""
}

// isZero reports whether a number is zero in any spelling: 0, -0, 0.00, 0e10, 0E-10. NaN and the infinities contain
// no digits.
func isZero(number string) bool {
	mantissa := number
	if at := strings.IndexAny(number, "eE"); at >= 0 {
		mantissa = number[:at]
	}
	return strings.Contains(mantissa, "0") && !strings.ContainsAny(mantissa, "123456789")
}

// AlwaysSet reports whether every value of the type counts as set, so that the value need not be parsed.
func AlwaysSet(typeOID uint32) bool {
	return typeOID == pgtype.TimestamptzOID || typeOID == pgtype.TimestampOID || typeOID == pgtype.DateOID
}
