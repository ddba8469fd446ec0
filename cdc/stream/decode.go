package stream

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/condition"
)

// MessageKind is the kind of a Message.
type MessageKind uint8

// The kinds of Message.
const (
	MessageIgnored            MessageKind = iota // does not concern the mapped tables
	MessageBegin                                 // Tx
	MessageCommit                                // EndLSN
	MessageChange                                // Changes
	MessageUnidentifiedDelete                    // a delete of a mapped row without its key
	MessageSilence                               // walhook.silence() was called in this transaction
)

// Message is one decoded message of the stream.
type Message struct {
	Kind    MessageKind
	Tx      cdc.Tx        // of MessageBegin
	EndLSN  pglogrepl.LSN // of MessageCommit: the end of the transaction
	Changes []cdc.Change  // valid until the next call of Decode
}

// DecodeError reports a message that violates version 1 of pgoutput's protocol. Nothing was skipped.
type DecodeError struct {
	Message byte // its type
	Offset  int
	Reason  string
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf(
		"decode pgoutput message %q at byte %d: %s; nothing was skipped; please report this with the server's version",
		e.Message, e.Offset, e.Reason,
	)
}

// Decoder decodes pgoutput messages of protocol version 1 without streaming (PostgreSQL manual, "Logical Replication
// Message Formats"). It neither reads nor copies unmapped columns. It is not safe for concurrent use.
type Decoder struct {
	mapping     cdc.Mapping
	stampKey    *cdc.StampKey
	text        *catalog.SourceText
	respondent  uint32
	assessment  uint32
	layouts     map[uint32]*rowLayout
	domainBases map[uint32]uint32 // domain to built-in base type
	interned    map[string]string
	keyType     cdc.ColumnType // of the respondent's key in the last change
	changes     [2]cdc.Change
	fields      []field
	oldFields   []field
}

// NewDecoder returns a Decoder for the tables with these OIDs, which survive a rename. assessmentOID is 0 if no
// assessment table is mapped.
func NewDecoder(m cdc.Mapping, key *cdc.StampKey, respondentOID, assessmentOID uint32) *Decoder {
	return &Decoder{
		mapping: m, stampKey: key, respondent: respondentOID, assessment: assessmentOID, layouts: map[uint32]*rowLayout{},
		domainBases: map[uint32]uint32{}, interned: map[string]string{},
	}
}

// microsecFromUnixToY2K is PostgreSQL's epoch, 2000-01-01, in Unix microseconds.
const microsecFromUnixToY2K = 946684800 * 1000000

// Decode decodes one message. Its error is a *DecodeError, a *MissingColumnError if a mapped column is gone, or an
// error of the text conversion.
func (d *Decoder) Decode(data []byte) (Message, error) {
	if len(data) == 0 {
		return Message{}, &DecodeError{Reason: "it is empty"}
	}
	c := &cursor{kind: data[0], data: data, at: 1}
	m, err := d.decode(c)
	if err != nil {
		return Message{}, err
	}
	if c.err != nil {
		return Message{}, c.err
	}
	return m, nil
}

func (d *Decoder) decode(c *cursor) (Message, error) {
	switch c.kind {
	case 'B':
		commit := pglogrepl.LSN(c.uint64())
		at := int64(c.uint64())
		return Message{
			Kind: MessageBegin,
			Tx: cdc.Tx{
				CommitLSN: commit, CommitAt: time.UnixMicro(at + microsecFromUnixToY2K).UTC(), XID: c.uint32(),
			},
		}, nil
	case 'C':
		c.skip(1 + 8)
		end := pglogrepl.LSN(c.uint64())
		c.skip(8)
		return Message{Kind: MessageCommit, EndLSN: end}, nil
	case 'R':
		return Message{}, d.readRelation(c)
	case 'I':
		return d.insert(c)
	case 'U':
		return d.update(c)
	case 'D':
		return d.delete(c)
	case 'T':
		return d.truncate(c)
	case 'M':
		flags := c.uint8()
		c.skip(8)
		prefix := c.string()
		content := c.bytes(int(c.uint32()))
		if flags&1 == 1 && prefix == "walhook" && string(content) == "silence" {
			return Message{Kind: MessageSilence}, nil
		}
		return Message{}, nil
	case 'Y':
		d.readType(c)
		return Message{}, nil
	case 'O':
		return Message{}, nil
	default:
		return Message{}, &DecodeError{Message: c.kind, Reason: "the type of message is unknown"}
	}
}

// readType reads a Type message, which precedes the Relation that uses the type. For a domain it contains the name of
// the base type, with an empty namespace for pg_catalog.
func (d *Decoder) readType(c *cursor) {
	oid := c.uint32()
	namespace, name := c.string(), c.string()
	if c.err != nil {
		return
	}
	delete(d.domainBases, oid)
	if namespace != "" && namespace != "pg_catalog" {
		return
	}
	if name == "money" {
		d.domainBases[oid] = condition.MoneyOID
	} else if base, found := cdc.TypeNames.TypeForName(name); found {
		d.domainBases[oid] = base.OID
	}
}

func (d *Decoder) insert(c *cursor) (Message, error) {
	p := d.layout(c)
	if p == nil || c.err != nil {
		return Message{}, nil
	}
	if tag := c.uint8(); tag != 'N' {
		return Message{}, c.fail("a new row was expected, not %q", tag)
	}
	return d.change(c, p, cdc.Insert, nil)
}

func (d *Decoder) update(c *cursor) (Message, error) {
	p := d.layout(c)
	if p == nil || c.err != nil {
		return Message{}, nil
	}
	tag := c.uint8()
	var old *string // the old key, if it was sent
	if tag == 'K' || tag == 'O' {
		d.fields = p.read(d, c)
		if c.err != nil {
			return Message{}, c.err
		}
		if id := d.fields[p.id]; id.kind == 't' {
			key := p.key(id.value)
			old = &key
		}
		d.oldFields = append(d.oldFields[:0], d.fields...)
		tag = c.uint8()
	} else {
		d.oldFields = d.oldFields[:0]
	}
	if tag != 'N' {
		return Message{}, c.fail("a new row was expected, not %q", tag)
	}
	return d.change(c, p, cdc.Update, old)
}

// change decodes the new row.
func (d *Decoder) change(c *cursor, p *rowLayout, kind cdc.Kind, old *string) (Message, error) {
	d.fields = p.read(d, c)
	if c.err != nil {
		return Message{}, c.err
	}
	if kind == cdc.Update && len(d.oldFields) == len(d.fields) {
		// The server does not repeat values of the old row or key.
		for i := range d.fields {
			if d.fields[i].kind == 'u' && d.oldFields[i].kind == 't' {
				d.fields[i] = d.oldFields[i]
			}
		}
	}
	id := d.fields[p.id]
	if id.kind != 't' {
		return Message{}, c.fail("the row of %s has no %s", p.name, p.idColumn)
	}
	d.noteKeyType(p)
	change := &d.changes[0]
	*change = cdc.Change{Kind: kind, Table: p.table, New: p.row(c, d, p.key(id.value))}
	if c.err != nil {
		return Message{}, c.err
	}
	if old != nil && *old != change.New.ID {
		change.KeyChanged, change.OldID = true, *old
	}
	return Message{Kind: MessageChange, Changes: d.changes[:1]}, nil
}

func (d *Decoder) delete(c *cursor) (Message, error) {
	p := d.layout(c)
	if p == nil || c.err != nil {
		return Message{}, nil
	}
	if tag := c.uint8(); tag != 'K' && tag != 'O' {
		return Message{}, c.fail("a key or an old row was expected, not %q", tag)
	}
	d.fields = p.read(d, c)
	if c.err != nil {
		return Message{}, c.err
	}
	id := d.fields[p.id]
	if id.kind != 't' {
		return Message{Kind: MessageUnidentifiedDelete}, nil
	}
	d.noteKeyType(p)
	d.changes[0] = cdc.Change{Kind: cdc.Delete, Table: p.table, New: cdc.Row{ID: p.key(id.value)}}
	return Message{Kind: MessageChange, Changes: d.changes[:1]}, nil
}

func (d *Decoder) noteKeyType(p *rowLayout) {
	if p.table == cdc.Respondent {
		d.keyType = p.typeOf(p.id)
	}
}

func (d *Decoder) truncate(c *cursor) (Message, error) {
	count := int(c.uint32())
	c.skip(1)
	n := 0
	for range count {
		oid := c.uint32()
		if c.err != nil {
			return Message{}, c.err
		}
		if table := d.table(oid); table != 0 && (n == 0 || d.changes[0].Table != table) && n < len(d.changes) {
			d.changes[n] = cdc.Change{Kind: cdc.Truncate, Table: table}
			n++
		}
	}
	if n == 0 {
		return Message{}, nil
	}
	return Message{Kind: MessageChange, Changes: d.changes[:n]}, nil
}

// decodeText converts a text of the message to UTF-8.
func (d *Decoder) decodeText(c *cursor, text string) string {
	decoded, err := d.text.Decode(text)
	if err != nil && c.err == nil {
		c.err = err
	}
	return decoded
}

func (d *Decoder) table(oid uint32) cdc.Table {
	switch {
	case oid == 0:
		return 0
	case oid == d.respondent:
		return cdc.Respondent
	case oid == d.assessment:
		return cdc.Assessment
	default:
		return 0
	}
}

// layout reads a relation's OID and returns its layout, or nil if it is not mapped.
func (d *Decoder) layout(c *cursor) *rowLayout {
	oid := c.uint32()
	if d.table(oid) == 0 {
		return nil
	}
	p := d.layouts[oid]
	if p == nil {
		_ = c.fail("relation %d has not been described", oid)
	}
	return p
}

// internLimit and internLength bound the cache of strings that repeat, such as assessment ids.
const (
	internLimit  = 1024
	internLength = 64
)

func (d *Decoder) intern(value []byte) string {
	if s, ok := d.interned[string(value)]; ok {
		return s
	}
	s := string(value)
	if len(s) <= internLength {
		if len(d.interned) >= internLimit {
			clear(d.interned)
		}
		d.interned[s] = s
	}
	return s
}

// cursor reads a message. After the first read beyond its end, err is set and every read returns zero.
type cursor struct {
	kind byte
	data []byte
	at   int
	err  error
}

func (c *cursor) fail(format string, args ...any) error {
	if c.err == nil {
		c.err = &DecodeError{Message: c.kind, Offset: c.at, Reason: fmt.Sprintf(format, args...)}
	}
	return c.err
}

func (c *cursor) bytes(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n < 0 || n > len(c.data)-c.at {
		_ = c.fail("it ends early: %d bytes were expected and %d are left", n, len(c.data)-c.at)
		return nil
	}
	b := c.data[c.at : c.at+n]
	c.at += n
	return b
}

func (c *cursor) skip(n int) { c.bytes(n) }

func (c *cursor) uint8() byte {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if b := c.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if b := c.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// string reads a NUL-terminated string.
func (c *cursor) string() string {
	if c.err != nil {
		return ""
	}
	for i := c.at; i < len(c.data); i++ {
		if c.data[i] == 0 {
			s := string(c.data[c.at:i])
			c.at = i + 1
			return s
		}
	}
	_ = c.fail("a string is not ended")
	return ""
}
