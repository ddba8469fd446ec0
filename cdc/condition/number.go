package condition

import (
	"cmp"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// errFormat reports a value that is not in the text format of its type.
var errFormat = errors.New("not in the type's text format")

const notNumber = "write a number"

// number is an exact number. NaN equals itself and is greater than all others, as in PostgreSQL.
type number struct {
	special         int // -1: -Infinity, 0: finite, 1: Infinity, 2: NaN
	negative        bool
	whole, fraction string // digits without leading or trailing zeros, respectively
}

var (
	integers = comparing(familyInteger, true, readNumber, compareNumbers, integerLiteral)
	numerics = comparing(familyNumeric, true, readNumber, compareNumbers, numericLiteral)
	oids     = comparing(familyOID, true, readNumber, compareNumbers, oidLiteral)
	reals    = comparing(familyFloat, true, readReal, compareFloats, floatLiteral)
	doubles  = comparing(familyFloat, true, readFloat, compareFloats, floatLiteral)
)

func readNumber(text string) (number, error) {
	n := number{}
	switch text {
	case "NaN":
		return number{special: 2}, nil
	case "Infinity":
		return number{special: 1}, nil
	case "-Infinity":
		return number{special: -1}, nil
	case "":
		return n, errFormat
	}
	if text[0] == '-' || text[0] == '+' {
		n.negative = text[0] == '-'
		text = text[1:]
	}
	whole, fraction, _ := strings.Cut(text, ".")
	if whole+fraction == "" || !digits(whole) || !digits(fraction) {
		return n, errFormat
	}
	n.whole, n.fraction = strings.TrimLeft(whole, "0"), strings.TrimRight(fraction, "0")
	n.negative = n.negative && n.whole+n.fraction != ""
	return n, nil
}

func digits(text string) bool {
	for i := range len(text) {
		if !isDigit(text[i]) {
			return false
		}
	}
	return true
}

func compareNumbers(a, b number) int {
	if a.special != 0 || b.special != 0 {
		return cmp.Compare(a.special, b.special)
	}
	if a.negative != b.negative {
		if a.negative {
			return -1
		}
		return 1
	}
	order := cmp.Compare(len(a.whole), len(b.whole))
	if order == 0 {
		order = strings.Compare(a.whole, b.whole)
	}
	if order == 0 {
		order = strings.Compare(a.fraction, b.fraction)
	}
	if a.negative {
		return -order
	}
	return order
}

// maxDigits bounds a literal's length and exponent.
const maxDigits = 1000

// exactLiteral reads a literal, which may have an exponent.
func exactLiteral(text string) (number, string) {
	mantissa, power, scientific := strings.Cut(strings.ToLower(text), "e")
	exponent := 0
	if scientific {
		var err error
		if exponent, err = strconv.Atoi(power); err != nil || exponent > maxDigits || exponent < -maxDigits {
			return number{}, "its exponent is too large"
		}
	}
	n, err := readNumber(mantissa)
	if err != nil || n.special != 0 {
		return number{}, notNumber
	}
	all := n.whole + n.fraction
	if len(all) > maxDigits {
		return number{}, "it is too long"
	}
	point := len(n.whole) + exponent
	if point < 0 {
		all, point = strings.Repeat("0", -point)+all, 0
	}
	if point > len(all) {
		all += strings.Repeat("0", point-len(all))
	}
	n.whole, n.fraction = strings.TrimLeft(all[:point], "0"), strings.TrimRight(all[point:], "0")
	return n, ""
}

// quotedNumber trims a text that stands for a number.
func quotedNumber(l token) string { return strings.Trim(l.text, " \t\n\r\f\v") }

var integerBounds = map[uint32][2]string{
	pgtype.Int2OID: {"-32768", "32767"}, pgtype.Int4OID: {"-2147483648", "2147483647"},
	pgtype.Int8OID: {"-9223372036854775808", "9223372036854775807"}, pgtype.OIDOID: {"0", "4294967295"},
}

// between reports whether an integer is one of the type.
func (n number) between(bounds [2]string) bool {
	low, _ := readNumber(bounds[0])
	high, _ := readNumber(bounds[1])
	return n.fraction == "" && compareNumbers(n, low) >= 0 && compareNumbers(n, high) <= 0
}

func integerLiteral(t Type, l token, _ bool) (number, string) {
	switch l.kind {
	case tokenNumber:
		return exactLiteral(l.text)
	case tokenString:
		text := quotedNumber(l)
		if !digits(strings.TrimPrefix(strings.TrimPrefix(text, "-"), "+")) {
			return number{}, "write an integer"
		}
		n, err := readNumber(text)
		if err != nil {
			return n, "write an integer"
		}
		if bounds := integerBounds[t.OID]; !n.between(bounds) {
			return n, "its values are from " + bounds[0] + " to " + bounds[1]
		}
		return n, ""
	default:
		return number{}, notNumber
	}
}

func oidLiteral(t Type, l token, _ bool) (number, string) {
	if l.kind != tokenNumber && l.kind != tokenString {
		return number{}, notNumber
	}
	n, err := readNumber(quotedNumber(l))
	if bounds := integerBounds[pgtype.OIDOID]; err != nil || !n.between(bounds) || strings.Contains(l.text, ".") {
		return n, "write an integer from " + bounds[0] + " to " + bounds[1]
	}
	return n, ""
}

// specialNumber reads NaN and the infinities as the input functions of numeric and the floats do.
func specialNumber(text string) (special int, found bool) {
	special, found = map[string]int{
		"nan": 2, "inf": 1, "+inf": 1, "-inf": -1, "infinity": 1, "+infinity": 1, "-infinity": -1,
	}[strings.ToLower(text)]
	return special, found
}

func numericLiteral(_ Type, l token, _ bool) (number, string) {
	switch l.kind {
	case tokenNumber:
		return exactLiteral(l.text)
	case tokenString:
		text := quotedNumber(l)
		if special, found := specialNumber(text); found {
			return number{special: special}, ""
		}
		if text == "" || numberLength(text) != len(text) || strings.Contains(text, " ") {
			return number{}, notNumber
		}
		return exactLiteral(text)
	default:
		return number{}, notNumber
	}
}

func readFloat(text string) (float64, error) { return strconv.ParseFloat(text, 64) }

func readReal(text string) (float64, error) { return strconv.ParseFloat(text, 32) }

// compareFloats orders NaN last, as PostgreSQL does.
func compareFloats(a, b float64) int {
	switch aIs, bIs := math.IsNaN(a), math.IsNaN(b); {
	case aIs && bIs:
		return 0
	case aIs:
		return 1
	case bIs:
		return -1
	}
	return cmp.Compare(a, b)
}

// floatLiteral reads a literal with the precision of PostgreSQL's comparison: a number beside a real column is double
// precision, a text has the column's type, and several literals in a list have it too.
func floatLiteral(t Type, l token, listed bool) (float64, string) {
	bits, text := 64, l.text
	switch l.kind {
	case tokenNumber:
		if listed && t.OID == pgtype.Float4OID {
			bits = 32
		}
	case tokenString:
		text = quotedNumber(l)
		if t.OID == pgtype.Float4OID {
			bits = 32
		}
		if special, found := specialNumber(text); found {
			return map[int]float64{2: math.NaN(), 1: math.Inf(1), -1: math.Inf(-1)}[special], ""
		}
		if text == "" || numberLength(text) != len(text) || strings.Contains(text, " ") {
			return 0, notNumber
		}
	default:
		return 0, notNumber
	}
	f, err := strconv.ParseFloat(text, bits)
	if err != nil || f == 0 && !isZero(text) {
		return 0, "it is out of the type's range"
	}
	return f, ""
}

// compareWithFloat compares columns of which at least one is a float, both as double precision.
func compareWithFloat(a, b Type) func(a, b string) (int, error) {
	reader := func(t Type) func(string) (float64, error) {
		if t.OID == pgtype.Float4OID {
			return readReal
		}
		return readFloat
	}
	left, right := reader(a), reader(b)
	return func(a, b string) (int, error) {
		l, err := left(a)
		if err != nil {
			return 0, err
		}
		r, err := right(b)
		return compareFloats(l, r), err
	}
}
