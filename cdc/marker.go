package cdc

import (
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// Mark returns the marker's state for a value in the text output format of its type.
func (m Marker) Mark(value Text, typeOID uint32) Mark {
	switch {
	case value.Unchanged:
		return MarkUnchanged
	case value.Null:
		return MarkUnset
	case len(m.Values) > 0 && m.matches(value.Value, typeOID), len(m.Values) == 0 && isSet(value.Value, typeOID):
		return MarkSet
	default:
		return MarkUnset
	}
}

// matches compares the value, as text, with the marker's values. A boolean's text is true or false in SQL and t or f
// on the wire; the marker may use either.
func (m Marker) matches(value string, typeOID uint32) bool {
	if slices.Contains(m.Values, value) {
		return true
	}
	switch typeOID {
	case pgtype.BPCharOID: // trailing blanks are insignificant, both as padding and in the marker
		value = strings.TrimRight(value, " ")
		return slices.ContainsFunc(m.Values, func(v string) bool { return strings.TrimRight(v, " ") == value })
	case pgtype.BoolOID:
		return value == "t" && slices.Contains(m.Values, "true") || value == "f" && slices.Contains(m.Values, "false")
	}
	return false
}

// MoneyOID is the OID of type money, for which pgtype has no constant.
const MoneyOID = 790

// isSet reports whether a value is neither false, zero nor empty by the rules of its type.
func isSet(value string, typeOID uint32) bool {
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
		return text != "null" && text != "false" && text != `""` && !(number && isZero(text))
	case pgtype.BPCharOID:
		value = strings.TrimRight(value, " ")
	}
	return value != "" && value != "false" && value != "0"
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
