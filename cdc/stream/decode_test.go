package stream

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgtype"

	"walhook/cdc"
)

// The OIDs of the tables in these tests.
const (
	respondentOID = 16385
	assessmentOID = 16390
	otherOID      = 16400
)

var testMapping = cdc.Mapping{
	Respondent: cdc.Name{Schema: "public", Table: "respondent"}, ID: "id", Assessment: "assessment_id", Organization: "organization_id",
	Started: cdc.Marker{Column: "started_at"}, Finished: cdc.Marker{Column: "status", Values: []string{"done"}}, Stamp: cdc.Columns{"finished_at"},
	AssessmentTable: cdc.Name{Schema: "public", Table: "assessment"}, AssessmentID: "id", ExternalID: "external_id", CopiedFrom: "copied_from",
}

var testKey = &cdc.StampKey{1, 2, 3}

// wire builds messages as described in section 55.9 of the PostgreSQL manual.
type wire []byte

func (w wire) uint8(v byte) wire    { return append(w, v) }
func (w wire) uint16(v int) wire    { return binary.BigEndian.AppendUint16(w, uint16(v)) }
func (w wire) uint32(v uint32) wire { return binary.BigEndian.AppendUint32(w, v) }
func (w wire) uint64(v uint64) wire { return binary.BigEndian.AppendUint64(w, v) }
func (w wire) string(s string) wire { return append(append(w, s...), 0) }

type wireColumn struct {
	name    string
	typeOID uint32
}

func beginMessage(commit pglogrepl.LSN, at time.Time, xid uint32) wire {
	return wire("B").uint64(uint64(commit)).uint64(uint64(at.UnixMicro() - microsecFromUnixToY2K)).uint32(xid)
}

func commitMessage(commit, end pglogrepl.LSN) wire {
	return wire("C").uint8(0).uint64(uint64(commit)).uint64(uint64(end)).uint64(0)
}

func relationMessage(oid uint32, schema, table string, columns ...wireColumn) wire {
	w := wire("R").uint32(oid).string(schema).string(table).uint8('d').uint16(len(columns))
	for i, column := range columns {
		w = w.uint8(byte(1 >> i)).string(column.name).uint32(column.typeOID).uint32(0xffffffff)
	}
	return w
}

func typeMessage(oid uint32, namespace, name string) wire {
	return wire("Y").uint32(oid).string(namespace).string(name)
}

// tuple appends a row: nil is NULL, "\x00" is a value that is not sent.
func (w wire) tuple(values ...any) wire {
	w = w.uint16(len(values))
	for _, value := range values {
		switch v := value.(type) {
		case nil:
			w = w.uint8('n')
		case string:
			if v == notSent {
				w = w.uint8('u')
				continue
			}
			w = append(w.uint8('t').uint32(uint32(len(v))), v...)
		}
	}
	return w
}

const notSent = "\x00"

func insertMessage(oid uint32, values ...any) wire {
	return wire("I").uint32(oid).uint8('N').tuple(values...)
}

func updateMessage(oid uint32, values ...any) wire {
	return wire("U").uint32(oid).uint8('N').tuple(values...)
}

// updateFromMessage is an update with an old row: its key ('K') or all of it ('O').
func updateFromMessage(oid uint32, tag byte, old []any, values ...any) wire {
	return wire("U").uint32(oid).uint8(tag).tuple(old...).uint8('N').tuple(values...)
}

func deleteMessage(oid uint32, tag byte, values ...any) wire {
	return wire("D").uint32(oid).uint8(tag).tuple(values...)
}

func truncateMessage(oids ...uint32) wire {
	w := wire("T").uint32(uint32(len(oids))).uint8(0)
	for _, oid := range oids {
		w = w.uint32(oid)
	}
	return w
}

func logicalMessage(flags byte, prefix, content string) wire {
	w := wire("M").uint8(flags).uint64(42).string(prefix).uint32(uint32(len(content)))
	return append(w, content...)
}

var (
	respondentRelation = relationMessage(respondentOID, "public", "respondent",
		wireColumn{"id", pgtype.Int8OID}, wireColumn{"name", pgtype.TextOID}, wireColumn{"assessment_id", pgtype.Int4OID},
		wireColumn{"organization_id", pgtype.Int4OID}, wireColumn{"started_at", pgtype.TimestamptzOID},
		wireColumn{"status", pgtype.TextOID}, wireColumn{"finished_at", pgtype.TimestamptzOID})
	assessmentRelation = relationMessage(assessmentOID, "public", "assessment",
		wireColumn{"id", pgtype.Int4OID}, wireColumn{"external_id", pgtype.TextOID}, wireColumn{"title", pgtype.TextOID}, wireColumn{"copied_from", pgtype.Int4OID})
)

func newTestDecoder(t testing.TB, relations ...wire) *Decoder {
	t.Helper()
	d := NewDecoder(testMapping, testKey, respondentOID, assessmentOID)
	for _, r := range relations {
		if m, err := d.Decode(r); err != nil || m.Kind != MessageIgnored {
			t.Fatalf("relation: %+v, %v", m, err)
		}
	}
	return d
}

// validMessages has one message of every kind and shape, and its meaning. The two relations have been described
// before.
var validMessages = map[string]struct {
	data wire
	want Message
}{
	"begin": {
		beginMessage(0x1_0000_0010, time.Date(2026, 3, 18, 18, 44, 9, 123456000, time.UTC), 4_000_000_000),
		Message{Kind: MessageBegin, Tx: cdc.Tx{XID: 4_000_000_000, CommitLSN: 0x1_0000_0010, CommitAt: time.Date(2026, 3, 18, 18, 44, 9, 123456000, time.UTC)}},
	},
	"commit":             {commitMessage(0x10, 0x20), Message{Kind: MessageCommit, EndLSN: 0x20}},
	"relation":           {respondentRelation, Message{}},
	"unmapped relation":  {relationMessage(otherOID, "public", "other", wireColumn{"id", 20}), Message{}},
	"type":               {typeMessage(20000, "public", "mood"), Message{}},
	"origin":             {wire("O").uint64(1).string("elsewhere"), Message{}},
	"unmapped insert":    {insertMessage(otherOID, "1"), Message{}},
	"unmapped update":    {updateMessage(otherOID, "1"), Message{}},
	"unmapped delete":    {deleteMessage(otherOID, 'K', "1"), Message{}},
	"unmapped truncate":  {truncateMessage(otherOID), Message{}},
	"silence":            {logicalMessage(1, "walhook", "silence"), Message{Kind: MessageSilence}},
	"not transactional":  {logicalMessage(0, "walhook", "silence"), Message{}},
	"another prefix":     {logicalMessage(1, "walhook2", "silence"), Message{}},
	"another content":    {logicalMessage(1, "walhook", "silence "), Message{}},
	"empty message":      {logicalMessage(1, "walhook", ""), Message{}},
	"prefix in capitals": {logicalMessage(1, "Walhook", "silence"), Message{}},
	"insert": {
		insertMessage(respondentOID, "7", "Ann", "3", nil, nil, "open", nil),
		oneChange(cdc.Insert, "", cdc.Row{ID: "7", Assessment: text("3"), Organization: null}),
	},
	"insert of a finished row": {
		insertMessage(respondentOID, "7", "Ann", "3", "5", "2026-03-18 18:00:00+00", "done", "2026-03-18 18:44:09+00"),
		oneChange(cdc.Insert, "", withStamp(cdc.Row{ID: "7", Assessment: text("3"), Organization: text("5"), Started: cdc.MarkSet, Finished: cdc.MarkSet}, "2026-03-18 18:44:09+00")),
	},
	"update": {
		updateMessage(respondentOID, "7", notSent, "3", "5", "2026-03-18 18:00:00+00", "open", nil),
		oneChange(cdc.Update, "", cdc.Row{ID: "7", Assessment: text("3"), Organization: text("5"), Started: cdc.MarkSet}),
	},
	"update that sends little": {
		updateMessage(respondentOID, "7", notSent, notSent, notSent, notSent, notSent, notSent),
		oneChange(cdc.Update, "", cdc.Row{ID: "7", Assessment: unchanged, Organization: unchanged, Started: cdc.MarkUnchanged, Finished: cdc.MarkUnchanged, Stamps: []cdc.Stamp{{Stored: unchanged}}}),
	},
	"update of the key": {
		updateFromMessage(respondentOID, 'K', []any{"7", nil, nil, nil, nil, nil, nil}, "8", "Ann", "3", nil, nil, "open", nil),
		oneChange(cdc.Update, "7", cdc.Row{ID: "8", Assessment: text("3"), Organization: null}),
	},
	"update that names the same key": {
		updateFromMessage(respondentOID, 'K', []any{"7", nil, nil, nil, nil, nil, nil}, "7", "Ann", "3", nil, nil, "open", nil),
		oneChange(cdc.Update, "", cdc.Row{ID: "7", Assessment: text("3"), Organization: null}),
	},
	"update with a key that is not sent again": {
		updateFromMessage(respondentOID, 'K', []any{"7", nil, nil, nil, nil, nil, nil}, notSent, "Ann", "3", nil, nil, "open", nil),
		oneChange(cdc.Update, "", cdc.Row{ID: "7", Assessment: text("3"), Organization: null}),
	},
	"update with the old row in full": {
		updateFromMessage(respondentOID, 'O', []any{"7", "Ann", "3", "5", "2026-01-01", "done", "x"}, "7", notSent, "4", notSent, notSent, notSent, notSent),
		oneChange(cdc.Update, "", withStamp(cdc.Row{ID: "7", Assessment: text("4"), Organization: text("5"), Started: cdc.MarkSet, Finished: cdc.MarkSet}, "x")),
	},
	"update of the key with the old row in full": {
		updateFromMessage(respondentOID, 'O', []any{"7", "Ann", "3", nil, nil, "open", nil}, "8", "Ann", "3", nil, nil, "open", nil),
		oneChange(cdc.Update, "7", cdc.Row{ID: "8", Assessment: text("3"), Organization: null}),
	},
	"update with a replica identity that is not the key": {
		updateFromMessage(respondentOID, 'K', []any{nil, "Ann", nil, nil, nil, nil, nil}, "7", "Bob", "3", nil, nil, "open", nil),
		oneChange(cdc.Update, "", cdc.Row{ID: "7", Assessment: text("3"), Organization: null}),
	},
	"empty texts": {
		updateMessage(respondentOID, "7", "", "", "", nil, "", ""),
		oneChange(cdc.Update, "", withStamp(cdc.Row{ID: "7", Assessment: text(""), Organization: text("")}, "")),
	},
	"a long stamp": {
		updateMessage(respondentOID, "7", "", "3", nil, nil, "done", strings.Repeat("x", 100)),
		oneChange(cdc.Update, "", withStamp(cdc.Row{ID: "7", Assessment: text("3"), Organization: null, Finished: cdc.MarkSet}, strings.Repeat("x", 100))),
	},
	"delete":                 {deleteMessage(respondentOID, 'K', "7", nil, nil, nil, nil, nil, nil), oneChange(cdc.Delete, "", cdc.Row{ID: "7"})},
	"delete with the row":    {deleteMessage(respondentOID, 'O', "7", "Ann", "3", nil, nil, nil, nil), oneChange(cdc.Delete, "", cdc.Row{ID: "7"})},
	"delete without the key": {deleteMessage(respondentOID, 'K', nil, "Ann", nil, nil, nil, nil, nil), Message{Kind: MessageUnidentifiedDelete}},
	"truncate":               {truncateMessage(respondentOID), oneChange(cdc.Truncate, "", cdc.Row{})},
	"truncate of everything": {
		truncateMessage(otherOID, assessmentOID, otherOID+1, respondentOID),
		Message{Kind: MessageChange, Changes: []cdc.Change{{Kind: cdc.Truncate, Table: cdc.Assessment}, {Kind: cdc.Truncate, Table: cdc.Respondent}}},
	},
	"assessment inserted": {
		insertMessage(assessmentOID, "3", "ext-3", "Title", "2"),
		Message{Kind: MessageChange, Changes: []cdc.Change{{Kind: cdc.Insert, Table: cdc.Assessment, New: cdc.Row{ID: "3", ExternalID: text("ext-3"), CopiedFrom: text("2"), Organization: null, Name: null}}}},
	},
	"assessment updated": {
		updateFromMessage(assessmentOID, 'K', []any{"3", nil, nil, nil}, "4", notSent, notSent, nil),
		Message{Kind: MessageChange, Changes: []cdc.Change{{Kind: cdc.Update, Table: cdc.Assessment, KeyChanged: true, OldID: "3", New: cdc.Row{ID: "4", ExternalID: unchanged, CopiedFrom: null, Organization: null, Name: null}}}},
	},
	"assessment deleted": {
		deleteMessage(assessmentOID, 'K', "3", nil, nil, nil),
		Message{Kind: MessageChange, Changes: []cdc.Change{{Kind: cdc.Delete, Table: cdc.Assessment, New: cdc.Row{ID: "3"}}}},
	},
}

// withStamp sets a row's stamp, encoded with the type of the test's column.
func withStamp(row cdc.Row, value string) cdc.Row {
	return withStampOf(row, pgtype.TimestamptzOID, value)
}

func withStampOf(row cdc.Row, oid uint32, value string) cdc.Row {
	of := cdc.ColumnType{OID: oid, Modifier: -1}
	row.Stamps = []cdc.Stamp{cdc.NewStamp(text(value), of, testKey)}
	return row
}

func oneChange(kind cdc.Kind, oldID string, row cdc.Row) Message {
	return Message{Kind: MessageChange, Changes: []cdc.Change{{Kind: kind, Table: cdc.Respondent, New: row, KeyChanged: oldID != "", OldID: oldID}}}
}

func TestDecodeEveryMessage(t *testing.T) {
	t.Parallel()
	for name, tt := range validMessages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := newTestDecoder(t, respondentRelation, assessmentRelation).Decode(tt.data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDecodeKeepsNothingOfTheBuffer(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(t, respondentRelation)
	data := insertMessage(respondentOID, "7", "Ann", "3", "5", "2026-03-18 18:00:00+00", "done", "2026-03-18 18:44:09+00")
	m, err := d.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	clear(data)
	row := m.Changes[0].New
	if row.ID != "7" || row.Assessment.Value != "3" || row.Organization.Value != "5" || row.Stamps[0].Value.Text != "2026-03-18 18:44:09+00" {
		t.Errorf("the row lives in the buffer: %+v", row)
	}
}

func TestDecodePrefixesOfMessages(t *testing.T) {
	t.Parallel()
	for name, tt := range validMessages {
		d := newTestDecoder(t, respondentRelation, assessmentRelation)
		for length := range len(tt.data) {
			m, err := d.Decode(tt.data[:length:length])
			var broken *DecodeError
			switch {
			case err == nil && m.Kind != MessageIgnored:
				t.Errorf("%s: its first %d bytes say %+v", name, length, m)
			case err != nil && !errors.As(err, &broken):
				t.Errorf("%s: its first %d bytes are the error %v", name, length, err)
			}
			if tt.data[0] == 'R' {
				d = newTestDecoder(t, respondentRelation, assessmentRelation)
			}
		}
	}
}

func TestDecodeRefusesWhatProtocolOneDoesNotPromise(t *testing.T) {
	t.Parallel()
	for reason, data := range map[string]wire{
		"it is empty":                            {},
		"the type of message is unknown":         wire("S").uint32(1),
		"relation 16385 has not been described":  nil, // below
		"a new row was expected, not 'K'":        wire("I").uint32(respondentOID).uint8('K').tuple("7"),
		"a new row was expected, not 'X'":        wire("U").uint32(respondentOID).uint8('X').tuple("7"),
		"a key or an old row was expected":       wire("D").uint32(respondentOID).uint8('N').tuple("7"),
		"has 2 columns and not 7":                insertMessage(respondentOID, "7", "Ann"),
		"is of the unknown kind 'b'":             wire("I").uint32(respondentOID).uint8('N').uint16(7).uint8('b').uint32(0),
		"it ends early":                          wire("I").uint32(respondentOID).uint8('N').uint16(7).uint8('t').uint32(0xffffffff),
		"the row of public.respondent has no id": insertMessage(respondentOID, nil, "Ann", "3", nil, nil, nil, nil),
	} {
		d := newTestDecoder(t, respondentRelation)
		if data == nil {
			d, data = newTestDecoder(t), insertMessage(respondentOID, "7", "Ann", "3", nil, nil, nil, nil)
		}
		_, err := d.Decode(data)
		var broken *DecodeError
		if !errors.As(err, &broken) || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v", reason, err)
		}
	}
}

func TestDecodeFollowsAChangedTable(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(t, respondentRelation)
	// An unmapped column is renamed and retyped, one is dropped, one is added, and the order is another.
	described := relationMessage(respondentOID, "survey", "participant",
		wireColumn{"finished_at", pgtype.TextOID}, wireColumn{"status", pgtype.TextOID}, wireColumn{"started_at", pgtype.BoolOID},
		wireColumn{"added", pgtype.TextOID}, wireColumn{"organization_id", pgtype.Int8OID}, wireColumn{"assessment_id", pgtype.Int8OID},
		wireColumn{"id", pgtype.Int8OID}, wireColumn{"full_name", pgtype.VarcharOID})
	if _, err := d.Decode(described); err != nil {
		t.Fatal(err)
	}
	m, err := d.Decode(updateMessage(respondentOID, "x", "done", "f", "new", "5", "3", "7", "Ann"))
	if err != nil {
		t.Fatal(err)
	}
	want := oneChange(cdc.Update, "", withStampOf(cdc.Row{ID: "7", Assessment: text("3"), Organization: text("5"), Finished: cdc.MarkSet}, pgtype.TextOID, "x"))
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeSeesThroughDomains(t *testing.T) {
	t.Parallel()
	described := relationMessage(respondentOID, "public", "respondent",
		wireColumn{"id", pgtype.Int8OID}, wireColumn{"assessment_id", pgtype.Int4OID}, wireColumn{"organization_id", pgtype.Int4OID},
		wireColumn{"started_at", 20001}, wireColumn{"status", 20002}, wireColumn{"finished_at", 20003})
	for _, tt := range []struct {
		base, value string
		want        cdc.Mark
	}{
		{"bool", "f", cdc.MarkUnset},
		{"bool", "t", cdc.MarkSet},
		{"numeric", "0.00", cdc.MarkUnset},
		{"money", "$0.00", cdc.MarkUnset},
		{"bpchar", "0  ", cdc.MarkUnset},
		{"timestamptz", "2026-03-18 18:44:09+00", cdc.MarkSet},
		{"text", "f", cdc.MarkSet},
	} {
		d := newTestDecoder(t, typeMessage(20001, "", tt.base), typeMessage(20002, "public", "state"), typeMessage(20003, "", "no_such_type"), described)
		m, err := d.Decode(insertMessage(respondentOID, "7", "3", nil, tt.value, "done", "x"))
		if err != nil {
			t.Fatal(err)
		}
		if row := m.Changes[0].New; row.Started != tt.want || row.Finished != cdc.MarkSet {
			t.Errorf("a domain over %s with %q: %+v", tt.base, tt.value, row)
		}
	}
}

func TestDecodeTellsWhichColumnIsMissing(t *testing.T) {
	t.Parallel()
	all := []wireColumn{{"id", 20}, {"assessment_id", 20}, {"organization_id", 20}, {"started_at", 1184}, {"status", 25}, {"finished_at", 1184}}
	for column, variable := range map[string]string{
		"id": "WALHOOK_RESPONDENT_ID", "assessment_id": "WALHOOK_RESPONDENT_ASSESSMENT", "organization_id": "WALHOOK_RESPONDENT_ORGANIZATION",
		"started_at": "WALHOOK_STARTED", "status": "WALHOOK_FINISHED", "finished_at": "WALHOOK_FINISH_STAMP",
	} {
		d := newTestDecoder(t, respondentRelation)
		left := slices.DeleteFunc(slices.Clone(all), func(c wireColumn) bool { return c.name == column })
		_, err := d.Decode(relationMessage(respondentOID, "public", "respondent", left...))
		var missing *MissingColumnError
		if !errors.As(err, &missing) || *missing != (MissingColumnError{"public.respondent", column, variable}) {
			t.Errorf("without %s: %v", column, err)
			continue
		}
		for _, part := range []string{"public.respondent", column, variable} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not name %s", err, part)
			}
		}
		if _, err := d.Decode(insertMessage(respondentOID, "7", "Ann", "3", nil, nil, nil, nil)); err == nil {
			t.Errorf("without %s a row is read by the description before", column)
		}
	}
	_, err := newTestDecoder(t).Decode(relationMessage(assessmentOID, "public", "assessment", wireColumn{"id", 20}, wireColumn{"copied_from", 20}))
	var missing *MissingColumnError
	if !errors.As(err, &missing) || *missing != (MissingColumnError{"public.assessment", "external_id", "WALHOOK_ASSESSMENT_EXTERNAL_ID"}) {
		t.Errorf("assessment: %v", err)
	}
}

func TestDecodeInternsWithinBounds(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(t)
	for i := range 3 * internLimit {
		value := strings.Repeat("x", i%100) + "/" + time.Duration(i).String()
		if got := d.intern([]byte(value)); got != value {
			t.Fatalf("%q became %q", value, got)
		}
		if len(d.interned) > internLimit {
			t.Fatalf("%d strings are kept", len(d.interned))
		}
	}
	for s := range d.interned {
		if len(s) > internLength {
			t.Fatalf("%d bytes are kept", len(s))
		}
	}
}

// FuzzDecode decodes a sequence of messages, each prefixed with its length in two bytes.
func FuzzDecode(f *testing.F) {
	var all []byte
	for _, m := range validMessages {
		one := append(wire{}.uint16(len(respondentRelation)), respondentRelation...)
		one = append(one.uint16(len(m.data)), m.data...)
		f.Add([]byte(one))
		all = append(all, one...)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, data []byte) {
		d := NewDecoder(testMapping, testKey, respondentOID, assessmentOID)
		for len(data) >= 2 {
			length := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
			m, err := d.Decode(data[2 : 2+length])
			data = data[2+length:]
			if err != nil && (m.Kind != MessageIgnored || len(m.Changes) > 0) {
				t.Fatalf("an error comes with %+v", m)
			}
			if (m.Kind == MessageChange) != (len(m.Changes) > 0) {
				t.Fatalf("%+v", m)
			}
			for _, c := range m.Changes {
				if c.Table != cdc.Respondent && c.Table != cdc.Assessment || c.Kind < cdc.Insert || c.Kind > cdc.Truncate {
					t.Fatalf("%+v", c)
				}
				values := []cdc.Text{c.New.Assessment, c.New.Organization, c.New.ExternalID, c.New.CopiedFrom, c.New.Name}
				for _, stamp := range c.New.Stamps {
					values = append(values, stamp.Stored)
				}
				for _, value := range values {
					if value.Null && value.Unchanged || (value.Null || value.Unchanged) && value.Value != "" {
						t.Fatalf("%+v says two things at once", value)
					}
				}
				cdc.Classify(nil, c)
			}
		}
	})
}

func BenchmarkDecodeUneventfulUpdate(b *testing.B) {
	expressions := testMapping
	expressions.Started = cdc.Marker{Expression: "status in ('open', 'done') and finished_at > started_at"}
	expressions.Finished = cdc.Marker{Expression: "status = 'done' and finished_at is not null"}
	for name, mapping := range map[string]cdc.Mapping{"columns": testMapping, "expressions": expressions} {
		b.Run(name, func(b *testing.B) {
			d := NewDecoder(mapping, testKey, respondentOID, assessmentOID)
			if _, err := d.Decode(respondentRelation); err != nil {
				b.Fatal(err)
			}
			data := updateMessage(respondentOID, "1112057", "a name that nobody mapped", "42", "7", "2026-03-18 18:00:00+00", "done", "2026-03-18 18:44:09+00")
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if m, err := d.Decode(data); err != nil || m.Kind != MessageChange {
					b.Fatal(m, err)
				}
			}
		})
	}
}
