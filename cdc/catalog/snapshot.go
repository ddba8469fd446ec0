package catalog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/cdc"
)

// copyBufferSize is how many bytes of converted rows are passed to the store at a time.
const copyBufferSize = 64 << 10

// copyChunk is how many bytes of converted rows one COPY statement writes. Logical decoding then keeps the
// transaction in memory: a row takes at least 11 bytes here and some 200 bytes there, and logical_decoding_work_mem
// is 64 MB by default.
const copyChunk = 2 << 20

// CopyRows reads columns of a table at the source transaction's snapshot, converts each row and writes it to target,
// a `table (columns)` of the store. Memory is bounded by one row and a buffer. convert appends the row in COPY's text
// format, without the newline, or nothing to omit it. CopyRows calls refused for each row that the store rejects,
// with the converted row and the cause.
func CopyRows(
	ctx context.Context, source, store *pgx.Conn, from cdc.Name, columns []string, target string,
	convert func(dst []byte, fields []cdc.Text) ([]byte, error), progress func(rows int64),
	refused func(row []byte, cause error) error,
) (int64, error) {
	statements, err := CopyOutSQL(ctx, source, from, columns)
	if err != nil {
		return 0, err
	}
	text := newSourceText(ctx, source.Config().ConnString(), source.PgConn().ParameterStatus("server_encoding"))
	defer text.Close()
	pipeReader, pipeWriter := io.Pipe()
	converter := &rowConverter{
		to: pipeWriter, text: text, fields: make([]cdc.Text, len(columns)), convert: convert, progress: progress,
	}
	readDone := make(chan error, 1)
	go func() {
		var err error
		for _, statement := range statements {
			if _, err = source.PgConn().CopyTo(ctx, converter, statement); err != nil {
				break
			}
		}
		if err == nil {
			err = converter.flush()
		}
		_ = pipeWriter.CloseWithError(err)
		readDone <- err
	}()
	writeErr := copyIn(ctx, store, pipeReader, target, refused)
	_ = pipeReader.CloseWithError(writeErr)
	readErr := <-readDone
	switch {
	case readErr != nil && writeErr == nil,
		// Either side may see the error of the other one. Report the original.
		readErr != nil && !errors.Is(readErr, writeErr) && strings.Contains(writeErr.Error(), readErr.Error()):
		return converter.rows, readError(from, source.Config().User, readErr)
	case writeErr != nil:
		return converter.rows, fmt.Errorf("write the state of %s: %w", from.Display(), writeErr)
	}
	progress(converter.rows)
	return converter.rows, nil
}

// ScanRows reads columns of a table with the statements, and calls row with each row's fields, which it must not retain. It
// stops when row returns an error; the connection cannot be used afterwards.
func ScanRows(
	ctx context.Context, source *pgx.Conn, from cdc.Name, columns, statements []string,
	row func(fields []cdc.Text) error, progress func(rows int64),
) error {
	text := newSourceText(ctx, source.Config().ConnString(), source.PgConn().ParameterStatus("server_encoding"))
	defer text.Close()
	scanner := &rowConverter{
		to: io.Discard, text: text, fields: make([]cdc.Text, len(columns)), progress: progress,
		convert: func(dst []byte, fields []cdc.Text) ([]byte, error) { return dst, row(fields) },
	}
	for _, statement := range statements {
		if _, err := source.PgConn().CopyTo(ctx, scanner, statement); err != nil {
			return readError(from, source.Config().User, err)
		}
	}
	return nil
}

// readError says what to do if policies apply to the table, which may be enabled at any time.
func readError(from cdc.Name, user string, err error) error {
	var server *pgconn.PgError
	if errors.As(err, &server) && server.Routine == "check_enable_rls" {
		return fmt.Errorf("read the rows of %s: row-level security applies to this role: %s: %w",
			from.Display(), rowSecurityRemedy(user), err)
	}
	return fmt.Errorf("read the rows of %s: %w", from.Display(), err)
}

// rowSecurityRemedy is the remedy if policies apply to a role.
func rowSecurityRemedy(user string) string {
	return fmt.Sprintf("ALTER ROLE %s BYPASSRLS; or connect as the table's owner", pgx.Identifier{user}.Sanitize())
}

// copyIn writes rows in COPY's text format. Each statement writes copyChunk bytes and the rest of the last row.
func copyIn(
	ctx context.Context, store *pgx.Conn, rows io.Reader, target string, refused func([]byte, error) error,
) error {
	lines := &chunkReader{from: bufio.NewReaderSize(rows, copyBufferSize)}
	var part bytes.Buffer // the rows that the current statement has read
	for {
		lines.left = copyChunk
		part.Reset()
		err := copyLines(ctx, store, io.TeeReader(lines, &part), target)
		if cdc.IsRejected(err) {
			if _, err := part.ReadFrom(lines); err != nil {
				return err
			}
			err = copyBisect(ctx, store, part.Bytes(), target, err, refused)
		}
		if err != nil || lines.ended() {
			return err
		}
	}
}

// copyLines writes rows with one statement.
func copyLines(ctx context.Context, store *pgx.Conn, rows io.Reader, target string) error {
	return InSavepoint(ctx, store, func() error {
		_, err := store.PgConn().CopyFrom(ctx, rows, "copy "+target+" from stdin")
		return err
	})
}

// copyBisect writes rows that the store rejected together. It splits them until each rejected row stands alone.
func copyBisect(
	ctx context.Context, store *pgx.Conn, rows []byte, target string, cause error, refused func([]byte, error) error,
) error {
	half := len(rows) / 2
	end := half + 1 + bytes.IndexByte(rows[half:], '\n') // of the middle line
	if end == len(rows) {
		end = 1 + bytes.LastIndexByte(rows[:end-1], '\n') // the middle line is the last one
	}
	if end == 0 {
		return refused(bytes.TrimSuffix(rows, []byte{'\n'}), cause)
	}
	for _, some := range [][]byte{rows[:end], rows[end:]} {
		err := copyLines(ctx, store, bytes.NewReader(some), target)
		if cdc.IsRejected(err) {
			err = copyBisect(ctx, store, some, target, err, refused)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// chunkReader reads a number of bytes, and on to the end of the current line.
type chunkReader struct {
	from *bufio.Reader
	left int
	last byte // last byte read
}

func (r *chunkReader) Read(p []byte) (int, error) {
	if r.left > 0 {
		n, err := r.from.Read(p[:min(len(p), r.left)])
		if r.left -= n; n > 0 {
			r.last = p[n-1]
		}
		return n, err
	}
	for n := range p {
		if r.last == '\n' {
			return n, io.EOF
		}
		b, err := r.from.ReadByte()
		if err != nil {
			return n, err
		}
		p[n], r.last = b, b
	}
	return len(p), nil
}

// ended reports whether there are no more lines. A read error counts as more lines: the next Read returns it.
func (r *chunkReader) ended() bool {
	_, err := r.from.Peek(1)
	return errors.Is(err, io.EOF)
}

// CopyOutSQL returns the statements that read the mapped columns, with text as stored. They avoid planning if
// possible: to plan a query on a table, the server evaluates its index expressions, and runs functions of the table's
// owner with the rights of the caller. So each partition is copied separately, unless the role may only read the
// partitioned table.
func CopyOutSQL(ctx context.Context, source *pgx.Conn, from cdc.Name, columns []string) ([]string, error) {
	rows, err := source.Query(ctx, `
		select pg_catalog.format('%I.%I', n.nspname, c.relname),
		       (select pg_catalog.bool_and(pg_catalog.has_schema_privilege(n.oid, 'usage')
		                                   and pg_catalog.has_column_privilege(c.oid, a, 'select')) from unnest($3::text[]) a)
		  from pg_catalog.pg_class r join pg_catalog.pg_namespace s on s.oid = r.relnamespace
		  join pg_catalog.pg_class c on c.oid = r.oid or c.oid in (select relid from pg_catalog.pg_partition_tree(r.oid) where isleaf)
		  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		 where s.nspname = $1 and r.relname = $2 and c.relkind = 'r' order by c.oid`, from.Schema, from.Table, columns)
	if err != nil {
		return nil, fmt.Errorf("look up the partitions of %s: %w", from.Display(), err)
	}
	var (
		statements       []string
		name             string
		readable, hidden bool
	)
	_, err = pgx.ForEachRow(rows, []any{&name, &readable}, func() error {
		statements = append(statements, fmt.Sprintf("copy %s (%s) to stdout (encoding 'SQL_ASCII')", name, QuoteIdentifiers(columns)))
		hidden = hidden || !readable
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look up the partitions of %s: %w", from.Display(), err)
	}
	if hidden {
		return []string{
			fmt.Sprintf("copy (select %s from %s) to stdout (encoding 'SQL_ASCII')", QuoteIdentifiers(columns), from),
		}, nil
	}
	return statements, nil
}

// rowConverter converts rows in COPY's text format, which the server sends one per message, and writes them to
// another writer.
type rowConverter struct {
	to       io.Writer
	text     *SourceText
	partial  []byte // the beginning of an incomplete row
	out      []byte
	fields   []cdc.Text
	convert  func([]byte, []cdc.Text) ([]byte, error)
	progress func(int64)
	rows     int64
}

func (c *rowConverter) Write(data []byte) (int, error) {
	total := len(data)
	for {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			c.partial = append(c.partial, data...)
			return total, nil
		}
		line := data[:end]
		if len(c.partial) > 0 {
			c.partial = append(c.partial, line...)
			line = c.partial
		}
		if err := c.row(line); err != nil {
			return 0, err
		}
		c.partial = c.partial[:0]
		data = data[end+1:]
	}
}

func (c *rowConverter) row(line []byte) (err error) {
	for i := range c.fields {
		field, rest, more := bytes.Cut(line, []byte{'\t'})
		if more != (i < len(c.fields)-1) {
			return fmt.Errorf("row %d has not %d columns", c.rows+1, len(c.fields))
		}
		c.fields[i] = CopyField(field)
		if c.fields[i].Value, err = c.text.Decode(c.fields[i].Value); err != nil {
			return err
		}
		line = rest
	}
	before := len(c.out)
	if c.out, err = c.convert(c.out, c.fields); err != nil {
		return err
	}
	if len(c.out) > before {
		c.out = append(c.out, '\n')
	}
	if c.rows++; c.rows%10000 == 0 {
		c.progress(c.rows)
	}
	if len(c.out) >= copyBufferSize {
		return c.flush()
	}
	return nil
}

func (c *rowConverter) flush() error {
	_, err := c.to.Write(c.out)
	c.out = c.out[:0]
	return err
}

// BeginAtSnapshot begins a transaction on the source at a new slot's exported snapshot: it sees exactly what precedes
// the slot's stream.
func BeginAtSnapshot(ctx context.Context, source *pgx.Conn, snapshot string) error {
	for _, statement := range []string{
		"begin isolation level repeatable read read only",
		"set transaction snapshot '" + strings.ReplaceAll(snapshot, "'", "''") + "'",
	} {
		if _, err := source.Exec(ctx, statement); err != nil {
			return fmt.Errorf("read at the slot's snapshot: %w", err)
		}
	}
	return nil
}
