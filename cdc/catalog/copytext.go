package catalog

import (
	"bytes"
	"strings"

	"walhook/cdc"
)

// CopyField decodes a field of COPY's text format (PostgreSQL manual, COPY, "Text Format").
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

// AppendCopyField encodes a value in COPY's text format.
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
