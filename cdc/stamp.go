package cdc

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// Stamp is a finish stamp column in a row image.
type Stamp struct {
	Stored Text       // the column's type and a keyed hash of the value, which reveals no answer
	Value  StampValue // the value behind it
}

// StampValue is the value behind a row's stamp. It is needed to compare the row with a stamp that was stored with
// another type.
type StampValue struct {
	Text string
	Type ColumnType
	Key  *StampKey
}

// NewStamp returns the stamp for a column's value.
func NewStamp(value Text, t ColumnType, key *StampKey) Stamp {
	if value.Null || value.Unchanged {
		return Stamp{Stored: value}
	}
	stored := append(t.appendTo(make([]byte, 0, 40)), ':')
	stored = key.appendHash(stored, t.canonical(value.Value))
	return Stamp{
		Stored: Text{Value: string(stored)},
		Value:  StampValue{Text: value.Value, Type: t, Key: key},
	}
}

// NewStamps returns the stamps for a number of columns, or nil if all values are NULL.
func NewStamps(columns int, key *StampKey, column func(i int) (Text, ColumnType)) (stamps []Stamp) {
	for i := range columns {
		value, t := column(i)
		if stamps == nil && !value.Null {
			stamps = make([]Stamp, columns)
			for before := range i {
				stamps[before].Stored.Null = true
			}
		}
		if stamps != nil {
			stamps[i] = NewStamp(value, t, key)
		}
	}
	return stamps
}

// StampKey keys the hashes of the stamps of one attachment. Without it, nobody can find a value by hashing guesses.
type StampKey [32]byte

// UnmarshalText decodes the key from PostgreSQL's text format of bytea.
func (k *StampKey) UnmarshalText(text []byte) error {
	digits, found := strings.CutPrefix(string(text), `\x`)
	if !found || len(digits) != hex.EncodedLen(len(k)) {
		return fmt.Errorf("decode the key of the stamps: not %d bytes in hexadecimal digits", len(k))
	}
	if _, err := hex.Decode(k[:], []byte(digits)); err != nil {
		return fmt.Errorf("decode the key of the stamps: %w", err)
	}
	return nil
}

// storedHash is how many bytes of a hash are stored.
const storedHash = 12

// hash returns the keyed hash of a value as it is stored.
func (k *StampKey) hash(value string) string { return string(k.appendHash(nil, value)) }

// appendHash hashes a value, and then that hash with the key. The inner hash is what older versions stored, so a
// migration could convert it.
func (k *StampKey) appendHash(dst []byte, value string) []byte {
	inner := sha256.Sum256([]byte(value))
	var keyed [len(k) + storedHash]byte
	copy(keyed[:], k[:])
	copy(keyed[len(k):], inner[:storedHash])
	outer := sha256.Sum256(keyed[:])
	return base64.StdEncoding.AppendEncode(dst, outer[:storedHash])
}

// legacyType marks stamps that were stored without a type. They hash the value's text as it was sent.
const legacyType = "?"

// stampSeparator separates the stored stamps of several columns.
const stampSeparator = ","

// splitStamp appends the stored stamps of the columns to dst; "" is none.
func splitStamp(dst []string, stored string, columns int) []string {
	for range columns {
		var part string
		part, stored, _ = strings.Cut(stored, stampSeparator)
		dst = append(dst, part)
	}
	return dst
}

// joinStamp is the inverse of splitStamp.
func joinStamp(parts []string) string {
	if !isStamped(parts) {
		return ""
	}
	return strings.Join(parts, stampSeparator)
}

// isStamped reports whether any column has a stamp.
func isStamped(parts []string) bool {
	for _, part := range parts {
		if part != "" {
			return true
		}
	}
	return false
}

// storedStamp returns the row's own stamps as they are stored.
func (r *Row) storedStamp() string {
	parts := make([]string, len(r.Stamps))
	for i := range r.Stamps {
		parts[i] = r.Stamps[i].Stored.Value
	}
	return joinStamp(parts)
}

// SetStoredStamp sets the stamps of a row as they are stored, without the values behind them.
func (r *Row) SetStoredStamp(stored string, columns int) {
	r.Stamps = make([]Stamp, columns)
	for i, part := range splitStamp(nil, stored, columns) {
		r.Stamps[i].Stored = Text{Value: part, Null: part == ""}
	}
}

// hasNew reports whether the stamp is a value that differs from a stored one.
func (s *Stamp) hasNew(stored string) bool {
	return !s.Stored.Null && !s.Stored.Unchanged && s.Stored.Value != stored
}

// stampType returns the type that a stored stamp was encoded with.
func stampType(stored string) string {
	kept, _, _ := strings.Cut(stored, ":")
	return kept
}

// isRetyped reports whether a stored stamp was encoded with another type.
func (s *Stamp) isRetyped(stored string) bool {
	return stored != "" && !s.Stored.Null && !s.Stored.Unchanged && stampType(stored) != stampType(s.Stored.Value)
}

// ReplaceRetypedStamps replaces stamps that were encoded with another type by the row's own, so that they count as
// unchanged: all of them, or those that cannot be compared since the row lacks the value behind its stamp.
func (s *State) ReplaceRetypedStamps(row *Row, all bool) {
	parts := splitStamp(nil, s.Stamp, len(row.Stamps))
	for i := range row.Stamps {
		if stamp := &row.Stamps[i]; stamp.isRetyped(parts[i]) && (all || stamp.Value.Key == nil) {
			parts[i] = stamp.Stored.Value
		}
	}
	if len(parts) > 0 {
		s.Stamp = joinStamp(parts)
	}
}

// current converts a stored stamp to the type of the row's column. It returns the row's own stamp if the value is the
// same or nobody can know, and the stored one if the value has definitely changed.
func (s *Stamp) current(stored string) string {
	kept, hash, typed := strings.Cut(stored, ":")
	if !typed || !s.isRetyped(stored) {
		return stored
	}
	if !s.Value.mayEqual(kept, hash) && (kept == legacyType || s.Value.Type.preserves(parseColumnType(kept))) {
		return stored
	}
	return s.Stored.Value
}

// mayEqual reports whether a hash that was stored with another type may be of the same value.
func (v StampValue) mayEqual(kept, hash string) bool {
	same := func(text string) bool { return v.Key.hash(text) == hash }
	if kept == legacyType {
		return same(v.Text) || v.Type.Family() == FamilyTime &&
			(v.Type.equalInSomeZone(v.Text, same) || v.Type.equalInSomeZone(v.Text, func(text string) bool { return same(text + "+00") }))
	}
	before := parseColumnType(kept)
	if same(v.Text) || same(v.Type.canonical(v.Text)) || same(before.canonical(v.Text)) {
		return true
	}
	switch before.Family() {
	case FamilyTime:
		zoned := before.OID == pgtype.TimestamptzOID || v.Type.OID == pgtype.TimestamptzOID
		return zoned && v.Type.Family() == FamilyTime && v.Type.equalInSomeZone(v.Text, same)
	case FamilyNumber:
		switch before.OID {
		case pgtype.Float4OID:
			f, err := strconv.ParseFloat(v.Text, 64)
			return err == nil && same(canonicalNumber(strconv.FormatFloat(f, 'g', -1, 32)))
		default:
			return v.Type.Family() == FamilyBool && same(map[string]string{"t": "1e0", "f": "0"}[v.Text])
		}
	case FamilyBool:
		return same(map[string]string{"1e0": "true", "0": "false"}[canonicalNumber(v.Text)])
	case FamilyOpaque, FamilyText, FamilyJSON, FamilyUUID:
	}
	return false
}
