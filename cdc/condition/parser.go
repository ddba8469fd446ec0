package condition

import (
	"slices"
	"strings"
)

type nodeKind uint8

const (
	nodeAnd nodeKind = iota
	nodeOr
	nodeNot
	nodeBoolean // left, a column that is true
	nodeIsNull  // left
	nodeCompare // left operator right
	nodeIn      // left in list
)

// node is a part of a parsed expression.
type node struct {
	kind        nodeKind
	parts       []*node // of nodeAnd, nodeOr and nodeNot
	left, right token   // a column or a literal
	operator    token
	list        []token
}

// maxDepth and maxTokens bound what a condition may ask of the stack and of each row.
const (
	maxDepth  = 100
	maxTokens = 1000
)

type parser struct {
	text   string
	tokens []token
	depth  int
}

// parseExpression parses an expression with the precedence that SQL has: or, and, not, is, comparisons.
func parseExpression(text string) (*node, error) {
	tokens, err := lex(text)
	if err != nil {
		return nil, err
	}
	if len(tokens) > maxTokens {
		return nil, &Error{Text: text, At: tokens[maxTokens].at, Reason: "the condition is too long"}
	}
	p := &parser{text: text, tokens: tokens}
	root, err := p.disjunction()
	if err != nil {
		return nil, err
	}
	if t := p.next(); t.kind != tokenEnd {
		return nil, p.unexpected(t, "the end, and or or")
	}
	return root, nil
}

func (p *parser) peek() token { return p.tokens[0] }

func (p *parser) next() token {
	t := p.tokens[0]
	if t.kind != tokenEnd {
		p.tokens = p.tokens[1:]
	}
	return t
}

// accept consumes the next token if it is this keyword or punctuation.
func (p *parser) accept(text string) bool {
	t := p.peek()
	if (t.kind == tokenKeyword || t.kind == tokenPunctuation) && t.text == text {
		p.next()
		return true
	}
	return false
}

func (p *parser) fail(t token, reason string) error {
	return &Error{Text: p.text, At: t.at, Reason: reason}
}

// unexpected is the error for a token in a wrong place.
func (p *parser) unexpected(t token, expected string) error {
	found := "the condition ends here"
	switch t.kind {
	case tokenEnd:
	case tokenString:
		found = "unexpected text"
	default:
		found = "unexpected " + t.text
	}
	if t.kind == tokenColumn {
		if hint, known := map[string]string{
			"between": "write two comparisons", "like": "there are no patterns", "ilike": "there are no patterns",
			"similar": "there are no patterns", "collate": "there are no collations", "any": "write in (...)",
		}[strings.ToLower(t.text)]; known {
			return p.fail(t, found+": "+hint)
		}
	}
	return p.fail(t, found+": expected "+expected)
}

func (p *parser) disjunction() (*node, error) { return p.chain("or", nodeOr, p.conjunction) }

func (p *parser) conjunction() (*node, error) { return p.chain("and", nodeAnd, p.negation) }

func (p *parser) chain(word string, kind nodeKind, part func() (*node, error)) (*node, error) {
	first, err := part()
	if err != nil {
		return nil, err
	}
	parts := []*node{first}
	for p.accept(word) {
		next, err := part()
		if err != nil {
			return nil, err
		}
		parts = append(parts, next)
	}
	if len(parts) == 1 {
		return first, nil
	}
	return &node{kind: kind, parts: parts}, nil
}

func (p *parser) negation() (*node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.fail(p.peek(), "the condition is nested too deeply")
	}
	defer func() { p.depth-- }()
	if !p.accept("not") {
		return p.predicate()
	}
	inner, err := p.negation()
	if err != nil {
		return nil, err
	}
	return &node{kind: nodeNot, parts: []*node{inner}}, nil
}

// predicate parses a comparison, a test or an expression in parentheses.
func (p *parser) predicate() (*node, error) {
	if p.accept("(") {
		inner, err := p.disjunction()
		if err != nil {
			return nil, err
		}
		if t := p.peek(); !p.accept(")") {
			return nil, p.unexpected(t, "and, or or a closing parenthesis")
		}
		if t := p.peek(); t.kind == tokenOperator || t.text == "is" || t.text == "in" {
			return nil, p.fail(t, "only columns and literals can be compared, not what is in parentheses")
		}
		return inner, nil
	}
	left, err := p.operand()
	if err != nil {
		return nil, err
	}
	t := p.peek()
	switch {
	case t.kind == tokenOperator:
		return p.comparison(left)
	case p.accept("is"):
		negated := p.accept("not")
		if t := p.peek(); !p.accept("null") {
			return nil, p.unexpected(t, "null or not null")
		}
		if left.kind != tokenColumn {
			return nil, p.fail(left, "a literal is never null: name a column")
		}
		return negate(&node{kind: nodeIsNull, left: left}, negated), nil
	case p.accept("in"):
		return p.in(left, false)
	case p.accept("not"):
		if t := p.peek(); !p.accept("in") {
			return nil, p.unexpected(t, "in")
		}
		return p.in(left, true)
	case left.kind == tokenColumn:
		if t.kind == tokenColumn || t.kind == tokenString || t.kind == tokenNumber {
			return nil, p.unexpected(t, "a comparison, is null or in")
		}
		return &node{kind: nodeBoolean, left: left}, nil
	default:
		return nil, p.unexpected(t, "a comparison with a column")
	}
}

func negate(n *node, negated bool) *node {
	if !negated {
		return n
	}
	return &node{kind: nodeNot, parts: []*node{n}}
}

// operand parses a column or a literal.
func (p *parser) operand() (token, error) {
	t := p.next()
	switch {
	case t.kind == tokenColumn && p.peek().text == "(" && p.peek().kind == tokenPunctuation:
		return t, p.fail(t, "there are no functions: name a column or a literal")
	case t.kind == tokenColumn, t.kind == tokenString, t.kind == tokenNumber:
		return t, nil
	case t.kind == tokenKeyword && (t.text == "true" || t.text == "false"):
		return t, nil
	case t.kind == tokenKeyword && t.text == "null":
		return t, p.fail(t, "nothing equals null: write is null or is not null")
	}
	return t, p.unexpected(t, "a column or a literal ('text', a number, true or false)")
}

func (p *parser) comparison(left token) (*node, error) {
	operator := p.next()
	right, err := p.operand()
	if err != nil {
		return nil, err
	}
	if left.kind != tokenColumn && right.kind != tokenColumn {
		return nil, p.fail(left, "two literals are compared: one side must be a column")
	}
	if t := p.peek(); t.kind == tokenOperator || t.text == "is" && t.kind == tokenKeyword {
		return nil, p.fail(t, "a comparison cannot be compared: join two comparisons with and")
	}
	if left.kind != tokenColumn { // the column comes first
		left, right = right, left
		if at := strings.IndexByte("<>", operator.text[0]); at >= 0 && operator.text != "<>" {
			operator.text = "><"[at:at+1] + operator.text[1:]
		}
	}
	return &node{kind: nodeCompare, left: left, operator: operator, right: right}, nil
}

func (p *parser) in(left token, negated bool) (*node, error) {
	if left.kind != tokenColumn {
		return nil, p.fail(left, "a literal is looked for in a list: name a column")
	}
	if t := p.peek(); !p.accept("(") {
		return nil, p.unexpected(t, "a list in parentheses")
	}
	n := &node{kind: nodeIn, left: left}
	for {
		element, err := p.operand()
		if err != nil {
			return nil, err
		}
		n.list = append(n.list, element)
		t := p.peek()
		if p.accept(")") {
			break
		}
		if !p.accept(",") {
			return nil, p.unexpected(t, "a comma or a closing parenthesis")
		}
	}
	if t := p.peek(); t.kind == tokenOperator {
		return nil, p.fail(t, "a comparison cannot be compared: join two comparisons with and")
	}
	return negate(n, negated), nil
}

// columnsOf returns the distinct columns of an expression, in the order in which they appear.
func columnsOf(root *node) []string {
	var columns []string
	add := func(t token) {
		if t.kind == tokenColumn && !slices.Contains(columns, t.text) {
			columns = append(columns, t.text)
		}
	}
	var walk func(*node)
	walk = func(n *node) {
		for _, part := range n.parts {
			walk(part)
		}
		if len(n.parts) == 0 {
			add(n.left)
			add(n.right)
		}
		for _, element := range n.list {
			add(element)
		}
	}
	walk(root)
	return columns
}
