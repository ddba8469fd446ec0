package stream

import (
	"errors"
	"fmt"
	"unsafe"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/condition"
)

// MissingColumnError reports that the stream no longer contains a mapped column. The stream stops there, and nothing
// is skipped.
type MissingColumnError struct {
	Table, Column, Variable string
}

func (e *MissingColumnError) Error() string {
	return fmt.Sprintf(
		"table %s has no column %q in the stream any more (%s): it was renamed, dropped, or left out of the publication; "+
			"nothing was skipped: bring the column back or publish it, or, where it is gone for good, "+
			"run `walhook detach` and `walhook attach` with the new mapping",
		e.Table, e.Column, e.Variable,
	)
}

// ConditionError reports that a condition cannot be evaluated on the column types that the stream describes. The
// stream stops there, and nothing is skipped.
type ConditionError struct{ Table, Variable, Reason string }

func (e *ConditionError) Error() string {
	return fmt.Sprintf("%s cannot be evaluated on table %s any more, whose columns have other types in the stream: %s",
		e.Variable, e.Table, e.Reason)
}

// rowLayout describes the rows of one relation: it maps each column to a field.
type rowLayout struct {
	table    cdc.Table
	name     string
	idColumn string
	fields   []int // for each column of the relation the index of its field; -1: not mapped
	count    int   // number of fields
	types    []uint32
	mods     []int32

	// Indexes of fields; -1 if not mapped.
	id, assessment, organization, external, copied, assessmentName int

	stamps []int // indexes of fields

	markers []mappedMarker // those that are mapped
}

// mappedMarker is a marker that is bound to a layout.
type mappedMarker struct {
	kind   cdc.MarkerKind
	bound  *condition.Bound
	values func(column int) condition.Text // of the row that the decoder has read
	always int                             // the field that sets the marker unless it is NULL; -1: none
}

// field is a value as received: kind is 't' for text, 'n' for NULL, 'u' for unchanged, 0 for not sent. value is not a
// copy.
type field struct {
	kind  byte
	value []byte
}

// columnBytes is the minimum size of a column in a Relation message: flags, the end of its name, type and modifier.
const columnBytes = 1 + 1 + 4 + 4

// readRelation replaces the layout of a mapped relation: columns may have been added, renamed or reordered.
func (d *Decoder) readRelation(c *cursor) error {
	oid := c.uint32()
	schema, name := c.string(), c.string()
	c.skip(1)
	columns := int(c.uint16())
	table := d.table(oid)
	if table == 0 || c.err != nil {
		return nil
	}
	delete(d.layouts, oid) // if the new description is invalid, the old layout must not be used
	p := &rowLayout{
		table: table, name: d.decodeText(c, schema+"."+name),
		fields: make([]int, 0, min(columns, (len(c.data)-c.at)/columnBytes)),
	}
	variables := catalog.RespondentVariables(d.mapping)
	if table == cdc.Assessment {
		variables = catalog.AssessmentVariables(d.mapping)
	}
	names := d.mapping.RespondentColumns()
	if table == cdc.Assessment {
		names = d.mapping.AssessmentColumns()
	}
	at := map[string]int{}
	for i, column := range names {
		at[column] = i
	}
	p.count, p.types, p.mods = len(names), make([]uint32, len(names)), make([]int32, len(names))
	found := make([]bool, len(names))
	for range columns {
		c.skip(1)
		column := d.decodeText(c, c.string())
		typeOID := c.uint32()
		modifier := int32(c.uint32())
		if c.err != nil {
			return c.err
		}
		index, mapped := at[column]
		if !mapped {
			p.fields = append(p.fields, -1)
			continue
		}
		if base, domain := d.domainBases[typeOID]; domain {
			typeOID = base
		}
		p.fields = append(p.fields, index)
		p.types[index], p.mods[index], found[index] = typeOID, modifier, true
	}
	for _, v := range variables {
		if v.Column != "" && !found[at[v.Column]] {
			return &MissingColumnError{Table: p.name, Column: v.Column, Variable: v.Name}
		}
	}
	index := func(column string) int {
		if i, mapped := at[column]; mapped && column != "" {
			return i
		}
		return -1
	}
	m := d.mapping
	if table == cdc.Respondent {
		p.idColumn = m.ID
		p.assessment, p.organization = index(m.Assessment), index(m.Organization)
		for _, column := range m.StampColumns() {
			p.stamps = append(p.stamps, index(column))
		}
		for _, marker := range m.Markers() {
			if marker.IsZero() {
				continue
			}
			bound, err := p.bind(d, marker, index)
			if err != nil {
				return err
			}
			p.markers = append(p.markers, bound)
		}
	} else {
		p.idColumn = m.AssessmentID
		p.external, p.copied = index(m.ExternalID), index(m.CopiedFrom)
		p.organization, p.assessmentName = index(m.AssessmentOrganization), index(m.AssessmentName)
	}
	p.id = index(p.idColumn)
	d.layouts[oid] = p
	return nil
}

// read decodes a tuple and returns the mapped fields.
func (p *rowLayout) read(d *Decoder, c *cursor) []field {
	fields := d.fields
	if cap(fields) < p.count {
		fields = make([]field, p.count)
	}
	fields = fields[:p.count]
	clear(fields)
	columns := int(c.uint16())
	if c.err == nil && columns != len(p.fields) {
		_ = c.fail("a row of %s has %d columns and not %d", p.name, columns, len(p.fields))
	}
	if c.err != nil {
		return fields
	}
	for _, index := range p.fields {
		kind := c.uint8()
		var value []byte
		switch kind {
		case 'n', 'u':
		case 't':
			value = c.bytes(int(c.uint32()))
		default:
			_ = c.fail("a value of %s is of the unknown kind %q", p.name, kind)
		}
		if c.err != nil {
			return fields
		}
		if index < 0 {
			continue
		}
		if d.text != nil {
			value = []byte(d.decodeText(c, string(value)))
		}
		fields[index] = field{kind, value}
	}
	return fields
}

// row builds a Row from the decoder's fields.
func (p *rowLayout) row(c *cursor, d *Decoder, id string) cdc.Row {
	text := func(index int) cdc.Text {
		if index < 0 {
			return cdc.Text{Null: true}
		}
		switch f := d.fields[index]; f.kind {
		case 't':
			return cdc.Text{Value: d.intern(f.value)}
		case 'u':
			return cdc.Text{Unchanged: true}
		default:
			return cdc.Text{Null: true}
		}
	}
	idOf := func(index int) cdc.Text {
		value := text(index)
		if value.Value != "" {
			value.Value = p.typeOf(index).CanonicalID(value.Value)
		}
		return value
	}
	if p.table == cdc.Assessment {
		return cdc.Row{
			ID: id, ExternalID: text(p.external), CopiedFrom: idOf(p.copied),
			Organization: idOf(p.organization), Name: text(p.assessmentName),
		}
	}
	row := cdc.Row{
		ID: id, Assessment: idOf(p.assessment), Organization: idOf(p.organization), Stamps: p.readStamps(d),
	}
	for i := range p.markers {
		row.SetMark(p.markers[i].kind, p.mark(c, d, &p.markers[i]))
	}
	return row
}

// readStamps returns the finish stamp of the row that the decoder has read.
func (p *rowLayout) readStamps(d *Decoder) []cdc.Stamp {
	return cdc.NewStamps(len(p.stamps), d.stampKey, func(i int) (cdc.Text, cdc.ColumnType) {
		f := d.fields[p.stamps[i]]
		value := cdc.Text{Value: string(f.value), Null: f.kind != 't' && f.kind != 'u', Unchanged: f.kind == 'u'}
		return value, p.typeOf(p.stamps[i])
	})
}

// typeOf returns a field's type.
func (p *rowLayout) typeOf(index int) cdc.ColumnType {
	return cdc.ColumnType{OID: p.types[index], Modifier: p.mods[index]}
}

// key returns a key as it is stored.
func (p *rowLayout) key(value []byte) string {
	if p.table == cdc.Assessment {
		return p.typeOf(p.id).CanonicalID(string(value))
	}
	return string(value)
}

// bind binds a marker to the layout; index returns the index of a column's field.
func (p *rowLayout) bind(d *Decoder, m cdc.MappedMarker, index func(string) int) (mappedMarker, error) {
	columns := m.Columns()
	types, fields := make(map[string]condition.Type, len(columns)), make([]int, len(columns))
	for i, column := range columns {
		fields[i] = index(column)
		types[column] = condition.Type{OID: p.types[fields[i]]}
	}
	bound, err := m.Bind(types)
	var mistake *condition.Error
	if errors.As(err, &mistake) {
		return mappedMarker{}, &ConditionError{Table: p.name, Variable: m.Variable, Reason: mistake.Reason}
	}
	always := -1
	if m.IsColumn() && condition.AlwaysSet(p.types[fields[0]]) {
		always = fields[0]
	}
	return mappedMarker{kind: m.Kind, bound: bound, always: always, values: func(column int) condition.Text {
		switch f := d.fields[fields[column]]; f.kind {
		case 't':
			// Without a copy: the value is only needed until the condition has been evaluated, and the message lives longer.
			return condition.Text{Value: unsafe.String(unsafe.SliceData(f.value), len(f.value))}
		case 'u':
			return condition.Text{Unchanged: true}
		default:
			return condition.Text{Null: true}
		}
	}}, nil
}

// mark evaluates a marker on the row that the decoder has read.
func (p *rowLayout) mark(c *cursor, d *Decoder, m *mappedMarker) cdc.Mark {
	if m.always >= 0 && d.fields[m.always].kind == 't' {
		return cdc.MarkSet
	}
	truth, err := m.bound.Eval(m.values)
	if err != nil {
		_ = c.fail("a row of %s: %s", p.name, err)
	}
	return cdc.MarkOf(truth)
}
