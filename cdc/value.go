package cdc

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// ColumnType is a column's type, with domains resolved to their base type, and its modifier, such as a numeric's
// scale; -1 is none.
type ColumnType struct {
	OID      uint32 `json:"oid"`
	Modifier int32  `json:"modifier"`
}

// appendTo appends the type in the form that prefixes a stored stamp.
func (t ColumnType) appendTo(dst []byte) []byte {
	dst = strconv.AppendUint(dst, uint64(t.OID), 10)
	if t.Modifier >= 0 {
		dst = strconv.AppendInt(append(dst, '.'), int64(t.Modifier), 10)
	}
	return dst
}

func parseColumnType(s string) ColumnType {
	oid, modifier, limited := strings.Cut(s, ".")
	n, _ := strconv.ParseUint(oid, 10, 32)
	t := ColumnType{OID: uint32(n), Modifier: -1}
	if limited {
		m, _ := strconv.ParseInt(modifier, 10, 32)
		t.Modifier = int32(m)
	}
	return t
}

// Family groups types whose values can be compared with each other.
type Family uint8

// Families of types.
const (
	FamilyOpaque Family = iota // compared by its text alone
	FamilyNumber               // integers, numeric, floats
	FamilyTime                 // dates and timestamps
	FamilyText                 // text types
	FamilyJSON                 // json, jsonb
	FamilyBool                 // boolean
	FamilyUUID
)

// Family returns the family of the type.
func (t ColumnType) Family() Family {
	switch t.OID {
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.NumericOID, pgtype.Float4OID,
		pgtype.Float8OID:
		return FamilyNumber
	case pgtype.DateOID, pgtype.TimestampOID, pgtype.TimestamptzOID:
		return FamilyTime
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.BPCharOID, pgtype.NameOID:
		return FamilyText
	case pgtype.JSONOID, pgtype.JSONBOID:
		return FamilyJSON
	case pgtype.BoolOID:
		return FamilyBool
	case pgtype.UUIDOID:
		return FamilyUUID
	}
	return FamilyOpaque
}

// canonical returns a value's text without the differences that its type ignores: scale, padding, and the order and
// whitespace of a JSON document.
func (t ColumnType) canonical(text string) string {
	switch t.Family() {
	case FamilyNumber:
		return canonicalNumber(text)
	case FamilyTime:
		local, rest, _ := strings.Cut(text, "+00") // sessions are in UTC
		local += rest
		if t.OID == pgtype.DateOID && !strings.HasSuffix(text, "infinity") {
			day, era, _ := strings.Cut(local, " ")
			local = strings.TrimSpace(day + " 00:00:00 " + era)
		}
		return local
	case FamilyText:
		if t.OID == pgtype.BPCharOID {
			return strings.TrimRight(text, " ")
		}
	case FamilyJSON:
		return canonicalDocument(text)
	case FamilyBool:
		switch text {
		case "t":
			return "true"
		case "f":
			return "false"
		}
	case FamilyUUID:
		return strings.ToLower(text)
	case FamilyOpaque:
	}
	return text
}

// canonicalNumber returns the significant digits and the exponent of the last one, such as 175e-1 for 17.50. It
// returns text that is not a number unchanged.
func canonicalNumber(text string) string {
	sign, digits := "", strings.TrimSpace(text)
	if rest, negative := strings.CutPrefix(digits, "-"); negative {
		sign, digits = "-", rest
	}
	mantissa, power, scientific := strings.Cut(strings.ToLower(digits), "e")
	exponent := 0
	if scientific {
		n, err := strconv.Atoi(power)
		if err != nil {
			return text
		}
		exponent = n
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	all := whole + fraction
	if all == "" || strings.Trim(all, "0123456789") != "" {
		return text
	}
	exponent -= len(fraction)
	all = strings.TrimLeft(all, "0")
	significant := strings.TrimRight(all, "0")
	if significant == "" {
		return "0"
	}
	return sign + significant + "e" + strconv.Itoa(exponent+len(all)-len(significant))
}

// canonicalDocument returns JSON in a form that is equal if jsonb considers the documents equal.
func canonicalDocument(text string) string {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var value any
	if decoder.Decode(&value) != nil || decoder.More() {
		return text
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(canonicalNumbers(value)) != nil {
		return text
	}
	return out.String()
}

func canonicalNumbers(value any) any {
	switch v := value.(type) {
	case json.Number:
		// No string of the document becomes this: each begins with '.
		return json.RawMessage(strconv.Quote("#" + canonicalNumber(v.String())))
	case string:
		return "'" + v
	case []any:
		for i := range v {
			v[i] = canonicalNumbers(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = canonicalNumbers(v[key])
		}
	}
	return value
}

// HashValue returns a short hash that stands for a value in messages.
func HashValue(value string) string {
	sum := sha256.Sum256([]byte(value))
	return base64.StdEncoding.EncodeToString(sum[:12])
}

// equalInSomeZone reports whether some time zone makes the timestamp equal to the hashed one. A conversion between
// timestamp and timestamptz shifts the value by the zone's offset, a multiple of 15 minutes.
func (t ColumnType) equalInSomeZone(text string, same func(string) bool) bool {
	const layout = "2006-01-02 15:04:05.999999"
	local, err := time.Parse(layout, t.canonical(text))
	if err != nil {
		return false
	}
	for offset := -15 * time.Hour; offset <= 15*time.Hour; offset += 15 * time.Minute {
		if same(local.Add(offset).Format(layout)) {
			return true
		}
	}
	return false
}

// preserves reports whether distinct values of the former type remain distinct and comparable in this one, so that a
// value which differs has changed.
func (t ColumnType) preserves(before ColumnType) bool {
	if t.Family() == FamilyText {
		return before.Family() != FamilyOpaque || before.OID >= firstUserOID // an enum
	}
	switch before.Family() {
	case FamilyNumber:
		return t.Family() == FamilyNumber && t.scale() >= before.scale()
	case FamilyTime:
		return t.Family() == FamilyTime && t.OID != pgtype.DateOID && t.precision() >= before.precision()
	case FamilyBool:
		return t.Family() == FamilyNumber
	case FamilyJSON:
		return t.Family() == FamilyJSON
	case FamilyText, FamilyUUID, FamilyOpaque:
	}
	return false
}

// firstUserOID is the lowest OID of objects that users create.
const firstUserOID = 16384

// scale returns the maximum number of digits after a number's decimal point.
func (t ColumnType) scale() int32 {
	const unbounded = 1 << 14
	switch t.OID {
	case pgtype.NumericOID:
		if t.Modifier < 4 {
			return unbounded
		}
		return (t.Modifier - 4) & 0x7ff
	case pgtype.Float4OID:
		return unbounded - 2
	case pgtype.Float8OID:
		return unbounded - 1
	}
	return 0
}

// precision returns the maximum number of fractional digits of a timestamp's seconds.
func (t ColumnType) precision() int32 {
	switch {
	case t.OID == pgtype.DateOID:
		return -1
	case t.Modifier < 0:
		return 6
	}
	return t.Modifier
}

// Name returns the type's name, for messages.
func (t ColumnType) Name() string {
	if known, ok := TypeNames.TypeForOID(t.OID); ok {
		if t.Modifier >= 0 {
			return fmt.Sprintf("%s with modifier %d", known.Name, t.Modifier)
		}
		return known.Name
	}
	return fmt.Sprintf("type %d", t.OID)
}

// CastName returns the type for a cast in SQL.
func (t ColumnType) CastName() string {
	switch t.OID {
	case pgtype.Int2OID:
		return "numeric::smallint"
	case pgtype.Int4OID:
		return "numeric::integer"
	case pgtype.Int8OID:
		return "numeric::bigint"
	case pgtype.Float4OID:
		return "real"
	case pgtype.Float8OID:
		return "double precision"
	}
	if t.Modifier >= 4 {
		return fmt.Sprintf("numeric(%d,%d)", (t.Modifier-4)>>16, t.scale())
	}
	return "numeric"
}

// IsInteger reports whether keys of this type appear as JSON numbers.
func (t ColumnType) IsInteger() bool {
	return t.OID == pgtype.Int2OID || t.OID == pgtype.Int4OID || t.OID == pgtype.Int8OID
}

// TypeNames looks up built-in types by name.
var TypeNames = pgtype.NewMap()
