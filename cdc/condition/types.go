package condition

import (
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgtype"
)

// Type is a column's type, with domains resolved to their base type. The WAL only carries the OID; the zero values of
// the other fields are unknown.
type Type struct {
	OID       uint32
	Name      string // as format_type returns it
	Kind      byte   // pg_type.typtype: b base, c composite, d domain, e enum, p pseudo, r range, m multirange
	Labels    []string
	Collation *Collation // nil if the type has none
}

// Collation is the collation of a column.
type Collation struct {
	OID           uint32
	Name          string
	Bytewise      bool // orders like the bytes of UTF-8
	Deterministic bool // equal texts are equal bytes
}

var typeNames = pgtype.NewMap()

// String returns the type's name.
func (t Type) String() string {
	if t.Name != "" {
		return t.Name
	}
	if known, ok := typeNames.TypeForOID(t.OID); ok {
		return known.Name
	}
	return fmt.Sprint(t.OID)
}

func (t Type) isBool() bool { return t.OID == pgtype.BoolOID }

// firstUserOID is the lowest OID of types that users create.
const firstUserOID = 16384

// comparator compares values of one type.
type comparator struct {
	family  family
	ordered bool // <, <=, > and >= are possible

	// literal returns a function that compares values with a literal, or the reason why there is none.
	literal func(t Type, literal token, listed bool) (func(value string) (int, error), string)
	pair    func(a, b string) (int, error)
}

// family groups types whose values PostgreSQL compares with each other in the same way.
type family uint8

const (
	familyInteger family = iota + 1
	familyNumeric
	familyFloat
	familyOID
	familyBool
	familyText
	familyPadded
	familyName
	familyEnum
	familyUUID
	familyInstant
	familyTime
	familyTimeTZ
	familyInterval
	familyBytes
	familyNetwork
	familyMAC
	familyMAC8
	familyBits
	familyDocument
)

// comparing builds a comparator from functions that read a value and a literal, and compare two values.
func comparing[V any](
	f family, ordered bool, read func(string) (V, error), compare func(a, b V) int,
	literal func(t Type, literal token, listed bool) (V, string),
) comparator {
	return comparator{
		family: f, ordered: ordered,
		literal: func(t Type, l token, listed bool) (func(string) (int, error), string) {
			right, reason := literal(t, l, listed)
			if reason != "" {
				return nil, reason
			}
			return func(value string) (int, error) {
				left, err := read(value)
				if err != nil {
					return 0, err
				}
				return compare(left, right), nil
			}, ""
		},
		pair: func(a, b string) (int, error) {
			left, err := read(a)
			if err != nil {
				return 0, err
			}
			right, err := read(b)
			return compare(left, right), err
		},
	}
}

var comparators = map[uint32]comparator{
	pgtype.Int2OID: integers, pgtype.Int4OID: integers, pgtype.Int8OID: integers, pgtype.NumericOID: numerics,
	pgtype.Float4OID: reals, pgtype.Float8OID: doubles, pgtype.OIDOID: oids,
	pgtype.BoolOID: booleans, pgtype.UUIDOID: uuids,
	pgtype.TextOID: texts, pgtype.VarcharOID: texts, pgtype.BPCharOID: paddedTexts, pgtype.NameOID: names,
	pgtype.DateOID: instants, pgtype.TimestampOID: instants, pgtype.TimestamptzOID: instants,
	pgtype.TimeOID: times, pgtype.TimetzOID: zonedTimes, pgtype.IntervalOID: intervals,
	pgtype.ByteaOID: byteStrings, pgtype.InetOID: networks, pgtype.CIDROID: networks,
	pgtype.MacaddrOID: macs, pgtype.Macaddr8OID: macs8, pgtype.BitOID: bitStrings, pgtype.VarbitOID: bitStrings,
	pgtype.JSONBOID: documents,
}

// comparatorOf returns how values of a type are compared, or the reason why they cannot be.
func comparatorOf(t Type) (comparator, string) {
	if t.Collation != nil && !t.Collation.Deterministic {
		return comparator{}, fmt.Sprintf("its collation %s is nondeterministic, so texts are equal by rules that only "+
			"PostgreSQL knows; only is null can be asked", t.Collation.Name)
	}
	if known, ok := comparators[t.OID]; ok {
		return known, ""
	}
	// The WAL does not tell an enum from another type; the catalog did.
	if t.Kind == 'e' || t.Kind == 0 && t.OID >= firstUserOID {
		return enums, ""
	}
	switch t.OID {
	case pgtype.JSONOID:
		return comparator{}, "PostgreSQL does not compare json; only is null can be asked (jsonb has equality)"
	case MoneyOID:
		return comparator{}, "what its text means depends on lc_monetary; only is null can be asked"
	}
	return comparator{}, "values of this type cannot be compared here; only is null can be asked"
}

// cannotOrder returns the reason why values of the type cannot be ordered, or "".
func (t Type) cannotOrder(c comparator) string {
	switch {
	case t.Collation != nil && !t.Collation.Bytewise && (c.family == familyText || c.family == familyPadded):
		return fmt.Sprintf("its collation %s orders texts by rules that only PostgreSQL knows (C and POSIX order by bytes)",
			t.Collation.Name)
	case c.family == familyEnum:
		return "the order of an enum's labels can change"
	case !c.ordered:
		return "values of this type have no order here"
	}
	return ""
}

// comparatorOfPair returns how values of two columns are compared, or the reason why they cannot be.
func comparatorOfPair(a, b Type) (func(a, b string) (int, error), string) {
	left, reason := comparatorOf(a)
	if reason != "" {
		return nil, reason
	}
	right, reason := comparatorOf(b)
	if reason != "" {
		return nil, reason
	}
	families := []family{left.family, right.family}
	both := func(allowed ...family) bool {
		return slices.Contains(allowed, families[0]) && slices.Contains(allowed, families[1])
	}
	switch {
	case both(familyEnum) && (a.OID == b.OID || a.Kind == 0 || b.Kind == 0):
		return left.pair, ""
	case both(familyEnum):
		return nil, "PostgreSQL does not compare two enums"
	case both(familyText, familyPadded) && a.Collation != nil && b.Collation != nil && a.Collation.OID != b.Collation.OID:
		return nil, fmt.Sprintf("their collations %s and %s differ", a.Collation.Name, b.Collation.Name)
	case both(familyText, familyPadded) && left.family != right.family:
		return comparePaddedWithText(a, b), ""
	case both(familyInteger, familyFloat) && slices.Contains(families, familyFloat):
		return compareWithFloat(a, b), ""
	case left.family == right.family, both(familyInteger, familyNumeric):
		return left.pair, ""
	case both(familyNumeric, familyFloat):
		return nil, "PostgreSQL converts the numeric, which fails if it is too large"
	}
	return nil, "PostgreSQL does not compare them, or converts one of them"
}
