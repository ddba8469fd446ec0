package sql

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// lsnOID is the OID of a type that pgx does not know (pg_type.dat).
const lsnOID = 3220

// Rows is a parameter that is an array of one of the store's row types, such as walhook.event_in. T is a struct with a
// field for each attribute of that type, which the field's tag names: `sql:"response_id"`. A nil pointer is NULL. So is
// the zero value of a field whose tag ends in ",null".
//
// The composite codec of pgx takes attributes by their position, and takes seven times as long.
type Rows[T any] []T

// GoString keeps the contents out of error messages.
func (r Rows[T]) GoString() string { return fmt.Sprintf("%d rows", len(r)) }

// rowType is one of the store's row types.
type rowType struct {
	name       string
	element    uint32
	attributes []string
	oids       []uint32
}

// registerRows lets a connection send Rows, as far as the store has the types yet. It prepares nothing, so that a
// pooler in between is not noticed here either.
func registerRows(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `
		select t.typname::text, t.oid, t.typarray, array_agg(a.attname::text order by a.attnum), array_agg(a.atttypid order by a.attnum)
		  from pg_catalog.pg_type t join pg_catalog.pg_attribute a on a.attrelid = t.typrelid
		 where t.typnamespace = pg_catalog.to_regnamespace('walhook') and t.typname like '%\_in' and a.attnum > 0 and not a.attisdropped
		 group by t.oid, t.typname, t.typarray`, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return fmt.Errorf("look up the store's types: %w", err)
	}
	var t rowType
	var array uint32
	_, err = pgx.ForEachRow(rows, []any{&t.name, &t.element, &array, &t.attributes, &t.oids}, func() error {
		conn.TypeMap().RegisterType(&pgtype.Type{Name: "walhook." + t.name + "[]", OID: array, Codec: rowsCodec{t}})
		t.attributes, t.oids = nil, nil
		return nil
	})
	if err != nil {
		return fmt.Errorf("look up the store's types: %w", err)
	}
	return nil
}

// rowsCodec sends Rows of a row type, and reads nothing.
type rowsCodec struct{ rowType }

var errUnread = errors.New("rows of the store's row types are sent and never read")

func (rowsCodec) FormatSupported(format int16) bool { return format == pgtype.BinaryFormatCode }

func (rowsCodec) PreferredFormat() int16 { return pgtype.BinaryFormatCode }

func (rowsCodec) PlanScan(*pgtype.Map, uint32, int16, any) pgtype.ScanPlan { return nil }

func (rowsCodec) DecodeDatabaseSQLValue(*pgtype.Map, uint32, int16, []byte) (driver.Value, error) {
	return nil, errUnread
}

func (rowsCodec) DecodeValue(*pgtype.Map, uint32, int16, []byte) (any, error) { return nil, errUnread }

func (c rowsCodec) PlanEncode(_ *pgtype.Map, _ uint32, format int16, value any) pgtype.EncodePlan {
	t := reflect.TypeOf(value)
	if format != pgtype.BinaryFormatCode || t.Kind() != reflect.Slice || t.Elem().Kind() != reflect.Struct {
		return nil
	}
	return c.plan(t.Elem())
}

// rowsPlan encodes Rows of one struct type.
type rowsPlan struct {
	element uint32
	columns []column
	err     error // the struct does not fit the row type
}

// column is an attribute of a row type and the field that it comes from.
type column struct {
	oid   uint32
	field int
	null  bool // the zero value is NULL
}

func (t *rowType) plan(row reflect.Type) *rowsPlan {
	p := &rowsPlan{element: t.element}
	fields := map[string]column{}
	for i := range row.NumField() {
		name, option, _ := strings.Cut(row.Field(i).Tag.Get("sql"), ",")
		fields[name] = column{field: i, null: option == "null"}
	}
	for i, attribute := range t.attributes {
		c, found := fields[attribute]
		if !found {
			p.err = fmt.Errorf("%s has no field for walhook.%s.%s", row, t.name, attribute)
		}
		c.oid = t.oids[i]
		p.columns = append(p.columns, c)
	}
	if len(fields) != len(t.attributes) && p.err == nil {
		p.err = fmt.Errorf("%s has %d fields, and walhook.%s %d attributes", row, len(fields), t.name, len(t.attributes))
	}
	return p
}

// Encode appends the array. https://www.postgresql.org/docs/current/protocol-message-formats.html leaves the format of
// arrays and rows to array_send and record_send.
func (p *rowsPlan) Encode(value any, buf []byte) ([]byte, error) {
	if p.err != nil {
		return nil, p.err
	}
	rows := reflect.ValueOf(value)
	buf = appendArray(buf, p.element, rows.Len())
	for i := range rows.Len() {
		row, start := rows.Index(i), len(buf)
		buf = appendWords(buf, 0, uint32(len(p.columns)))
		for _, c := range p.columns {
			field, at := row.Field(c.field), len(buf)
			buf = appendWords(buf, c.oid, nullLength)
			if c.null && field.IsZero() {
				continue
			}
			before := len(buf)
			if buf = appendField(buf, field); buf == nil {
				return nil, fmt.Errorf("send a %s", field.Type())
			}
			if field.Kind() != reflect.Pointer || !field.IsNil() {
				binary.BigEndian.PutUint32(buf[at+4:], uint32(len(buf)-before))
			}
		}
		binary.BigEndian.PutUint32(buf[start:], uint32(len(buf)-start-4))
	}
	return buf, nil
}

// nullLength is the length of a NULL.
const nullLength = 1<<32 - 1

// epoch is the beginning of PostgreSQL's time, 2000, in microseconds since 1970.
const epoch = 946_684_800_000_000

// appendField appends a value in the binary format of its type, or returns nil for a type that no row has.
func appendField(buf []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.String:
		return append(buf, v.String()...)
	case reflect.Pointer:
		if v.IsNil() {
			return buf
		}
		return appendField(buf, v.Elem())
	case reflect.Bool:
		if v.Bool() {
			return append(buf, 1)
		}
		return append(buf, 0)
	case reflect.Int16:
		return binary.BigEndian.AppendUint16(buf, uint16(v.Int()))
	case reflect.Int32:
		return binary.BigEndian.AppendUint32(buf, uint32(v.Int()))
	case reflect.Int64:
		return binary.BigEndian.AppendUint64(buf, uint64(v.Int()))
	case reflect.Uint64:
		return binary.BigEndian.AppendUint64(buf, v.Uint())
	case reflect.Slice:
		element := map[reflect.Kind]uint32{reflect.Int64: pgtype.Int8OID, reflect.Bool: pgtype.BoolOID}[v.Type().Elem().Kind()]
		buf = appendArray(buf, element, v.Len())
		for i := range v.Len() {
			at := len(buf) + 4
			buf = appendField(appendWords(buf, 0), v.Index(i))
			binary.BigEndian.PutUint32(buf[at-4:], uint32(len(buf)-at))
		}
		return buf
	default:
		if at, ok := v.Addr().Interface().(*time.Time); ok {
			return binary.BigEndian.AppendUint64(buf, uint64(at.UnixMicro()-epoch))
		}
		return nil
	}
}

// appendArray appends the head of an array of n elements, none of which is NULL.
func appendArray(buf []byte, element uint32, n int) []byte {
	if n == 0 {
		return appendWords(buf, 0, 0, element)
	}
	return appendWords(buf, 1, 0, element, uint32(n), 1) // one dimension, whose first index is 1
}

func appendWords(buf []byte, words ...uint32) []byte {
	for _, w := range words {
		buf = binary.BigEndian.AppendUint32(buf, w)
	}
	return buf
}
