package post

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
)

// AppendBody appends the JSON body of an event to dst and returns the extended slice. The body depends on its
// arguments alone, so that every attempt of a delivery carries, and signs, the same bytes.
//
// With numericID the response id is a JSON number with exactly the digits of the id, however many. An id that is not an
// integer is a string all the same, so that the body is always valid JSON.
func AppendBody(dst []byte, eventType string, commitAt time.Time, responseID string, numericID bool) []byte {
	dst = append(dst, `{"EventType":`...)
	dst = appendString(dst, eventType)
	dst = append(dst, `,"Timestamp":`...)
	dst = strconv.AppendInt(dst, commitAt.Unix(), 10)
	dst = append(dst, `,"Data":{"ResponseId":`...)
	if numericID && isInteger(responseID) {
		dst = append(dst, responseID...)
	} else {
		dst = appendString(dst, responseID)
	}
	return append(dst, "}}"...)
}

// isInteger reports whether s is an integer in JSON's grammar (RFC 8259, section 6): no plus sign, no leading zero.
func isInteger(s string) bool {
	if s != "" && s[0] == '-' {
		s = s[1:]
	}
	if s == "" || s[0] == '0' && len(s) > 1 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func appendString(dst []byte, s string) []byte {
	if isPlain(s) {
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, '"')
	}
	var quoted bytes.Buffer
	enc := json.NewEncoder(&quoted)
	// The body is not HTML, so an ampersand needs no escape.
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic("dispatch: a string has no JSON form: " + err.Error())
	}
	return append(dst, bytes.TrimSuffix(quoted.Bytes(), []byte{'\n'})...)
}

// isPlain reports whether s needs no escape, like the ids of nearly every application.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
