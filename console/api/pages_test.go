package api

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	exchange   = regexp.MustCompile("(?s)```http\n(.*?)\n```")
	changeable = regexp.MustCompile(`^(whsec_.*|msg_.*|\d{4}-\d\d-\d\dT.*|"[0-9a-f]{64}")$`)
)

// Every exchange in the documents is as the API has it: the request is sent, and what the page shows of the answer is
// what comes. Where the page has an ellipsis there may be any text.
func TestPagesShowExchanges(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"../../docs/reference/api.md", "../../docs/how-to/automation.md"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			page, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := newSite(t)
			key := s.key("'Zapier of the HR department', '42'")
			exchanges := exchange.FindAllStringSubmatch(string(page), -1)
			if len(exchanges) < 5 {
				t.Fatalf("it has %d exchanges", len(exchanges))
			}
			for _, match := range exchanges {
				parts := strings.Split(strings.NewReplacer("whk_…", key, "https://walhook.example.com/api/v1", s.url).Replace(match[1]), "\n\n")
				method, path, headers := head(parts[0])
				body, parts := "", parts[1:]
				if strings.HasPrefix(parts[0], "{") {
					body, parts = parts[0], parts[1:]
				}
				got := s.send("", method, strings.TrimPrefix(path, "/api/v1"), body, headers...)
				status, title, wanted := head(parts[0])
				if fmt.Sprint(got.status) != status {
					t.Fatalf("%s\nanswers %d %s", match[1], got.status, got.body)
				}
				_ = title
				for i := 0; i < len(wanted); i += 2 {
					if got := anyText(got.header.Get(wanted[i])); got != anyText(strings.Trim(wanted[i+1], `"`)) && got != anyText(wanted[i+1]) {
						t.Errorf("%s\nanswers with %s: %s", match[1], wanted[i], got)
					}
				}
				if len(parts) > 1 {
					var shown, came any
					if err := json.Unmarshal([]byte(parts[1]), &shown); err != nil {
						t.Fatalf("%v: %s", err, parts[1])
					}
					_ = json.Unmarshal([]byte(got.body), &came)
					if diff := cmp.Diff(generalize(shown), generalize(came)); diff != "" {
						t.Errorf("%s\nanswers otherwise (-page +answer):\n%s", match[1], diff)
					}
				}
			}
		})
	}
}

// head reads the first part of a message: two words, and headers.
func head(part string) (first, second string, headers []string) {
	line, rest, _ := strings.Cut(part, "\n")
	first, second, _ = strings.Cut(line, " ")
	for header := range strings.Lines(rest) {
		name, value, _ := strings.Cut(strings.TrimSpace(header), ": ")
		headers = append(headers, name, value)
	}
	return first, second, headers
}

// anyText replaces what differs each time.
func anyText(s string) string {
	if changeable.MatchString(s) {
		return "…"
	}
	return s
}

func generalize(value any) any {
	switch v := value.(type) {
	case string:
		return anyText(v)
	case []any:
		for i := range v {
			v[i] = generalize(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = generalize(v[name])
		}
	}
	return value
}
