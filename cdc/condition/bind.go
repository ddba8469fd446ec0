package condition

import (
	"fmt"
	"slices"
	"strings"
)

// Text is a column's value in the text output format of its type. At most one of Null and Unchanged is true. Unchanged
// marks a TOASTed value that an update did not touch, which the WAL does not carry.
type Text struct {
	Value     string
	Null      bool
	Unchanged bool
}

// Bound is a condition with the types of its columns.
type Bound struct {
	columns   []string
	root      check
	omittable []string
}

// check returns the value of a condition or of a part of it. It receives the values of the condition's columns by
// their index in Bound.Columns.
type check func(values func(int) Text) (Truth, error)

// Columns returns the condition's columns, in the order of Condition.Columns.
func (b *Bound) Columns() []string { return b.columns }

// Omittable returns the columns of which the condition's value is unknown if the WAL does not carry a long value, while
// another of its columns may have changed.
func (b *Bound) Omittable() []string {
	if len(b.columns) == 1 {
		return nil
	}
	return b.omittable
}

// Eval returns the condition's value for a row; values returns the values of the columns by their index. Values are not
// retained. The error reports a value that is not in the text format of its column's type.
func (b *Bound) Eval(values func(column int) Text) (Truth, error) { return b.root(values) }

// Bind checks that the condition can be evaluated on columns of these types. Its error is an *Error.
func (c Condition) Bind(types map[string]Type) (*Bound, error) {
	b := &binder{text: c.String(), types: types, columns: c.Columns()}
	if c.Expression == "" {
		t, exists := types[c.Column]
		if !exists {
			return nil, c.Missing(c.Column)
		}
		return &Bound{columns: b.columns, root: c.simple(t.OID)}, nil
	}
	root, err := parseExpression(c.Expression)
	if err != nil {
		return nil, err
	}
	checked, err := b.bind(root)
	if err != nil {
		return nil, err
	}
	return &Bound{b.columns, checked, b.omittable}, nil
}

// simple returns the check of the first two forms.
func (c Condition) simple(typeOID uint32) check {
	return func(values func(int) Text) (Truth, error) {
		switch v := values(0); {
		case v.Unchanged:
			return True | False, nil
		case v.Null:
			return False, nil
		case len(c.Values) == 0:
			return truthOf(IsSet(v.Value, typeOID)), nil
		default:
			return truthOf(Matches(c.Values, v.Value, typeOID)), nil
		}
	}
}

type binder struct {
	text      string
	types     map[string]Type
	columns   []string
	omittable []string
}

func (b *binder) fail(t token, format string, args ...any) error {
	return &Error{Text: b.text, At: t.at, Reason: fmt.Sprintf(format, args...)}
}

// column returns a column's index and type.
func (b *binder) column(t token) (int, Type, error) {
	columnType, exists := b.types[t.text]
	if !exists {
		return 0, Type{}, missing(b.text, t)
	}
	return slices.Index(b.columns, t.text), columnType, nil
}

func (b *binder) bind(n *node) (check, error) {
	switch n.kind {
	case nodeAnd, nodeOr, nodeNot:
		parts := make([]check, len(n.parts))
		for i, part := range n.parts {
			var err error
			if parts[i], err = b.bind(part); err != nil {
				return nil, err
			}
		}
		switch n.kind {
		case nodeAnd:
			return all(parts), nil
		case nodeOr:
			return some(parts), nil
		default:
			return not(parts[0]), nil
		}
	case nodeIn:
		return b.in(n)
	case nodeCompare:
		return b.compare(n.left, n.operator, n.right, false)
	default:
		return b.test(n)
	}
}

// test binds what concerns one column alone.
func (b *binder) test(n *node) (check, error) {
	i, t, err := b.column(n.left)
	if err != nil {
		return nil, err
	}
	if n.kind == nodeIsNull {
		return func(values func(int) Text) (Truth, error) { return truthOf(values(i).Null), nil }, nil
	}
	if !t.isBool() {
		return nil, b.fail(n.left, "column %q is of type %s: in an expression only a boolean column stands alone; "+
			"compare it, or write is not null", n.left.text, t)
	}
	return unary(i, True|False, func(value string) (bool, error) { return value == "t", nil }), nil
}

func not(part check) check {
	return func(values func(int) Text) (Truth, error) {
		t, err := part(values)
		return t.not(), err
	}
}

func all(parts []check) check {
	return func(values func(int) Text) (Truth, error) {
		result := True
		for _, part := range parts {
			t, err := part(values)
			if err != nil {
				return 0, err
			}
			if result = result.and(t); result == False {
				break
			}
		}
		return result, nil
	}
}

func some(parts []check) check {
	return func(values func(int) Text) (Truth, error) {
		result := False
		for _, part := range parts {
			t, err := part(values)
			if err != nil {
				return 0, err
			}
			if result = result.or(t); result == True {
				break
			}
		}
		return result, nil
	}
}

// unary checks a column's value by a test. NULL is neither true nor false; unchanged is the result if the WAL does not
// carry the value.
func unary(column int, unchanged Truth, test func(string) (bool, error)) check {
	return func(values func(int) Text) (Truth, error) {
		v := values(column)
		switch {
		case v.Null:
			return Null, nil
		case v.Unchanged:
			return unchanged, nil
		}
		met, err := test(v.Value)
		return truthOf(met), err
	}
}

func (b *binder) in(n *node) (check, error) {
	literals := 0
	for _, element := range n.list {
		if element.kind != tokenColumn {
			literals++
		}
	}
	parts := make([]check, len(n.list))
	for i, element := range n.list {
		var err error
		equals := token{tokenOperator, "=", element.at}
		if parts[i], err = b.compare(n.left, equals, element, literals > 1); err != nil {
			return nil, err
		}
	}
	return some(parts), nil
}

// compare binds a comparison of a column with a literal or another column. listed reports that the literal is one of
// several in a list, which PostgreSQL converts to a common type.
func (b *binder) compare(left, operator, right token, listed bool) (check, error) {
	holds := operators[operator.text]
	i, leftType, err := b.column(left)
	if err != nil {
		return nil, err
	}
	comparator, reason := comparatorOf(leftType)
	if reason != "" {
		return nil, b.fail(left, "column %q is of type %s: %s", left.text, leftType, reason)
	}
	if reason := leftType.cannotOrder(comparator); reason != "" && operator.text != "=" && operator.text != "<>" {
		return nil, b.fail(operator, "column %q is of type %s: %s; write =, <> or in (...)", left.text, leftType, reason)
	}
	broken := func(column string, t Type) error {
		return fmt.Errorf("the value of column %q is not in the text format of type %s", column, t)
	}
	if right.kind != tokenColumn {
		literal, reason := comparator.literal(leftType, right, listed)
		if reason != "" {
			return nil, b.fail(right, "%s cannot be compared with column %q of type %s: %s",
				right.shown(), left.text, leftType, reason)
		}
		unchanged := True | False
		switch equality := operator.text == "=" || operator.text == "<>"; {
		case equality && comparator.family.isStoredShort(right.text):
			unchanged = truthOf(operator.text == "<>") // it is long, so it is another one
		case comparator.family.mayBeOmitted():
			b.mayOmit(left.text)
		}
		return unary(i, unchanged, func(value string) (bool, error) {
			order, err := literal(value)
			if err != nil {
				return false, broken(left.text, leftType)
			}
			return holds(order), nil
		}), nil
	}

	j, rightType, err := b.column(right)
	if err != nil {
		return nil, err
	}
	pair, reason := comparatorOfPair(leftType, rightType)
	if reason != "" {
		return nil, b.fail(right, "column %q of type %s cannot be compared with column %q of type %s: %s",
			left.text, leftType, right.text, rightType, reason)
	}
	rightComparator, _ := comparatorOf(rightType)
	equality := comparator.family == rightComparator.family && (operator.text == "=" || operator.text == "<>")
	for column, f := range map[string]family{left.text: comparator.family, right.text: rightComparator.family} {
		if f.mayBeOmitted() {
			b.mayOmit(column)
		}
	}
	return func(values func(int) Text) (Truth, error) {
		l, r := values(i), values(j)
		switch {
		case l.Null || r.Null:
			return Null, nil
		case equality && l.Unchanged != r.Unchanged && comparator.family.isStoredShort(l.Value+r.Value):
			return truthOf(operator.text == "<>"), nil // one is long and the other is not
		case l.Unchanged || r.Unchanged:
			return True | False, nil
		}
		order, err := pair(l.Value, r.Value)
		if err != nil {
			return 0, broken(left.text+", "+right.text, leftType)
		}
		return truthOf(holds(order)), nil
	}, nil
}

// mayOmit notes that the condition's value is unknown if the WAL does not carry a column.
func (b *binder) mayOmit(column string) {
	if !slices.Contains(b.omittable, column) {
		b.omittable = append(b.omittable, column)
		slices.Sort(b.omittable)
	}
}

// operators tells from the order of two values (negative, zero or positive) whether a comparison holds.
var operators = map[string]func(order int) bool{
	"=": func(o int) bool { return o == 0 }, "<>": func(o int) bool { return o != 0 },
	"<": func(o int) bool { return o < 0 }, "<=": func(o int) bool { return o <= 0 },
	">": func(o int) bool { return o > 0 }, ">=": func(o int) bool { return o >= 0 },
}

// shown returns the token for messages.
func (t token) shown() string {
	if t.kind == tokenString {
		return "'" + strings.ReplaceAll(t.text, "'", "''") + "'"
	}
	return t.text
}
