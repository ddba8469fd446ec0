package catalog

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/cdc"
)

// SourceText converts text between UTF-8 and the encoding of the application's database. If a client asks for UTF8,
// the server ends the stream, or the copy, at the first value that it cannot convert, in any column. So the server
// sends the stored bytes, and is asked to convert only the characters of mapped values, each of them once: a
// character's meaning does not depend on its neighbours.
//
// A nil *SourceText converts nothing: the database is in UTF8, or in SQL_ASCII, which allows any bytes.
//
// It is not safe for concurrent use.
type SourceText struct {
	encoding   string
	connect    func() (*pgx.Conn, error)
	conn       *pgx.Conn // opened when first needed
	characters map[string]string
}

// newSourceText returns a SourceText for a database, which it queries within the context. The caller must close it.
func newSourceText(ctx context.Context, url, encoding string) *SourceText {
	if encoding == "UTF8" || encoding == "SQL_ASCII" {
		return nil
	}
	connect := func() (*pgx.Conn, error) { return ConnectSource(ctx, url) }
	return &SourceText{encoding: encoding, connect: connect, characters: map[string]string{}}
}

// SendRawText makes the server send text on this connection as stored, and returns its converter.
func SendRawText(ctx context.Context, conn *pgconn.PgConn, url string) (*SourceText, error) {
	if _, err := conn.Exec(ctx, "set client_encoding to 'SQL_ASCII'").ReadAll(); err != nil {
		return nil, fmt.Errorf("ask for text as it is stored: %w", err)
	}
	return newSourceText(ctx, url, conn.ParameterStatus("server_encoding")), nil
}

// Close closes the connection that converts characters.
func (t *SourceText) Close() {
	if t != nil && t.conn != nil {
		CloseQuietly(t.conn)
	}
}

// Decode converts a text of the database to UTF-8. If the server cannot convert it, Decode returns invalid UTF-8: no
// store accepts that, and the row is set aside.
func (t *SourceText) Decode(text string) (string, error) {
	if t == nil || isASCII(text) {
		return text, nil
	}
	var out strings.Builder
	for rest := text; rest != ""; {
		n := t.width(rest)
		character, err := t.character(rest[:n])
		if err != nil {
			return "", err
		}
		if character == "" {
			if utf8.ValidString(text) {
				return "\xff" + text, nil
			}
			return text, nil
		}
		out.WriteString(character)
		rest = rest[n:]
	}
	return out.String(), nil
}

// Encode converts a text from UTF-8 to the database's encoding.
func (t *SourceText) Encode(text string) (string, error) {
	if t == nil || isASCII(text) {
		return text, nil
	}
	var encoded []byte
	if err := t.query(&encoded, "select pg_catalog.convert_to($1, $2)", text, t.encoding); err != nil {
		return "", err
	}
	return string(encoded), nil
}

// character converts one character to UTF-8. It returns "" if the server has no conversion.
func (t *SourceText) character(raw string) (string, error) {
	character, known := t.characters[raw]
	if known {
		return character, nil
	}
	if err := t.query(&character, "select pg_catalog.convert_from($1, $2)", []byte(raw), t.encoding); err != nil &&
		!cdc.IsEncodingError(err) {
		return "", err
	}
	t.characters[raw] = character
	return character, nil
}

func (t *SourceText) query(answer any, query string, args ...any) (err error) {
	if t.conn == nil {
		if t.conn, err = t.connect(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), DialTimeout)
	defer cancel()
	if err := t.conn.QueryRow(ctx, query, args...).Scan(answer); err != nil {
		return fmt.Errorf("convert text of the application's database from %s: %w", t.encoding, err)
	}
	return nil
}

// width returns the number of bytes of the text's first character (PostgreSQL's src/common/wchar.c: every multibyte
// server encoding is an EUC or has the layout of one).
func (t *SourceText) width(text string) int {
	n := 1
	switch first := text[0]; {
	case first < utf8.RuneSelf, !strings.HasPrefix(t.encoding, "EUC_") && t.encoding != "JOHAB":
	case first == 0x8e && t.encoding == "EUC_TW":
		n = 4
	case first == 0x8f:
		n = 3
	default:
		n = 2
	}
	return min(n, len(text))
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
