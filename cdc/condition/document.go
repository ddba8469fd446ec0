package condition

import (
	"encoding/json"
	"strconv"
	"strings"
)

var documents = comparing(familyDocument, false, readDocument, compareDocuments, documentLiteral)

func readDocument(text string) (any, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var document any
	err := decoder.Decode(&document)
	return document, err
}

// compareDocuments returns 0 if jsonb considers the documents equal, and 1 otherwise.
func compareDocuments(a, b any) int {
	if equalDocuments(a, b) {
		return 0
	}
	return 1
}

func equalDocuments(a, b any) bool {
	switch left := a.(type) {
	case json.Number:
		right, same := b.(json.Number)
		if !same {
			return false
		}
		m, one := exactLiteral(left.String())
		n, other := exactLiteral(right.String())
		if one != "" || other != "" {
			return left == right
		}
		return compareNumbers(m, n) == 0
	case []any:
		right, same := b.([]any)
		if !same || len(left) != len(right) {
			return false
		}
		for i := range left {
			if !equalDocuments(left[i], right[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		right, same := b.(map[string]any)
		if !same || len(left) != len(right) {
			return false
		}
		for key, value := range left {
			other, exists := right[key]
			if !exists || !equalDocuments(value, other) {
				return false
			}
		}
		return true
	}
	return a == b // null, booleans and strings
}

func documentLiteral(_ Type, l token, _ bool) (any, string) {
	const reason = `write a JSON document, such as '{"a": 1}'`
	if l.kind != tokenString || !json.Valid([]byte(l.text)) {
		return nil, reason
	}
	document, err := readDocument(l.text)
	if err != nil {
		return nil, reason
	}
	return document, unfitForJSONB(l.text, document)
}

// unfitForJSONB returns why jsonb rejects a document or a number in it that JSON allows, or "".
func unfitForJSONB(text string, document any) string {
	for rest := text; ; {
		at := strings.IndexByte(rest, '\\')
		if at < 0 || at+1 == len(rest) {
			break
		}
		if rest[at+1] == 'u' && at+6 <= len(rest) {
			r, _ := strconv.ParseUint(rest[at+2:at+6], 16, 32)
			if r == 0 || r >= 0xd800 && r < 0xe000 {
				return "write characters other than \\u0000, and those beyond \\uffff as they are"
			}
		}
		rest = rest[at+2:]
	}
	var reason string
	var walk func(any)
	walk = func(value any) {
		switch v := value.(type) {
		case json.Number:
			if _, r := exactLiteral(v.String()); r != "" {
				reason = "of its numbers one is too long"
			}
		case []any:
			for _, element := range v {
				walk(element)
			}
		case map[string]any:
			for _, element := range v {
				walk(element)
			}
		}
	}
	walk(document)
	return reason
}
