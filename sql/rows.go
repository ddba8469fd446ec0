package sql

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// lsnOID is the OID of a type that pgx does not know (pg_type.dat).
const lsnOID = 3220

// Rows is an array of one of the store's row types, such as walhook.event_in, in the form in which the server reads it. A row is
// begun with Row, followed by a value for each column in their order.
type Rows struct {
	buf []byte
	n   int
	row int // where the row begins that is being made

	columns uint32 // of that row, so far
}

var rowsPool = sync.Pool{New: func() any { return &Rows{} }}

// NewRows returns an empty array. Release it once it was sent.
func NewRows() *Rows {
	rows, ok := rowsPool.Get().(*Rows)
	if !ok {
		panic("the pool of rows holds something else")
	}
	rows.buf, rows.n = rows.buf[:0], 0
	return rows
}

// Release lets its memory be used for another.
func (r *Rows) Release() { rowsPool.Put(r) }

// Len returns the number of rows.
func (r *Rows) Len() int { return r.n }

// GoString keeps what the rows hold out of error messages.
func (r *Rows) GoString() string { return fmt.Sprintf("%d rows", r.n) }

// Row begins a row.
func (r *Rows) Row() {
	r.end()
	r.n++
	r.row, r.columns = len(r.buf), 0
	r.buf = append(r.buf, 0, 0, 0, 0, 0, 0, 0, 0) // length and number of columns, once they are known
}

// end completes the row that was being made.
func (r *Rows) end() {
	if r.n > 0 {
		binary.BigEndian.PutUint32(r.buf[r.row:], uint32(len(r.buf)-r.row-4))
		binary.BigEndian.PutUint32(r.buf[r.row+4:], r.columns)
	}
}

func (r *Rows) head(oid, length uint32) {
	r.columns++
	r.buf = binary.BigEndian.AppendUint32(r.buf, oid)
	r.buf = binary.BigEndian.AppendUint32(r.buf, length)
}

func (r *Rows) null(oid uint32) { r.head(oid, 1<<32-1) }

// Text adds a text.
func (r *Rows) Text(v string) {
	r.head(pgtype.TextOID, uint32(len(v)))
	r.buf = append(r.buf, v...)
}

// NullableText adds a text, NULL where there is none.
func (r *Rows) NullableText(v *string) {
	if v == nil {
		r.null(pgtype.TextOID)
		return
	}
	r.Text(*v)
}

// TextOrNull adds a text, NULL for the empty one.
func (r *Rows) TextOrNull(v string) {
	if v == "" {
		r.null(pgtype.TextOID)
		return
	}
	r.Text(v)
}

// Bool adds a boolean.
func (r *Rows) Bool(v bool) {
	r.head(pgtype.BoolOID, 1)
	r.buf = append(r.buf, 0)
	if v {
		r.buf[len(r.buf)-1] = 1
	}
}

// Int2 adds a smallint.
func (r *Rows) Int2(v int16) {
	r.head(pgtype.Int2OID, 2)
	r.buf = binary.BigEndian.AppendUint16(r.buf, uint16(v))
}

// Int4 adds an integer.
func (r *Rows) Int4(v int32) {
	r.head(pgtype.Int4OID, 4)
	r.buf = binary.BigEndian.AppendUint32(r.buf, uint32(v))
}

// Int8 adds a bigint.
func (r *Rows) Int8(v int64) { r.eight(pgtype.Int8OID, uint64(v)) }

// Int8OrNull adds a bigint, NULL for 0.
func (r *Rows) Int8OrNull(v int64) {
	if v == 0 {
		r.null(pgtype.Int8OID)
		return
	}
	r.Int8(v)
}

// Int8s adds a bigint[].
func (r *Rows) Int8s(v []int64) {
	r.array(pgtype.Int8ArrayOID, pgtype.Int8OID, len(v), 8)
	for _, n := range v {
		r.buf = binary.BigEndian.AppendUint32(r.buf, 8)
		r.buf = binary.BigEndian.AppendUint64(r.buf, uint64(n))
	}
}

// Bools adds a boolean[].
func (r *Rows) Bools(v []bool) {
	r.array(pgtype.BoolArrayOID, pgtype.BoolOID, len(v), 1)
	for _, b := range v {
		r.buf = binary.BigEndian.AppendUint32(r.buf, 1)
		r.buf = append(r.buf, 0)
		if b {
			r.buf[len(r.buf)-1] = 1
		}
	}
}

// array begins an array of n elements of so many bytes each.
func (r *Rows) array(oid, element uint32, n, size int) {
	if n == 0 {
		r.head(oid, 12)
		r.words(0, 0, element) // no dimension
		return
	}
	r.head(oid, uint32(20+(4+size)*n))
	r.words(1, 0, element, uint32(n), 1) // one dimension, no NULL, n elements, the first of which has the index 1
}

func (r *Rows) words(words ...uint32) {
	for _, w := range words {
		r.buf = binary.BigEndian.AppendUint32(r.buf, w)
	}
}

// LSNOrNull adds a pg_lsn, NULL for 0.
func (r *Rows) LSNOrNull(v uint64) {
	if v == 0 {
		r.null(lsnOID)
		return
	}
	r.eight(lsnOID, v)
}

// TimeOrNull adds a timestamptz, NULL for the zero time.
func (r *Rows) TimeOrNull(v time.Time) {
	if v.IsZero() {
		r.null(pgtype.TimestamptzOID)
		return
	}
	const epoch = 946_684_800_000_000 // 2000-01-01 in microseconds since 1970
	r.eight(pgtype.TimestamptzOID, uint64(v.UnixMicro()-epoch))
}

func (r *Rows) eight(oid uint32, v uint64) {
	r.head(oid, 8)
	r.buf = binary.BigEndian.AppendUint64(r.buf, v)
}

// registerRows lets a connection send Rows, as far as the store has the types yet. It prepares nothing, so that where a pooler is in the
// way that cannot be told here either.
func registerRows(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `select t.typname::text, t.oid, t.typarray from pg_catalog.pg_type t
		where t.typnamespace = pg_catalog.to_regnamespace('walhook') and t.typname in ('event_in', 'state_in', 'result_in', 'look_in')`, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return fmt.Errorf("look up the store's types: %w", err)
	}
	var (
		name           string
		element, array uint32
	)
	_, err = pgx.ForEachRow(rows, []any{&name, &element, &array}, func() error {
		conn.TypeMap().RegisterType(&pgtype.Type{Name: "walhook." + name + "[]", OID: array, Codec: rowsCodec{element: element}})
		return nil
	})
	if err != nil {
		return fmt.Errorf("look up the store's types: %w", err)
	}
	return nil
}

// rowsCodec sends Rows, and reads nothing.
type rowsCodec struct{ element uint32 }

var errUnread = errors.New("rows of the store's row types are sent and never read")

func (rowsCodec) FormatSupported(format int16) bool { return format == pgtype.BinaryFormatCode }

func (rowsCodec) PreferredFormat() int16 { return pgtype.BinaryFormatCode }

func (c rowsCodec) PlanEncode(_ *pgtype.Map, _ uint32, format int16, value any) pgtype.EncodePlan {
	if _, ok := value.(*Rows); !ok || format != pgtype.BinaryFormatCode {
		return nil
	}
	return c
}

// Encode appends the array.
func (c rowsCodec) Encode(value any, buf []byte) ([]byte, error) {
	rows, ok := value.(*Rows)
	if !ok {
		return nil, fmt.Errorf("send a %T as rows", value)
	}
	rows.end()
	dimensions := uint32(1)
	if rows.n == 0 {
		dimensions = 0
	}
	for _, v := range []uint32{dimensions, 0, c.element} {
		buf = binary.BigEndian.AppendUint32(buf, v)
	}
	if rows.n > 0 {
		buf = binary.BigEndian.AppendUint32(buf, uint32(rows.n))
		buf = binary.BigEndian.AppendUint32(buf, 1) // the first index
	}
	return append(buf, rows.buf...), nil
}

func (rowsCodec) PlanScan(*pgtype.Map, uint32, int16, any) pgtype.ScanPlan { return nil }

func (rowsCodec) DecodeDatabaseSQLValue(*pgtype.Map, uint32, int16, []byte) (driver.Value, error) {
	return nil, errUnread
}

func (rowsCodec) DecodeValue(*pgtype.Map, uint32, int16, []byte) (any, error) {
	return nil, errUnread
}
