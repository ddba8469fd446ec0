package catalog

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"

	"walhook/cdc"
	"walhook/cdc/condition"
)

func TestCopyFieldReadsEveryEscape(t *testing.T) {
	t.Parallel()
	for field, want := range map[string]cdc.Text{
		``: text(""), `\N`: null, `\\N`: text(`\N`), `N`: text("N"), `\N\N`: text("NN"), `a\tb`: text("a\tb"),
		`\b\f\n\r\t\v\\`: text("\b\f\n\r\t\v\\"), `\q`: text("q"), `a\`: text(`a\`), `ü\\`: text(`ü\`),
	} {
		if got := CopyField([]byte(field)); got != want {
			t.Errorf("%q is %+v", field, got)
		}
	}
}

func FuzzCopyField(f *testing.F) {
	for _, seed := range []string{"", `\N`, "a\tb\nc\rd", `\`, `\\`, "\b\f\v", `\.`, "ü"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		field := AppendCopyField(nil, value)
		if bytes.ContainsAny(field, "\t\n\r") {
			t.Fatalf("%q ends its field or row: %q", value, field)
		}
		if got := CopyField(field); got != text(value) {
			t.Fatalf("%q is %q, and read again %+v", value, field, got)
		}
		CopyField([]byte(value)) // whatever it is
	})
}

// copyThrough sends COPY data through a converter in pieces of the given size.
func copyThrough(
	data string, size, fields int, convert func([]byte, []cdc.Text) ([]byte, error),
) (string, int64, error) {
	var out bytes.Buffer
	c := &rowConverter{to: &out, fields: make([]cdc.Text, fields), convert: convert, progress: func(int64) {}}
	for len(data) > 0 {
		n := min(size, len(data))
		if _, err := c.Write([]byte(data[:n])); err != nil {
			return out.String(), c.rows, err
		}
		data = data[n:]
	}
	err := c.flush()
	return out.String(), c.rows, err
}

func TestRowsAreConvertedHoweverTheyArrive(t *testing.T) {
	t.Parallel()
	const data = "1\ta\\tb\n2\t\\N\n3\t\n4\tleave out\n"
	convert := func(dst []byte, fields []cdc.Text) ([]byte, error) {
		if fields[1].Value == "leave out" {
			return dst, nil
		}
		dst = append(AppendCopyField(dst, fields[0].Value), '\t')
		if fields[1].Null {
			return appendCopyNull(dst), nil
		}
		return AppendCopyField(dst, fields[1].Value), nil
	}
	for size := 1; size <= len(data); size++ {
		got, rows, err := copyThrough(data, size, 2, convert)
		if err != nil || got != "1\ta\\tb\n2\t\\N\n3\t\n" || rows != 4 {
			t.Errorf("in pieces of %d: %d rows %q, %v", size, rows, got, err)
		}
	}
	for _, data := range []string{"1\n", "1\t2\t3\n", "\n"} {
		if _, _, err := copyThrough(data, 100, 2, convert); err == nil ||
			!strings.Contains(err.Error(), "row 1 has not 2 columns") {
			t.Errorf("%q: %v", data, err)
		}
	}
}

func TestStateOfASnapshotRow(t *testing.T) {
	t.Parallel()
	info := &Table{Name: testMapping.Respondent, Columns: map[string]uint32{
		"id": pgtype.Int8OID, "assessment_id": pgtype.Int4OID, "organization_id": pgtype.Int4OID, "started_at": pgtype.TimestamptzOID,
		"status": pgtype.TextOID, "finished_at": pgtype.TimestamptzOID,
	}, Types: map[string]condition.Type{"started_at": {OID: pgtype.TimestamptzOID}, "status": {OID: pgtype.TextOID}}}
	for row, want := range map[string]string{
		// id, assessment, organization, started, status, stamp; the columns are in the order of RespondentColumns
		`7	3	5	2026-01-01 00:00:00+00	done	2026-01-02 00:00:00+00`: `7	3	5	1184:HZpR/KuXAON2PC/t	15`,
		`7	3	\N	\N	open	\N`: `7	3	\N	\N	0`,
		`7	\N	\N	2026-01-01 00:00:00+00	open	2026-01-02 00:00:00+00`: `7	\N	\N	1184:HZpR/KuXAON2PC/t	5`,
		`a\tb	3	\N	\N	done	\N`: `a\tb	3	\N	\N	26`,
	} {
		got, _, err := copyThrough(row+"\n", 1000, 6, StateConverter(testMapping, info, &cdc.StampKey{}))
		if err != nil || got != want+"\n" {
			t.Errorf("%q is %q, %v", row, got, err)
		}
	}
	if _, _, err := copyThrough("\\N\t3\t\\N\t\\N\t\\N\t\\N\n", 100, 6, StateConverter(testMapping, info, &cdc.StampKey{})); err == nil {
		t.Error("a row without its key is taken")
	}
}

// Chunks consist of whole lines, and together they are the complete input.
func TestPartsAreWholeLines(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOf(rapid.StringMatching(`[a-z]{0,40}\n`)).Draw(t, "lines")
		want := strings.Join(lines, "")
		size, at := rapid.IntRange(1, 100).Draw(t, "part"), rapid.IntRange(1, 50).Draw(t, "read")
		reader := &chunkReader{from: bufio.NewReaderSize(iotest.HalfReader(strings.NewReader(want)), 16)}
		var got strings.Builder
		for !reader.ended() {
			reader.left = size
			var part []byte
			for buf := make([]byte, at); ; {
				n, err := reader.Read(buf)
				part = append(part, buf[:n]...)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.HasSuffix(part, []byte("\n")) || len(part) > size+40 ||
				len(part) < size && got.Len()+len(part) < len(want) {
				t.Fatalf("a part of %d bytes is %q", size, part)
			}
			got.Write(part)
		}
		if got.String() != want {
			t.Fatalf("%q was read as %q", want, got.String())
		}
	})
}

// A read error between two chunks is reported like one within a chunk.
func TestPartsKeepErrors(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	reader := &chunkReader{
		from: bufio.NewReader(io.MultiReader(strings.NewReader("a\n"), iotest.ErrReader(broken))), left: 2,
	}
	if got, err := io.ReadAll(reader); string(got) != "a\n" || err != nil {
		t.Errorf("the first part is %q, %v", got, err)
	}
	if reader.ended() {
		t.Error("rows that cannot be read count as none")
	}
	reader.left = 2
	if got, err := io.ReadAll(reader); len(got) > 0 || !errors.Is(err, broken) {
		t.Errorf("the second part is %q, %v", got, err)
	}
}
