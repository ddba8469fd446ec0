package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, problem{
			Status: http.StatusRequestEntityTooLarge,
			Detail: fmt.Sprintf("The body has more than %d bytes. Send less.", maxBody),
		}
	case err != nil:
		return nil, badRequest("The body ended before it was complete. Send it again.")
	}
	return body, nil
}

// kind is the type of a field of a body.
type kind int

const (
	text    kind = iota
	id           // a string, or an integer, which becomes a string
	boolean      // true or false
	object       // whatever the store accepts
)

// String says what a field of the kind must be.
func (k kind) String() string {
	return [...]string{text: "a string", id: "a string or an integer", boolean: "true or false", object: "an object of strings"}[k]
}

var integer = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)

// fields reads the known fields of the body, a JSON object. It refuses other names, because a misspelled filter would match
// everything. aliases are other names of fields.
func (r *request) fields(known map[string]kind, aliases map[string]string) (map[string]any, error) {
	fields := map[string]any{}
	if len(r.body) == 0 {
		return fields, nil
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" && mediaType != "application/merge-patch+json" {
		return nil, problem{
			Status: http.StatusUnsupportedMediaType, Detail: "Send the body as JSON, with Content-Type: application/json.",
		}
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, problem{Status: http.StatusUnsupportedMediaType, Detail: "Send the body as it is, not compressed."}
	}
	var raw map[string]json.RawMessage
	switch err := json.Unmarshal(r.body, &raw); {
	case !utf8.Valid(r.body):
		return nil, badRequest("The body is not UTF-8.")
	case err != nil:
		return nil, badRequest("The body is not a JSON object: " + strings.TrimPrefix(err.Error(), "json: ") + ".")
	case raw == nil:
		return nil, badRequest("The body is not a JSON object: it is null.")
	}
	if name, twice := duplicate(r.body); twice {
		return nil, badField(name, "The body has %q twice. Send it once.", name)
	}
	for sent, value := range raw {
		name := sent
		if other, ok := aliases[sent]; ok {
			name = other
		}
		as, ok := known[name]
		if !ok {
			return nil, badField(sent, "The field %q is not known. Known fields are %s.", sent, names(known))
		}
		field, err := readField(sent, value, as)
		if err != nil {
			return nil, err
		}
		if other, twice := fields[name]; twice && other != field {
			return nil, badField(name, "The body has %q twice, under different names. Send only one.", name)
		}
		fields[name] = field
	}
	return fields, nil
}

// duplicate returns the first name that a JSON object has twice: readers differ in which of the two counts.
func duplicate(body []byte) (name string, twice bool) {
	decoder, seen := json.NewDecoder(bytes.NewReader(body)), map[string]bool{}
	_, _ = decoder.Token() // the brace
	for decoder.More() {
		token, _ := decoder.Token()
		name, _ := token.(string)
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil || seen[name] {
			return name, seen[name]
		}
		seen[name] = true
	}
	return "", false
}

func names[V any](known map[string]V) string {
	var all []string
	for name := range known {
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func readField(name string, raw json.RawMessage, as kind) (any, error) {
	wrong := badField(name, "The field %q must be %v.", name, as)
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		return nil, wrong // a number that is too large
	}
	if value == nil || as == object {
		return value, nil
	}
	switch value.(type) {
	case string:
		if as == text || as == id {
			return value, nil
		}
	case float64: // has not all digits of the number
		if as == id && integer.Match(raw) {
			return string(raw), nil
		}
	case bool:
		if as == boolean {
			return value, nil
		}
	}
	return nil, wrong
}

// query reads the known parameters of the query string. Empty parameters count as left out.
func (r *request) query(known ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("The query string cannot be read. Percent-encode its values.")
	}
	for name, all := range values {
		switch {
		case !slices.Contains(known, name):
			return nil, badField(name, "The parameter %q is not known. Known parameters are %s.",
				name, strings.Join(known, ", "))
		case len(all) > 1:
			return nil, badField(name, "The parameter %q appears twice. Send it once.", name)
		case !utf8.ValidString(all[0]) || strings.ContainsRune(all[0], 0):
			return nil, badField(name, "The parameter %q has characters that no value has.", name)
		}
	}
	return values, nil
}

const maxLimit = 1000

// limit returns how many items to return.
func limit(values url.Values, fallback int) (int, error) {
	sent := values.Get("limit")
	if sent == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(sent)
	if err != nil || n < 1 || n > maxLimit {
		return 0, badField("limit", "limit must be a number from 1 to %d.", maxLimit)
	}
	return n, nil
}

// event returns the name of the event to filter by; "" is any. It refuses an unknown one, which would match nothing.
func (r *request) event(values url.Values) (event string, err error) {
	if sent := values.Get("event_type"); sent != "" {
		err = r.tx.QueryRow(r.Context(), "select walhook.event_name(walhook.known_event($1))", sent).Scan(&event)
	}
	return event, err
}

// readID parses the id of a row. ok is false if it cannot be one.
func readID(sent string) (n int64, ok bool) {
	n, err := strconv.ParseInt(sent, 10, 64)
	return n, err == nil && n > 0 && strconv.FormatInt(n, 10) == sent
}

// pathID returns the id in the path.
func (r *request) pathID(what string) (int64, error) {
	n, ok := readID(r.PathValue("id"))
	if !ok {
		return 0, notFound(what)
	}
	return n, nil
}

// readTime parses a time. RFC 3339 has none before the year 1 or after 9999, and the zero time stands for none.
func readTime(name, sent string) (time.Time, error) {
	if sent == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, sent)
	if err != nil || at.UTC().Year() < 1 || at.UTC().Year() > 9999 || at.IsZero() {
		return time.Time{}, badField(name, "%s must be a time with its zone, such as 2026-03-18T18:44:09Z.", name)
	}
	return at, nil
}

// writeCursor returns a cursor: the place of the last item in the order of the list. Clients send it back unchanged.
func writeCursor(place any) string {
	plain, err := json.Marshal(place)
	if err != nil {
		panic("api: a place has no JSON form: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(plain)
}

func readCursor(sent string, place any) error {
	plain, err := base64.RawURLEncoding.Strict().DecodeString(sent)
	if err == nil {
		err = json.Unmarshal(plain, place)
	}
	if err != nil {
		return badField("cursor", "The cursor is not one that this list has returned. Start without one.")
	}
	return nil
}

// page is one page of a list.
type page struct {
	Data       []json.RawMessage `json:"data"`
	NextCursor *string           `json:"next_cursor"`
}

// list answers with a page. next is the place of its last item, or nil on the last page.
func (r *request) list(data []json.RawMessage, query url.Values, next any) reply {
	result := reply{status: http.StatusOK, header: http.Header{}}
	answer := page{Data: data}
	if data == nil {
		answer.Data = []json.RawMessage{}
	}
	if next != nil {
		cursor := writeCursor(next)
		answer.NextCursor = &cursor
		query.Set("cursor", cursor)
		result.header.Set("Link", "<"+r.api.URL+r.URL.Path+"?"+query.Encode()+`>; rel="next"`)
	}
	result.body = answer
	return result
}
