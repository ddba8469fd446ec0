package condition

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]Condition{
		"finished_at":             {Column: "finished_at"},
		" finished_at ":           {Column: "finished_at"},
		"my column":               {Column: "my column"},
		"finished-at":             {Column: "finished-at"},
		`"finished at"`:           {Column: "finished at"},
		`"a > b"`:                 {Column: "a > b"},
		"order":                   {Column: "order"},
		"not":                     {Column: "not"},
		"status=done":             {Column: "status", Values: []string{"done"}},
		"status=done|closed":      {Column: "status", Values: []string{"done", "closed"}},
		"status = done | closed ": {Column: "status", Values: []string{"done", "closed"}},
		"draft = true":            {Column: "draft", Values: []string{"true"}},
		"a=b":                     {Column: "a", Values: []string{"b"}},
		"status=a=b":              {Column: "status", Values: []string{"a=b"}},
		"status=in progress":      {Column: "status", Values: []string{"in progress"}},
		"status=done,updated_at":  {Column: "status", Values: []string{"done,updated_at"}},
		`"st=at"=done`:            {Column: "st=at", Values: []string{"done"}},
		`"Status" = x`:            {Column: "Status", Values: []string{"x"}},
		`status="done"`:           {Column: "status", Values: []string{`"done"`}},
		"a.b=1":                   {Column: "a.b", Values: []string{"1"}},
		"my column=1":             {Column: "my column", Values: []string{"1"}},
		"(a = b)":                 {Expression: "(a = b)"},
		"a <> b":                  {Expression: "a <> b"},
		"page>0":                  {Expression: "page>0"},
		"status='done'":           {Expression: "status='done'"},
		"a is null":               {Expression: "a is null"},
		"not a":                   {Expression: "not a"},
		"a=1 and b is null":       {Expression: "a=1 and b is null"},
		"not a=1":                 {Expression: "not a=1"},
		"a is null or b=c":        {Expression: "a is null or b=c"},
		`"a b" > 3`:               {Expression: `"a b" > 3`},
	} {
		got, err := Parse(input)
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%q is %+v, %v", input, got, err)
		}
	}
}

// Every error names what is wrong, and points at it.
func TestMistakesAreShownInTheirPlace(t *testing.T) {
	t.Parallel()
	types := map[string]Type{
		"id": {OID: pgtype.Int4OID}, "state": {OID: pgtype.TextOID, Collation: &Collation{Name: "de_DE", Deterministic: true}},
		"loose": {OID: pgtype.TextOID, Collation: &Collation{OID: 3, Name: "lenient"}},
		"other": {OID: pgtype.VarcharOID, Collation: &Collation{OID: 2, Name: "C", Bytewise: true, Deterministic: true}},
		"at":    {OID: pgtype.TimestamptzOID}, "day": {OID: pgtype.DateOID}, "paid": {OID: pgtype.BoolOID},
		"document": {OID: pgtype.JSONOID}, "fields": {OID: pgtype.JSONBOID}, "tags": {OID: pgtype.TextArrayOID},
		"level": {OID: 20000, Kind: 'e', Name: "level", Labels: []string{"low", "high"}}, "kind": {OID: 20001, Kind: 'e', Name: "kind"},
		"email": {OID: 20002, Kind: 'b', Name: "citext"}, "amount": {OID: pgtype.NumericOID}, "ratio": {OID: pgtype.Float8OID}, "price": {OID: MoneyOID},
	}
	for _, tt := range []struct{ input, place, reason string }{
		{"", "^", "it is empty: a condition is"},
		{"=", "^", "a column's name is missing"},
		{"status=", "       ^", "a value is empty"},
		{"status=a||b", "         ^", "a value is empty"},
		{`"status`, "^", "this quote is not closed"},
		{"state = 'done", "        ^", "this quote is not closed"},
		{"state in ('done' 'closed')", "                 ^", "unexpected text: expected a comma"},
		{"state in ()", "          ^", "expected a column or a literal"},
		{"state in 'done'", "         ^", "expected a list in parentheses"},
		{"state is done", "         ^", "expected null or not null"},
		{"state = 'a' and", "               ^", "the condition ends here"},
		{"(state = 'a'", "            ^", "expected and, or or a closing parenthesis"},
		{"(state = 'a'))", "             ^", "unexpected )"},
		{"(id = 1) = paid", "         ^", "not what is in parentheses"},
		{"id > 1 > 2", "       ^", "a comparison cannot be compared"},
		{"id != 1", "   ^", "write <>"},
		{"id >= null", "      ^", "write is null"},
		{"id > 1x", "     ^", "this is no number"},
		{"id > 1_000", "     ^", "this is no number"},
		{"1 < 2", "^", "two literals are compared"},
		{"true and paid", "     ^", "expected a comparison"},
		{"id between 1 and 2", "   ^", "write two comparisons"},
		{"lower(state) = 'a'", "^", "there are no functions"},
		{"r.state <> 'a'", "^", "without its table"},
		{"state <> E'a'", "         ^", "a text has no prefix"},
		{"id > 1 -- all", "       ^", "there are no comments"},
		{"fields->'a' <> 'b'", "      ^", "cannot look inside a document"},
		{"id::text <> '1'", "  ^", "there are no casts"},
		{"id + 1 > 2", "   ^", "unexpected +"},
		{"state <> 'ä\xd9'", "           ^", "not valid UTF-8"},

		{"stat", "^", `there is no column "stat"`},
		{"stat=a", "^", `there is no column "stat"`},
		{"id > 0 and stat <> 'a'", "           ^", `there is no column "stat"`},
		{"ä > 0", "^", `there is no column "ä"`},
		{"state <> 'ä' and stat <> 'a'", "                 ^", `there is no column "stat"`},
		{"state <> 'a'\nand stat is null", "    ^", `there is no column "stat"`},
		{"not id", "    ^", "only a boolean column stands alone"},
		{"id > 'x'", "     ^", "'x' cannot be compared with column \"id\" of type int4: write an integer"},
		{"id > '2147483648'", "     ^", "from -2147483648 to 2147483647"},
		{"id <> true", "      ^", "write a number"},
		{"state <> 3", "         ^", "3 cannot be compared with column \"state\" of type text: write a text in quotes"},
		{"state > 'a'", "      ^", "its collation de_DE orders texts by rules"},
		{"loose <> 'a'", "^", "its collation lenient is nondeterministic"},
		{"(state = other)", "         ^", "their collations de_DE and C differ"},
		{"at > 'yesterday'", "     ^", "write a time with its zone"},
		{"day > '2026-02-30'", "      ^", "write a date"},
		{"paid <> 1", "        ^", "write true or false"},
		{"document <> '{}'", "^", "PostgreSQL does not compare json"},
		{"fields > '{}'", "       ^", "have no order here"},
		{"fields <> '{'", "          ^", "write a JSON document"},
		{"tags <> '{}'", "^", "cannot be compared here"},
		{"email <> 'a'", "^", "cannot be compared here"},
		{"price > '1'", "^", "depends on lc_monetary"},
		{"level <> 'middle'", "         ^", "its values are low, high"},
		{"level > 'low'", "      ^", "the order of an enum's labels can change"},
		{"level <> kind", "         ^", "PostgreSQL does not compare two enums"},
		{"amount > ratio", "         ^", "PostgreSQL converts the numeric"},
		{"id <> at", "      ^", "PostgreSQL does not compare them"},
		{"ratio > 1e400", "        ^", "it is out of the type's range"},
	} {
		parsed, err := Parse(tt.input)
		if err == nil {
			_, err = parsed.Bind(types)
		}
		var mistake *Error
		if !errors.As(err, &mistake) {
			t.Errorf("%q: %v", tt.input, err)
			continue
		}
		lines := strings.Split(mistake.Place(), "\n")
		if place := strings.TrimPrefix(lines[1], "    "); !strings.Contains(mistake.Reason, tt.reason) || place != tt.place {
			t.Errorf("%q:\n%v\nand not at\n    %s\n%s", tt.input, err, tt.place, tt.reason)
		}
	}
}

// A column that the WAL does not carry makes a condition unknown only if its value matters. It is long.
func TestUnchangedValuesAreNotGuessed(t *testing.T) {
	t.Parallel()
	types := map[string]Type{
		"a": {OID: pgtype.TextOID}, "b": {OID: pgtype.TextOID}, "padded": {OID: pgtype.BPCharOID}, "doc": {OID: pgtype.JSONBOID}, "n": {OID: pgtype.Int4OID},
	}
	const long = "a text of twenty bytes"
	unchanged, null, x := Text{Unchanged: true}, Text{Null: true}, Text{Value: "x"}
	for _, tt := range []struct {
		condition  string
		a, b       Text
		met, known bool
		omittable  string
	}{
		{"a", unchanged, x, false, false, ""},
		{"a=x", unchanged, x, false, false, ""},
		{"a <> '" + long + "'", unchanged, x, false, false, ""},
		{"a <> 'x'", unchanged, x, true, true, ""},
		{"a in ('x', 'y')", unchanged, x, false, true, ""},
		{"a is not null", unchanged, x, true, true, ""},
		{"a is null", unchanged, x, false, true, ""},
		{"a <> 'x' and b = 'x'", unchanged, x, true, true, ""},
		{"a > 'x' and b = 'x'", unchanged, x, false, false, "a"},
		{"a > 'x' and b = 'y'", unchanged, x, false, true, "a"},
		{"a > 'x' or b = 'x'", unchanged, x, true, true, "a"},
		{"a = '" + long + "' and b = 'x'", unchanged, null, false, true, "a"},
		{"not (a = '" + long + "' and b = 'x')", unchanged, null, false, false, "a"},
		{"(a = b)", unchanged, null, false, true, "a b"},
		{"(a = b)", unchanged, x, false, true, "a b"},
		{"(a = b)", unchanged, Text{Value: long}, false, false, "a b"},
		{"(a = b)", unchanged, unchanged, false, false, "a b"},
		{"a <> b", x, unchanged, true, true, "a b"},
		{"a < b", x, unchanged, false, false, "a b"},
		{"b in (a, 'x')", unchanged, x, true, true, "a b"},
		{"padded = 'x' and n > 0", unchanged, x, false, false, "padded"},
		{"doc <> '{}' and n is null", unchanged, x, true, true, ""},
		{"doc <> '{\"a\":1}' and n is null", unchanged, x, false, false, "doc"},
	} {
		parsed, err := Parse(tt.condition)
		if err != nil {
			t.Fatal(err)
		}
		bound, err := parsed.Bind(types)
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]Text{"a": tt.a, "b": tt.b, "padded": unchanged, "doc": unchanged, "n": null}
		if strings.HasPrefix(tt.condition, "padded") {
			values["n"] = Text{Value: "1"}
		}
		truth, err := bound.Eval(func(i int) Text { return values[bound.Columns()[i]] })
		if met, known := truth.Met(); met != tt.met || known != tt.known || err != nil {
			t.Errorf("%s with %+v: %v %v, %v", tt.condition, values, met, known, err)
		}
		if got := strings.Join(bound.Omittable(), " "); got != tt.omittable {
			t.Errorf("%s may not know %q", tt.condition, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"finished_at", "status=done|closed", `"st=at"=done`, `" blank "`, `"a""b"=x`, "a==", "a=|", " a = b ", "(a = b)",
		"state in ('in''progress', 'done') and not (a > -1.5e3 or b is not null)", "a not in (1, .5, true)", "'", "((((", "a <",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input string) {
		parsed, err := Parse(input)
		var mistake *Error
		if errors.As(err, &mistake) {
			if mistake.At > len(mistake.Text) || mistake.Reason == "" || strings.Count(mistake.Place(), "\n") != 1 {
				t.Fatalf("%q: %+v", input, mistake)
			}
			return
		}
		if len(parsed.Columns()) == 0 {
			t.Fatalf("%q names no column: %+v", input, parsed)
		}
		if again, err := Parse(parsed.String()); err != nil || !cmp.Equal(again, parsed) {
			t.Fatalf("%q is %+v, and read again %+v, %v", input, parsed, again, err)
		}
		// Whatever the types are, the condition is bound or refused.
		for _, oid := range []uint32{pgtype.BoolOID, pgtype.Int4OID, pgtype.NumericOID, pgtype.Float4OID, pgtype.TextOID, pgtype.TimestamptzOID, pgtype.DateOID, pgtype.IntervalOID, pgtype.TimetzOID, pgtype.JSONBOID, pgtype.InetOID, pgtype.ByteaOID} {
			types := map[string]Type{}
			for _, column := range parsed.Columns() {
				types[column] = Type{OID: oid}
			}
			bound, err := parsed.Bind(types)
			if err != nil {
				continue
			}
			for _, value := range []Text{{Null: true}, {Unchanged: true}, {Value: input}, {Value: "1"}} {
				_, _ = bound.Eval(func(int) Text { return value })
			}
		}
	})
}
