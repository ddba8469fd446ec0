package post

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxDetail is how many bytes of a reply are kept as error detail.
	maxDetail = 512

	// detailWindow is how many bytes of a reply are redacted for it. Redaction shortens, so it is longer than
	// maxDetail.
	detailWindow = 2048

	redacted = "[redacted]"

	// gramBytes is the length from which a piece of a secret is recognised wherever it was cut or however it was
	// escaped.
	gramBytes = 8

	// Shorter parts are hidden from these lengths on; below them they are more likely words of the reply than secrets.
	minSegment = 6
	minValue   = 4
)

// redactor hides the secret parts of one URL, all but scheme and host, and the secrets that its receiver knows as well,
// in text that others wrote.
type redactor struct {
	short []string // parts below gramBytes, in the form that fold gives
	long  string   // the others, with a separator that folded text never holds
}

// add hides a part that has at least so many bytes.
func (r *redactor) add(part string, atLeast int) {
	part = fold(clean(part))
	switch {
	case len(part) < atLeast:
	case len(part) < gramBytes:
		if !slices.Contains(r.short, part) {
			r.short = append(r.short, part)
		}
	case !strings.Contains(r.long, part):
		r.long += part + "\x00"
	}
}

// addForms hides a part, which a reply may quote as it was, decoded, or encoded again.
func (r *redactor) addForms(part string, atLeast int) {
	r.add(part, atLeast)
	r.add(url.QueryEscape(part), atLeast)
	for _, unescape := range []func(string) (string, error){url.PathUnescape, url.QueryUnescape} {
		if plain, err := unescape(part); err == nil {
			r.add(plain, atLeast)
			r.add(url.QueryEscape(plain), atLeast)
			r.add(url.PathEscape(plain), atLeast)
		}
	}
}

// addHeader hides the value of a header, and what follows the scheme in one such as "Bearer TOKEN".
func (r *redactor) addHeader(value string) {
	r.addForms(value, minValue)
	credentials := value[strings.LastIndexByte(value, ' ')+1:]
	r.addForms(credentials, minValue)
	if plain, err := base64.StdEncoding.DecodeString(credentials); err == nil {
		r.addForms(string(plain), minValue)
		_, password, _ := strings.Cut(string(plain), ":")
		r.addForms(password, minValue)
	}
}

func newRedactor(u *url.URL, secrets ...string) *redactor {
	r := new(redactor)
	if u.User != nil {
		r.addForms(u.User.String(), minValue)
		r.add(userPass(u.User), minValue)
		r.add(basicAuth(u.User), minValue)
		r.addForms(u.User.Username(), minValue)
		if password, ok := u.User.Password(); ok {
			r.addForms(password, minValue)
		}
	}
	r.addForms(u.RequestURI(), 2)
	if path := u.EscapedPath(); len(path) > 1 {
		r.addForms(path, 2)
		for segment := range strings.SplitSeq(path, "/") {
			r.addForms(segment, minSegment)
		}
	}
	for _, list := range []string{u.RawQuery, u.EscapedFragment()} {
		r.addForms(list, minValue)
		for pair := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == '&' || r == ';' }) {
			key, value, found := strings.Cut(pair, "=")
			if !found {
				value = key
			}
			r.addForms(value, minValue)
		}
	}
	for _, secret := range secrets {
		encoded := strings.TrimPrefix(secret, secretPrefix)
		r.addForms(encoded, minValue)
		if key, err := base64.StdEncoding.DecodeString(encoded); err == nil {
			r.add(hex.EncodeToString(key), minValue)
			r.add(base64.URLEncoding.EncodeToString(key), minValue)
		}
	}
	return r
}

// detail makes the start of a reply fit for a log line: one line of valid UTF-8 without control characters, of at most
// maxDetail bytes, with every piece of the URL's secret parts replaced. more reports whether the reply went on after
// head.
func (r *redactor) detail(head []byte, more bool) string {
	text := r.redact(clean(string(head)))
	if more && !strings.HasSuffix(text, redacted) {
		// The window may have cut off a secret so that its start is too short to be recognised.
		text = cut(text, max(len(text)-gramBytes, 0))
	}
	return cut(text, maxDetail)
}

func (r *redactor) redact(text string) string {
	if len(r.short) == 0 && r.long == "" {
		return text
	}
	folded := fold(text)
	hidden := make([]bool, len(text))
	found := false
	hide := func(from, to int) {
		found = true
		for i := from; i < to; i++ {
			hidden[i] = true
		}
	}
	for _, part := range r.short {
		for from := 0; ; {
			at := strings.Index(folded[from:], part)
			if at < 0 {
				break
			}
			hide(from+at, from+at+len(part))
			from += at + 1
		}
	}
	for i := 0; i+gramBytes <= len(folded); i++ {
		if strings.Contains(r.long, folded[i:i+gramBytes]) {
			hide(i, i+gramBytes)
		}
	}
	if !found {
		return text
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case !hidden[i]:
			out.WriteByte(text[i])
		case i == 0 || !hidden[i-1]:
			out.WriteString(redacted)
		}
	}
	// A gram may begin or end within a character.
	return strings.ToValidUTF8(out.String(), "")
}

// clean returns s as valid UTF-8 on one line: what cannot be printed, NUL first, becomes a space, and runs of those are
// one.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return strings.Join(strings.Fields(s), " ")
}

// fold lower-cases ASCII and nothing else, so that offsets stay the same.
func fold(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// cut returns at most limit bytes of s, and whole characters.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
