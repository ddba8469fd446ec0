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

	"walhook/cdc"
)

// copyBufferSize is how many bytes of converted rows are handed to the store at a time.
const copyBufferSize = 64 << 10

// copyChunk is how many bytes of converted rows go into one statement of the store where it may be several. A transaction of so
// many rows, which take 11 bytes at least, is decoded in memory: logical_decoding_work_mem is 64 MB by default, and a change takes some
// 200 bytes of it.
const copyChunk = 2 << 20

// CopyRows reads the given columns of a table at the snapshot that the source transaction has, converts each row and writes
// it to the target, a `table (columns)` of the store. Memory stays bounded by one row and a buffer, whatever the table's size.
// convert appends the row for COPY's text format, without the line end, or nothing to leave it out. refused is
// told of each row that the store cannot take, as it was converted, and why.
func CopyRows(ctx context.Context, source, store *pgx.Conn, from cdc.Name, columns []string, target string,
	convert func(dst []byte, fields []cdc.Text) ([]byte, error), progress func(rows int64), refused func(row []byte, cause error) error,
) (int64, error) {
	statements, err := CopyOutSQL(ctx, source, from, columns)
	if err != nil {
		return 0, err
	}
	text := newSourceText(ctx, source.Config().ConnString(), source.PgConn().ParameterStatus("server_encoding"))
	defer text.Close()
	pipeReader, pipeWriter := io.Pipe()
	converter := &rowConverter{to: pipeWriter, text: text, fields: make([]cdc.Text, len(columns)), convert: convert, progress: progress}
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
		// The one who reads is told why nobody takes the rows any more, and the one who writes why there are none.
		readErr != nil && !errors.Is(readErr, writeErr) && strings.Contains(writeErr.Error(), readErr.Error()):
		return converter.rows, fmt.Errorf("read the rows of %s: %w", from.Display(), readErr)
	case writeErr != nil:
		return converter.rows, fmt.Errorf("write the state of %s: %w", from.Display(), writeErr)
	}
	progress(converter.rows)
	return converter.rows, nil
}

// copyIn writes rows in COPY's text format, copyChunk bytes and the rest of the row with each statement.
func copyIn(ctx context.Context, store *pgx.Conn, rows io.Reader, target string, refused func([]byte, error) error) error {
	lines := &chunkReader{from: bufio.NewReaderSize(rows, copyBufferSize)}
	var part bytes.Buffer // what was read of the part that is being written
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

// copyBisect writes rows that the store has refused together, until the one that it refuses is alone.
func copyBisect(ctx context.Context, store *pgx.Conn, rows []byte, target string, cause error, refused func([]byte, error) error) error {
	half := len(rows) / 2
	end := half + 1 + bytes.IndexByte(rows[half:], '\n') // of the line in the middle
	if end == len(rows) {
		end = 1 + bytes.LastIndexByte(rows[:end-1], '\n') // it is the last one
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

// chunkReader reads so many bytes and the rest of the line in which they end.
type chunkReader struct {
	from *bufio.Reader
	left int
	last byte // that was read
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

// ended reports whether there are no more lines. What keeps them from being read counts as more: the next Read tells.
func (r *chunkReader) ended() bool {
	_, err := r.from.Peek(1)
	return errors.Is(err, io.EOF)
}

// CopyOutSQL returns the statements that read the mapped columns, with text as it is stored. They plan nothing where that can be: to plan a query of a table, the
// server evaluates expressions of its indexes, with functions that the table's owner may have written, and the rights of whoever asks.
// So each partition is read by itself, unless the role may read them by way of the partitioned table alone.
func CopyOutSQL(ctx context.Context, source *pgx.Conn, from cdc.Name, columns []string) ([]string, error) {
	rows, err := source.Query(ctx, `
		select pg_catalog.format('%I.%I', n.nspname, c.relname),
		       (select pg_catalog.bool_and(pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_column_privilege(c.oid, a, 'select')) from unnest($3::text[]) a)
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
		return []string{fmt.Sprintf("copy (select %s from %s) to stdout (encoding 'SQL_ASCII')", QuoteIdentifiers(columns), from)}, nil
	}
	return statements, nil
}

// rowConverter takes rows in COPY's text format, of which the server sends one a message, and passes them on converted.
type rowConverter struct {
	to       io.Writer
	text     *SourceText
	partial  []byte // the beginning of a row whose end has not come
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

// CopyField reads a field of COPY's text format (PostgreSQL manual, COPY, "Text Format").
func CopyField(field []byte) cdc.Text {
	if len(field) == 2 && field[0] == '\\' && field[1] == 'N' {
		return cdc.Text{Null: true}
	}
	if bytes.IndexByte(field, '\\') < 0 {
		return cdc.Text{Value: string(field)}
	}
	plain := make([]byte, 0, len(field))
	for i := 0; i < len(field); i++ {
		if field[i] != '\\' || i+1 == len(field) {
			plain = append(plain, field[i])
			continue
		}
		i++
		if at := strings.IndexByte("bfnrtv", field[i]); at >= 0 {
			plain = append(plain, "\b\f\n\r\t\v"[at])
		} else {
			plain = append(plain, field[i])
		}
	}
	return cdc.Text{Value: string(plain)}
}

// AppendCopyField writes a value in COPY's text format.
func AppendCopyField(dst []byte, value string) []byte {
	for i := range len(value) {
		switch c := value[i]; c {
		case '\\':
			dst = append(dst, '\\', '\\')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func appendCopyNull(dst []byte) []byte { return append(dst, '\\', 'N') }

// StateColumns is the target of StateConverter.
const StateColumns = "(response_id, assessment_id, organization_id, stamp, flags)"

// StateConverter turns the mapped columns of a respondent into a row of the state that fires nothing.
func StateConverter(m cdc.Mapping, t *Table) func([]byte, []cdc.Text) ([]byte, error) {
	row := NewRowReader(m, t)
	return func(dst []byte, fields []cdc.Text) ([]byte, error) {
		r, err := row(fields)
		if err != nil {
			return dst, err
		}
		return AppendState(dst, r.ID, cdc.InitialState(r)), nil
	}
}

// maxStagedStamp is the longest stamp of which a comparison stages the value, for as long as its transaction lasts.
const maxStagedStamp = 256

// SnapshotConverter is StateConverter for a comparison. With values, the stamps' own values follow.
func SnapshotConverter(m cdc.Mapping, t *Table, values bool) func([]byte, []cdc.Text) ([]byte, error) {
	row := NewRowReader(m, t)
	return func(dst []byte, fields []cdc.Text) ([]byte, error) {
		r, err := row(fields)
		if err != nil {
			return dst, err
		}
		dst = append(AppendState(dst, r.ID, cdc.InitialState(r)), '\t')
		if value := r.StampValue.Text; values && !r.Stamp.Null && len(value) <= maxStagedStamp {
			return AppendCopyField(dst, value), nil
		}
		return appendCopyNull(dst), nil
	}
}

// AppendState appends a state as a line of COPY, without its end.
func AppendState(dst []byte, id string, s cdc.State) []byte {
	dst = AppendCopyField(dst, id)
	for _, value := range []*string{s.AssessmentID, s.OrganizationID, nilIfEmpty(s.Stamp)} {
		dst = append(dst, '\t')
		if value == nil {
			dst = appendCopyNull(dst)
		} else {
			dst = AppendCopyField(dst, *value)
		}
	}
	dst = append(dst, '\t')
	return fmt.Appendf(dst, "%d", s.Flags())
}

// NewRowReader returns a function that reads RespondentColumns as the decoder would have read them from the stream.
func NewRowReader(m cdc.Mapping, t *Table) func(fields []cdc.Text) (cdc.Row, error) {
	at := map[string]int{}
	for i, column := range m.RespondentColumns() {
		at[column] = i
	}
	stamp := m.StampColumn()
	assessment, organization := t.columnType(m.Assessment), t.columnType(m.Organization)
	return func(fields []cdc.Text) (cdc.Row, error) {
		id := fields[at[m.ID]]
		if id.Null {
			return cdc.Row{}, fmt.Errorf("a row of %s has no %s", t.Name.Display(), m.ID)
		}
		row := cdc.Row{
			ID:           id.Value,
			Assessment:   fields[at[m.Assessment]],
			Organization: cdc.Text{Null: true},
			Started:      m.Started.Mark(fields[at[m.Started.Column]], t.Columns[m.Started.Column]),
			Finished:     m.Finished.Mark(fields[at[m.Finished.Column]], t.Columns[m.Finished.Column]),
			Stamp:        cdc.Text{Null: true},
		}
		row.Assessment.Value = assessment.CanonicalID(row.Assessment.Value)
		if m.Organization != "" {
			row.Organization = fields[at[m.Organization]]
			row.Organization.Value = organization.CanonicalID(row.Organization.Value)
		}
		if stamp != "" {
			if row.Stamp = fields[at[stamp]]; !row.Stamp.Null {
				row.StampValue = cdc.StampValue{Text: row.Stamp.Value, Type: t.columnType(stamp)}
				row.Stamp.Value = row.StampValue.Type.EncodeStamp(row.StampValue.Text)
			}
		}
		return row, nil
	}
}

// AssessmentColumns is the target of AssessmentConverter without copies.
const AssessmentColumns = "(assessment_id, external_id)"

// AssessmentConverter turns the mapped columns of an assessment into its id and external id, and with copies into what it was
// copied from as well.
func AssessmentConverter(m cdc.Mapping, t *Table, copies bool) func([]byte, []cdc.Text) ([]byte, error) {
	at := map[string]int{}
	for i, column := range m.AssessmentColumns() {
		at[column] = i
	}
	appendText := func(dst []byte, value cdc.Text) []byte {
		trimmed := strings.TrimSpace(value.Value)
		if value.Null || trimmed == "" {
			return appendCopyNull(dst)
		}
		return AppendCopyField(dst, trimmed)
	}
	return func(dst []byte, fields []cdc.Text) ([]byte, error) {
		id := fields[at[m.AssessmentID]]
		if id.Null {
			return dst, nil
		}
		dst = append(AppendCopyField(dst, t.columnType(m.AssessmentID).CanonicalID(id.Value)), '\t')
		dst = appendText(dst, fields[at[m.ExternalID]])
		if !copies {
			return dst, nil
		}
		dst = append(dst, '\t')
		if m.CopiedFrom == "" {
			return appendCopyNull(dst), nil
		}
		from := fields[at[m.CopiedFrom]]
		from.Value = t.columnType(m.CopiedFrom).CanonicalID(from.Value)
		return appendText(dst, from), nil
	}
}

func nilIfEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// BeginAtSnapshot begins a transaction on the source that sees exactly what a new slot's stream continues from.
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

// QuoteIdentifiers returns the names as a list of SQL.
func QuoteIdentifiers(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = pgx.Identifier{name}.Sanitize()
	}
	return strings.Join(quoted, ", ")
}
