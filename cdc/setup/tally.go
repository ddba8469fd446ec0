package setup

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/condition"
)

const (
	// shownValues is how many values of a column a preview shows, and shownRows how many rows of each kind.
	shownValues, shownRows = 8, 3

	// shownLength is how many characters of a value a preview shows.
	shownLength = 40

	// countedValues bounds how many different values of a column are counted one by one.
	countedValues = 20_000
)

// The kinds of rows, as in PreviewCounts.
const (
	kindNoResponse  = "no_response"
	kindCreatedOnly = "created_only"
	kindStarted     = "started"
	kindFinished    = "finished"
)

// tally evaluates a mapping on rows and counts the outcomes.
type tally struct {
	mapping  cdc.Mapping
	table    *catalog.Table
	columns  []string
	at       map[string]int // the columns' indexes
	read     func([]cdc.Text) (cdc.Row, error)
	backward *condition.Bound // finished before started; nil: not both markers are times

	assessments map[string]cdc.Row // by id; nil: none are mapped

	rows     int64
	counts   map[string]int64
	lacking  PreviewAssessments
	sources  PreviewOrganizations
	values   map[cdc.MarkerKind][]*valueCounts
	stamps   map[string]int64 // of finished responses
	odd      []PreviewOdd
	examples map[string][]PreviewExample
	typical  map[string]cdc.Row        // a row of each kind, for next; of finished rows one with a stamp, if any
	seen     map[cdc.MarkerKind][]bool // whether some row has each value that a marker names
}

func newTally(m cdc.Mapping, table *catalog.Table) *tally {
	t := &tally{
		mapping: m, table: table, columns: m.RespondentColumns(), at: map[string]int{},
		read:   catalog.NewRowReader(m, table, new(cdc.StampKey)),
		counts: map[string]int64{}, values: map[cdc.MarkerKind][]*valueCounts{}, stamps: map[string]int64{},
		examples: map[string][]PreviewExample{}, typical: map[string]cdc.Row{},
		seen: map[cdc.MarkerKind][]bool{},
	}
	for i, column := range t.columns {
		t.at[column] = i
	}
	for _, marker := range m.Markers() {
		t.seen[marker.Kind] = make([]bool, len(marker.Values))
		for range marker.Columns() {
			t.values[marker.Kind] = append(t.values[marker.Kind], &valueCounts{known: map[string]*PreviewValue{}})
		}
	}
	if m.Started.IsColumn() && m.Finished.IsColumn() &&
		isTime(table, m.Started.Column) && isTime(table, m.Finished.Column) {
		quote := func(column string) string { return `"` + strings.ReplaceAll(column, `"`, `""`) + `"` }
		if earlier, err := condition.Parse(quote(m.Finished.Column) + " < " + quote(m.Started.Column)); err == nil {
			t.backward, _ = earlier.Bind(table.Types)
		}
	}
	return t
}

func isTime(table *catalog.Table, column string) bool {
	return cdc.ColumnType{OID: table.Columns[column]}.Family() == cdc.FamilyTime
}

// add counts a row.
func (t *tally) add(fields []cdc.Text) error {
	row, err := t.read(fields)
	if err != nil {
		return err
	}
	t.rows++
	state := cdc.InitialState(row)
	kind := kindOf(state)
	t.counts[kind]++
	for _, marker := range t.mapping.Markers() {
		for i, named := range marker.Values {
			if value := fields[t.at[marker.Column]]; !t.seen[marker.Kind][i] && !value.Null {
				t.seen[marker.Kind][i] = condition.Matches([]string{named}, value.Value, t.table.Columns[marker.Column])
			}
		}
		if state.Excluded && marker.Kind != cdc.WhereMarker {
			continue
		}
		set := row.Mark(marker.Kind) == cdc.MarkSet
		for i, column := range marker.Columns() {
			t.values[marker.Kind][i].add(fields[t.at[column]], set)
		}
	}
	if kind == kindFinished {
		t.stamps[state.Stamp]++
	}
	if err := t.addOdd(fields, row, state); err != nil {
		return err
	}
	organization, name := t.addAssessment(row, state)
	if len(t.examples[kind]) < shownRows {
		example := PreviewExample{
			Kind: kind, ID: shorten(row.ID), Organization: shown(organization), AssessmentName: shown(name),
		}
		for i, column := range t.columns {
			if column != t.mapping.ID {
				example.Columns = append(example.Columns, PreviewCell{column, shown(fields[i])})
			}
		}
		t.examples[kind] = append(t.examples[kind], example)
	}
	if typical, known := t.typical[kind]; !known || isStamped(state) && !isStamped(cdc.InitialState(typical)) {
		t.typical[kind] = row
	}
	return nil
}

// addAssessment returns the organization of a row and its assessment's name, and counts what a response lacks.
func (t *tally) addAssessment(row cdc.Row, state cdc.State) (organization, name cdc.Text) {
	assessment, known := t.assessments[row.Assessment.Value]
	if known = known && !row.Assessment.Null; !known {
		null := cdc.Text{Null: true}
		assessment = cdc.Row{ExternalID: null, Organization: null, Name: null}
	}
	own := !row.Organization.Null
	if organization = assessment.Organization; own {
		organization = row.Organization
	}
	if state.Excluded {
		return organization, assessment.Name
	}
	count := func(n *int64, counts bool) {
		if counts {
			*n++
		}
	}
	count(&t.sources.Own, own)
	count(&t.sources.OfAssessment, !own && !organization.Null)
	count(&t.sources.None, organization.Null)
	if t.assessments != nil {
		count(&t.lacking.Unknown, !known && !row.Assessment.Null)
		count(&t.lacking.NoExternalID, known && assessment.ExternalID.Null)
		count(&t.lacking.NoName, known && t.mapping.AssessmentName != "" && assessment.Name.Null)
	}
	return organization, assessment.Name
}

// isStamped reports whether a response is finished and has its stamp: the next stamp then belongs to a further finish.
func isStamped(s cdc.State) bool { return s.FinishedNow && !s.AwaitsStamp }

func kindOf(s cdc.State) string {
	switch {
	case s.Excluded:
		return kindNoResponse
	case s.FinishedNow:
		return kindFinished
	case s.StartedNow:
		return kindStarted
	}
	return kindCreatedOnly
}

// addOdd counts responses that a mapping is rarely meant to have.
func (t *tally) addOdd(fields []cdc.Text, row cdc.Row, state cdc.State) error {
	if state.Excluded {
		return nil
	}
	note := func(what string) {
		i := slices.IndexFunc(t.odd, func(o PreviewOdd) bool { return o.What == what })
		if i < 0 {
			i, t.odd = len(t.odd), append(t.odd, PreviewOdd{What: what})
		}
		if t.odd[i].Rows++; len(t.odd[i].IDs) < shownRows {
			t.odd[i].IDs = append(t.odd[i].IDs, shorten(row.ID))
		}
	}
	if state.FinishedNow && !state.StartedNow {
		note("finished_not_started")
	}
	if t.backward != nil {
		truth, err := t.backward.Eval(func(column int) condition.Text {
			return condition.Text(fields[t.at[t.backward.Columns()[column]]])
		})
		if err != nil {
			return err
		}
		if met, _ := truth.Met(); met {
			note("finished_before_started")
		}
	}
	if !state.FinishedNow && state.Stamp != "" {
		note("stamp_without_finish")
	}
	if state.AssessmentID == nil {
		note("no_assessment")
	}
	return nil
}

// preview returns the outcome.
func (t *tally) preview() *Preview {
	p := &Preview{
		Counts: PreviewCounts{
			t.counts[kindNoResponse], t.counts[kindCreatedOnly], t.counts[kindStarted], t.counts[kindFinished],
		},
		Stamp: t.stamp(), Odd: append([]PreviewOdd{}, t.odd...), Examples: []PreviewExample{}, Next: t.next(),
		Assessments: t.lacking, Organizations: t.sources,
	}
	p.Organizations.Mapped = t.mapping.Organization != "" || t.mapping.AssessmentOrganization != ""
	if t.assessments != nil {
		p.Assessments.Table, p.Assessments.Rows = t.mapping.AssessmentTable.Display(), int64(len(t.assessments))
	}
	slices.SortFunc(p.Odd, func(a, b PreviewOdd) int { return strings.Compare(a.What, b.What) })
	for _, marker := range t.mapping.Markers() {
		if marker.IsZero() {
			continue
		}
		shown := PreviewMarker{Variable: marker.Variable, Condition: marker.String()}
		for i, column := range marker.Columns() {
			shown.Columns = append(shown.Columns, t.values[marker.Kind][i].column(column, t.table.Types[column].String()))
		}
		p.Markers = append(p.Markers, shown)
	}
	for _, kind := range []string{kindNoResponse, kindCreatedOnly, kindStarted, kindFinished} {
		p.Examples = append(p.Examples, t.examples[kind]...)
	}
	return p
}

// missingValues warns of values that a marker names and no row has. Most are typos.
func (t *tally) missingValues() (findings []catalog.Finding) {
	if t.rows < minStamps {
		return nil
	}
	for _, marker := range t.mapping.Markers() {
		for i, seen := range t.seen[marker.Kind] {
			if !seen {
				findings = append(findings, catalog.Finding{
					Check: "marker_values", Level: catalog.Warn,
					Found: fmt.Sprintf("%s names %q, and none of the %d rows that were read has it in column %q",
						marker.Variable, marker.Values[i], t.rows, marker.Column),
					Remedy: "compare it with the values that walhook preview shows; " +
						"if no response is that far yet, nothing is wrong",
				})
			}
		}
	}
	return findings
}

func (t *tally) stamp() PreviewStamp {
	s := PreviewStamp{
		Columns: append([]string{}, t.mapping.StampColumns()...), Finished: t.counts[kindFinished], Null: t.stamps[""],
	}
	if len(s.Columns) == 0 {
		return s
	}
	for stamp, rows := range t.stamps {
		if stamp == "" {
			continue
		}
		if s.Distinct++; rows > 1 {
			s.Shared += rows
		}
		s.Most = max(s.Most, rows)
	}
	if level, found, _ := judgeStamps("", s.Finished, s.Finished-s.Null, s.Most, s.Columns); level != catalog.OK {
		s.Warning = found
	}
	return s
}

// next returns what the next writes to the existing kinds of rows would fire.
func (t *tally) next() []PreviewNext {
	next := []PreviewNext{}
	add := func(kind, write string, fired cdc.EventSet) {
		n := PreviewNext{Kind: kind, Write: write, Fires: []string{}}
		for _, event := range fired.Types() {
			n.Fires = append(n.Fires, event.String())
		}
		next = append(next, n)
	}
	for _, kind := range []string{kindNoResponse, kindCreatedOnly, kindStarted, kindFinished} {
		row, exists := t.typical[kind]
		if !exists {
			continue
		}
		state := cdc.InitialState(row)
		write := func(what string, changes ...func(*cdc.Row)) {
			now, fired, after := &state, cdc.EventSet(0), row
			for _, change := range changes {
				change(&after)
				var events cdc.EventSet
				now, events = cdc.Classify(now, cdc.Change{Kind: cdc.Update, Table: cdc.Respondent, New: after})
				fired |= events
			}
			add(kind, what, fired)
		}
		set := func(marker cdc.MarkerKind, to cdc.Mark) func(*cdc.Row) {
			return func(r *cdc.Row) { r.SetMark(marker, to) }
		}
		finish := func(r *cdc.Row) {
			r.SetMark(cdc.FinishedMarker, cdc.MarkSet)
			t.setNewStamp(r)
		}
		write("moves no marker and no stamp", func(*cdc.Row) {})
		switch kind {
		case kindNoResponse:
			write("the row becomes a response", set(cdc.WhereMarker, cdc.MarkSet))
		case kindCreatedOnly:
			write("the started marker is set", set(cdc.StartedMarker, cdc.MarkSet))
			write("the finished marker is set", finish)
		case kindStarted:
			write("the finished marker is set", finish)
		case kindFinished:
			if len(t.mapping.StampColumns()) > 0 {
				write("the finish stamp changes", t.setNewStamp)
			}
			write("the finished marker is cleared", set(cdc.FinishedMarker, cdc.MarkUnset))
			write("the finished marker is cleared, then set again", set(cdc.FinishedMarker, cdc.MarkUnset), finish)
		}
	}
	return next
}

// setNewStamp gives a row a stamp that it has never had.
func (t *tally) setNewStamp(r *cdc.Row) {
	types, roles := catalog.ColumnTypesOf(t.mapping, t.table, nil), catalog.StampRoles(t.mapping)
	r.Stamps = cdc.NewStamps(len(roles), new(cdc.StampKey), func(i int) (cdc.Text, cdc.ColumnType) {
		return cdc.Text{Value: "a new value"}, types[roles[i]]
	})
}

// valueCounts counts a column's values.
type valueCounts struct {
	null  PreviewValue
	known map[string]*PreviewValue // by the value, or by the hash of a long one
	other PreviewValue             // of values beyond countedValues
}

func (c *valueCounts) add(value cdc.Text, set bool) {
	count := &c.null
	if !value.Null {
		key := value.Value
		if len(key) > sha256.Size {
			hash := sha256.Sum256([]byte(key))
			key = string(hash[:])
		}
		if count = c.known[key]; count == nil {
			if count = &c.other; len(c.known) < countedValues {
				count = &PreviewValue{Value: shown(value)}
				c.known[key] = count
			}
		}
	}
	if count.Rows++; set {
		count.Set++
	}
}

// column returns the most frequent values. If there are many, it leaves out those that only one row has.
func (c *valueCounts) column(name, typeName string) PreviewColumn {
	column := PreviewColumn{
		Column: name, Type: typeName, Values: []PreviewValue{},
		OtherRows: c.other.Rows, OtherSet: c.other.Set, OtherValues: c.other.Rows,
	}
	frequent := slices.SortedFunc(maps.Values(c.known), func(a, b *PreviewValue) int {
		return cmp.Or(cmp.Compare(b.Rows, a.Rows), strings.Compare(*a.Value, *b.Value))
	})
	if c.null.Rows > 0 {
		column.Values = append(column.Values, c.null)
	}
	for i, value := range frequent {
		if i < shownValues && (value.Rows > 1 || len(frequent) <= shownValues) {
			column.Values = append(column.Values, *value)
			continue
		}
		column.OtherValues++
		column.OtherRows += value.Rows
		column.OtherSet += value.Set
	}
	return column
}

// shown returns the value for display; nil is NULL.
func shown(value cdc.Text) *string {
	if value.Null {
		return nil
	}
	return new(shorten(value.Value))
}

// shorten truncates a value, and replaces control characters, which a terminal would obey.
func shorten(value string) string {
	var b strings.Builder
	n := 0
	for _, r := range value {
		if n++; n > shownLength {
			b.WriteString("...")
			break
		}
		if !unicode.IsPrint(r) {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}
