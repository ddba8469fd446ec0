package condition_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/condition"
	"walhook/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// column is a column of the table that conditions are evaluated on.
type column struct {
	name, sqlType string
	values        []string // in the type's input format; NULL is added
	literals      []string // more texts that a condition may contain
}

var (
	integerValues = []string{"0", "1", "-1", "2", "3", "100", "32767", "-32768"}
	textValues    = []string{"", "a", "a ", " a", "A", "b", "ab", "ä", "z", "ß", "it's", `say "x"`, `back\slash`, "é", "e\u0301", "0", "false", "日本", "a\tb", "a text of twenty bytes", "another text of twenty bytes"}
	enumValues    = []string{"new", "open", "it''s"}
	instantValues = []string{"2026-01-31", "2000-02-29", "1999-12-31", "0001-01-01", "0044-03-15 BC", "12345-06-07", "infinity", "-infinity"}
	numberValues  = []string{"0", "-0.0", "1", "1.0", "1.50", "-1.5", "0.1", "100", "1e3", "0.0001", "NaN", "99999999999999999999999999.000000001", "-99999999999999999999999999", "123456789012345678"}
	floatValues   = []string{"0", "-0", "1", "1.5", "0.1", "-0.1", "16777217", "NaN", "Infinity", "-Infinity", "1e-30", "3e38", "0.30000001192092896"}
)

var columns = []column{
	{"i2", "smallint", integerValues, []string{"40000", "1.5", "x", " 1 ", "+1"}},
	{"i4", "integer", append([]string{"2147483647", "-2147483648"}, integerValues...), []string{"2147483648", ""}},
	{"i8", "bigint", append([]string{"9223372036854775807", "-9223372036854775808", "9007199254740993", "9007199254740992", "16777217"}, integerValues...), []string{"9223372036854775808"}},
	{"n", "numeric", append([]string{"1e400", "1e-400", "0." + strings.Repeat("0", 40) + "1"}, numberValues...), []string{"nan", "1e400", "inf", "Infinity", "1_000", "0x10"}},
	{"n2", "numeric(9,2)", []string{"0", "1", "1.5", "1.50", "-3.14", "9999999.99", "NaN"}, []string{"1.505"}},
	{"f4", "real", floatValues, []string{"1e39", "1e-60", "nan", "inf", "-inf"}},
	{"f8", "double precision", append([]string{"9007199254740993", "1e300", "5e-324", "0.30000000000000004", "0.3"}, floatValues...), []string{"1e309", "1e-400", " 1.5 "}},
	{"o", "oid", []string{"0", "1", "3", "4294967295"}, []string{"-1", "4294967296"}},
	{"b", "boolean", []string{"true", "false"}, []string{"yes", "of", "o", "T", "1", "tr", "nonsense", " on "}},
	{"b2", "boolean", []string{"true", "false"}, nil},
	{"t", "text", textValues, nil},
	{"tc", `text collate "C"`, textValues, nil},
	{"tc2", `text collate "C"`, textValues, nil},
	{"ti", `text collate "en-x-icu"`, textValues, nil},
	{"tn", "text collate lenient", textValues, nil},
	{"v", "varchar", textValues, nil},
	{"vc", `varchar(40) collate "C"`, textValues, nil},
	{"c", "char(5)", []string{"", "a", "a ", " a", "b", "ab", "ä", "abcde"}, []string{"a  ", "abcdefgh"}},
	{"cc", `char(5) collate "C"`, []string{"", "a", "a ", " a", "b", "ab", "ä", "abcde"}, []string{"a  "}},
	{"nm", "name", []string{"", "a", "a ", "b", strings.Repeat("n", 63)}, []string{strings.Repeat("n", 64)}},
	{"e", "state", enumValues, []string{"none"}},
	{"e2", "state_domain", enumValues, nil},
	{"u", "uuid", []string{"00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "ffffffff-ffff-ffff-ffff-ffffffffffff"}, []string{"A0EEBC999C0B4EF8BB6D6BB9BD380A11", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", "a0eebc99"}},
	{"d", "date", append([]string{"5874897-12-31", "4713-01-01 BC"}, instantValues...), []string{"2026-02-30", "2026-01-31 12:00:00", "today", "2026-1-31"}},
	{"ts", "timestamp", append([]string{"2026-01-31 12:00:00.000001", "2026-01-31 00:00:00.1", "294276-12-31 23:59:59.999999"}, instantValues...), []string{"2026-01-31 24:00:00", "2026-01-31 12:00", "2026-01-31T12:00:00", "2026-01-31 12:00:00+02", "2026-01-31 12:00:00.1234567"}},
	{"ts0", "timestamp(0)", []string{"2026-01-31 12:00:00.6", "2026-01-31 12:00:00"}, nil},
	{"tz", "timestamptz", append([]string{"2026-01-31 12:00:00+02", "2026-01-31 00:00:00.5+00"}, instantValues...), []string{"2026-01-31 11:00:00+01", "2026-01-31T10:00:00Z", "2026-01-31 15:30:00+05:30", "2026-01-31 12:00:00 UTC", "2026-01-31 12:00:00+99", "now"}},
	{"tm", "time", []string{"00:00:00", "24:00:00", "12:34:56.789", "23:59:59.999999"}, []string{"12:00", "25:00:00", "23:59:60"}},
	{"tmz", "timetz", []string{"00:00:00+00", "12:00:00+02", "10:00:00+00", "12:34:56.789-03:30", "24:00:00+15:59"}, []string{"10:00:00", "11:00:00+01", "10:00:00Z"}},
	{"iv", "interval", []string{"0", "1 month", "30 days", "720 hours", "1 year", "360 days", "-1 day 02:00:00", "-1 mons +3 days -04:05:06.789", "00:00:00.000001", "1 day", "24:00:00", "178000000 years", "-178000000 years"}, []string{"1 year 2 mons 3 days 04:05:06", "1.5 days", "P1D", "1 day ago", "3 weeks", "90 seconds", "5"}},
	{"iv2", "interval", []string{"1 month", "30 days", "-1 day"}, nil},
	{"by", "bytea", []string{"", `\x00`, `\x00ff`, `\xff`, "abc", "bytes, of which there are twenty"}, []string{`\xABCD`, `\x0`, `a\b`, "ä"}},
	{"ip", "inet", []string{"10.0.0.1", "10.0.0.1/8", "10.0.0.0/8", "::1", "::ffff:1.2.3.4", "2001:db8::/32", "0.0.0.0/0", "10.0.0.1/32"}, []string{"10.1", "10.0.0.1/33", "010.0.0.1"}},
	{"ci", "cidr", []string{"10.0.0.0/8", "10.0.0.1/32", "2001:db8::/32", "10.0.0.0/16"}, []string{"10.0.0.1/8"}},
	{"ma", "macaddr", []string{"08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"}, []string{"08-00-2b-01-02-03", "0800.2b01.0203", "x"}},
	{"ma8", "macaddr8", []string{"08:00:2b:01:02:03:04:05"}, []string{"08:00:2b:01:02:03"}},
	{"bi", "bit(3)", []string{"000", "101", "111"}, []string{"1", "1010", "B101", "X1F"}},
	{"bv", "bit varying", []string{"", "0", "1", "0001", "100000001", "01111111", "101"}, nil},
	{"jb", "jsonb", []string{"{}", "[]", `""`, "null", "1", "1.0", "1e2", "100", `{"a":1,"b":[1,2]}`, `{"b": [1, 2], "a": 1.00}`, `"ä"`, `[1,[2]]`, `{"a":{}}`, "true"}, []string{`{"a":2,"a":1,"b":[1,2]}`, "{", `"\u00e4"`, `"\u0000"`, `{"b":[1.0,2],"a":1}`, " [ ] "}},
	{"js", "json", []string{"{}", "[1]"}, nil},
	{"ar", "integer[]", []string{"{}", "{1,2}"}, nil},
	{"tar", "text[]", []string{"{}", "{a}"}, nil},
	{"mo", "money", []string{"0", "1.5"}, nil},
	{"po", "point", []string{"(1,2)"}, nil},
	{"ra", "int4range", []string{"empty", "[1,2)"}, nil},
	{"xm", "xml", []string{"<a/>"}, nil},
	{"lsn", "pg_lsn", []string{"0/0", "1/0"}, nil},
	{"vq", "tsvector", []string{"'a':1"}, nil},
	{"ch", `"char"`, []string{"a", "b"}, nil},
	{"di", "positive", []string{"1", "100"}, []string{"-1"}},
	{"dt", "short", []string{"a", "ab"}, []string{"longer than its domain"}},
	{"Quoted Column", "integer", integerValues, nil},
}

const types = `
	create collation lenient (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
	create type state as enum ('new', 'open', 'it''s');
	create domain state_domain as state;
	create domain positive as integer check (value > 0);
	create domain short as varchar(5) collate "C";`

func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// table creates the table with random rows and returns its description and its rows in the text format.
func table(t *testing.T, url string) (described *catalog.Table, rows [][]condition.Text) {
	t.Helper()
	conn := testenv.Connect(t, url)
	definitions := make([]string, len(columns))
	for i, c := range columns {
		definitions[i] = pgx.Identifier{c.name}.Sanitize() + " " + c.sqlType
	}
	testenv.Exec(t, url, types+"create table r ("+strings.Join(definitions, ", ")+")")
	const count = 60
	tuples := make([]string, count)
	for n := range tuples {
		values := make([]string, len(columns))
		for i, c := range columns {
			// Each value occurs in some row, beside others for each column; some are NULL.
			at := (n*(i+1) + n/7 + i) % (len(c.values) + 1)
			if values[i] = "null"; at < len(c.values) {
				values[i] = quoted(strings.ReplaceAll(c.values[at], "it''s", "it's"))
			}
		}
		tuples[n] = "(" + strings.Join(values, ", ") + ")"
	}
	testenv.Exec(t, url, "insert into r values "+strings.Join(tuples, ", "))
	described, err := catalog.InspectTable(t.Context(), conn, cdc.Name{Schema: "public", Table: "r"})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range query(t, conn.PgConn(), "select * from r") {
		texts := make([]condition.Text, len(row))
		for i, value := range row {
			texts[i] = condition.Text{Value: string(value), Null: value == nil}
		}
		rows = append(rows, texts)
	}
	if len(rows) != count {
		t.Fatalf("%d rows", len(rows))
	}
	return described, rows
}

// query returns rows in the text format, under the settings that sessions of walhook have.
func query(t interface{ Fatal(...any) }, conn *pgconn.PgConn, statement string) [][][]byte {
	rows, err := tryQuery(conn, statement)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func tryQuery(conn *pgconn.PgConn, statement string) ([][][]byte, error) {
	results, err := conn.Exec(context.Background(), "set timezone to 'UTC'; set datestyle to 'ISO, MDY'; set intervalstyle to 'postgres'; set extra_float_digits to 3; set bytea_output to 'hex'; "+statement).ReadAll()
	if err != nil {
		return nil, err
	}
	return results[len(results)-1].Rows, nil
}

func drawName(t *rapid.T, c column) string {
	if strings.Contains(c.name, " ") || rapid.IntRange(0, 9).Draw(t, "quote") == 0 {
		return `"` + c.name + `"`
	}
	return c.name
}

func drawLiteral(t *rapid.T, c column) string {
	switch rapid.IntRange(0, 19).Draw(t, "literal") {
	case 0:
		return rapid.SampledFrom([]string{"true", "false"}).Draw(t, "keyword")
	case 1, 2, 3, 4, 5:
		return rapid.SampledFrom([]string{
			"0", "1", "-1", "+3", "- 2", "1.0", "1.5", "0.1", ".5", "5.", "1e2", "1E-3", "100.00", "16777217",
			"9007199254740993", "9223372036854775807", "9223372036854775808", "40000", "4294967296", "1e400", "1e-400", "0.30000000000000004", "3e38", "1e39",
			"99999999999999999999999999.000000001",
		}).Draw(t, "number")
	case 6:
		other := rapid.SampledFrom(columns).Draw(t, "other")
		return quoted(rapid.SampledFrom(other.values).Draw(t, "foreign"))
	}
	pool := slices.Concat(c.values, c.literals)
	return quoted(strings.ReplaceAll(rapid.SampledFrom(pool).Draw(t, "text"), "it''s", "it's"))
}

// drawCondition draws an expression. Most of its comparisons are of values that can be compared.
func drawCondition(t *rapid.T, depth int) string {
	c := rapid.SampledFrom(columns).Draw(t, "column")
	name := drawName(t, c)
	operator := rapid.SampledFrom([]string{"=", "=", "<>", "<", "<=", ">", ">="}).Draw(t, "operator")
	kind := rapid.IntRange(0, 9).Draw(t, "kind")
	if depth == 0 && kind > 6 {
		kind = 0
	}
	switch kind {
	case 0, 1, 2:
		return name + " " + operator + " " + drawLiteral(t, c)
	case 3:
		return drawLiteral(t, c) + operator + name
	case 4:
		other := rapid.SampledFrom(columns).Draw(t, "other")
		return name + operator + drawName(t, other)
	case 5:
		elements := make([]string, rapid.IntRange(1, 3).Draw(t, "elements"))
		for i := range elements {
			elements[i] = drawLiteral(t, c)
		}
		if rapid.IntRange(0, 4).Draw(t, "with a column") == 0 {
			elements = append(elements, drawName(t, rapid.SampledFrom(columns).Draw(t, "other")))
		}
		return name + rapid.SampledFrom([]string{" in (", " not in ("}).Draw(t, "in") + strings.Join(elements, ", ") + ")"
	case 6:
		return rapid.SampledFrom([]string{name + " is null", name + " is not null", name, "b", "not b2"}).Draw(t, "test")
	case 7:
		return "not " + drawCondition(t, depth-1)
	case 8:
		return "(" + drawCondition(t, depth-1) + ")"
	}
	return drawCondition(t, depth-1) + rapid.SampledFrom([]string{" and ", " or ", " AND "}).Draw(t, "connective") + drawCondition(t, depth-1)
}

// Whatever Bind accepts, PostgreSQL accepts too, and both find the same value for every row.
func TestConditionsMeanWhatTheyMeanInSQL(t *testing.T) {
	t.Parallel()
	url := testenv.Database(t, testenv.Postgres(t), "")
	described, rows := table(t, url)
	conn := testenv.Connect(t, url).PgConn()
	accepted, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		for range 10 {
			text := "(" + drawCondition(t, 2) + ")"
			parsed, err := condition.Parse(text)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			bound, err := parsed.Bind(described.Types)
			if err != nil {
				refused++
				continue
			}
			accepted++
			want, err := tryQuery(conn, "select "+inSQL(text)+" from r")
			if err != nil {
				t.Fatalf("%s is accepted, and the server says: %v", text, err)
			}
			unchanged := rapid.Uint64().Draw(t, "unchanged")
			for n, row := range rows {
				got, err := bound.Eval(func(i int) condition.Text { return row[indexOf(bound.Columns()[i])] })
				if err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				if want := truthOf(want[n][0]); got != want {
					t.Fatalf("%s is %v and in SQL %v for %s", text, got, want, shown(bound, row))
				}

				// If the WAL carries no value for some columns, the value is among the possible ones.
				possible, err := bound.Eval(func(i int) condition.Text {
					column := indexOf(bound.Columns()[i])
					if value := row[column]; unchanged>>i&1 == 0 || !mayBeOmitted(columns[column], value) {
						return value
					}
					return condition.Text{Unchanged: true}
				})
				if err != nil || possible&got == 0 {
					t.Fatalf("%s is %v, but %v without the columns %b: %v", text, got, possible, unchanged, err)
				}
			}
		}
	})
	t.Logf("%d conditions were accepted and %d refused", accepted, refused)
	if accepted < refused/4 {
		t.Errorf("most conditions are refused")
	}
}

// mayBeOmitted reports whether PostgreSQL may store the value out of line: not if it is short. Of types with a fixed size
// it never is, which does no harm here.
func mayBeOmitted(c column, value condition.Text) bool {
	const pointer = 20 // bytes
	size := len(value.Value)
	switch {
	case value.Null:
		return false
	case strings.HasPrefix(c.sqlType, "numeric"):
		size = len(strings.Trim(value.Value, "-0.")) / 2 // four digits in two bytes, without the zeros at both ends
	case c.sqlType == "bytea":
		size = (size - 2) / 2
	case strings.HasPrefix(c.sqlType, "bit"):
		size /= 8
	case c.sqlType == "jsonb":
		return size > len("false") // what isStoredShort knows of documents
	case c.sqlType != "short" && !strings.Contains(c.sqlType, "text") && !strings.Contains(c.sqlType, "varchar"):
		return true
	}
	return size > pointer
}

var enumDomain = regexp.MustCompile(`"e2"|\be2\b`)

// inSQL casts the domain over an enum to it, since PostgreSQL has no operators for such a domain.
func inSQL(text string) string { return enumDomain.ReplaceAllString(text, "e2::state") }

func shown(b *condition.Bound, row []condition.Text) string {
	var values []string
	for _, name := range b.Columns() {
		values = append(values, fmt.Sprintf("%s %+v", name, row[indexOf(name)]))
	}
	return strings.Join(values, ", ")
}

func indexOf(name string) int {
	return slices.IndexFunc(columns, func(c column) bool { return c.name == name })
}

func truthOf(value []byte) condition.Truth {
	switch string(value) {
	case "t":
		return condition.True
	case "f":
		return condition.False
	}
	return condition.Null
}
