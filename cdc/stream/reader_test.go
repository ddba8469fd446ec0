package stream

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/testenv"
)

// partitionedIf returns the respondent table, or none.
func partitionedIf(partitioned bool) []cdc.Table {
	return []cdc.Table{cdc.Respondent}[:map[bool]int{true: 1}[partitioned]]
}

// reading returns a reader that has received these pgoutput messages.
func reading(t *testing.T, partitioned bool, messages ...wire) *reader {
	t.Helper()
	cfg := Config{Mapping: testMapping, Status: &Status{}}
	r := newReader(cfg, &catalog.Attachment{RespondentOID: respondentOID, AssessmentOID: assessmentOID}, cdc.Position{LSN: 0x20}, partitionedIf(partitioned)...)
	for _, m := range messages {
		if _, _, err := r.handle(append(wire("w").uint64(0).uint64(0).uint64(0), m...)); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// A delete that may be half of a move is passed on before the item that shows that it is not.
func TestHeldDeleteIsReleased(t *testing.T) {
	t.Parallel()
	begin := []wire{beginMessage(0x30, time.Now(), 7), respondentRelation, assessmentRelation}
	remove := deleteMessage(respondentOID, 'K', "1", nil, nil, nil, nil, nil, nil)
	insert := func(id string) wire { return insertMessage(respondentOID, id, "somebody", "10", nil, nil, "open", nil) }
	for name, tt := range map[string]struct {
		messages []wire
		want     []cdc.Kind // 0: the end of a transaction
		silenced int        // of those
	}{
		"the row is inserted again":     {[]wire{remove, insert("1")}, []cdc.Kind{cdc.Update}, 0},
		"another row is inserted":       {[]wire{remove, insert("2")}, []cdc.Kind{cdc.Delete, cdc.Insert}, 0},
		"another row is deleted":        {[]wire{remove, deleteMessage(respondentOID, 'K', "2", nil, nil, nil, nil, nil, nil), insert("1")}, []cdc.Kind{cdc.Delete, cdc.Delete, cdc.Insert}, 0},
		"the row is deleted again":      {[]wire{remove, remove, commitMessage(0x30, 0x38)}, []cdc.Kind{cdc.Delete, cdc.Delete, 0}, 0},
		"the transaction ends":          {[]wire{remove, commitMessage(0x30, 0x38)}, []cdc.Kind{cdc.Delete, 0}, 0},
		"what follows is silenced":      {[]wire{remove, logicalMessage(1, "walhook", "silence"), insert("1")}, []cdc.Kind{cdc.Delete, cdc.Insert}, 1},
		"an assessment has the same id": {[]wire{remove, insertMessage(assessmentOID, "1", "x", "title", nil)}, []cdc.Kind{cdc.Delete, cdc.Insert}, 0},
		"an assessment is deleted":      {[]wire{deleteMessage(assessmentOID, 'K', "1", nil, nil, nil), insertMessage(assessmentOID, "1", "x", "title", nil)}, []cdc.Kind{cdc.Delete, cdc.Insert}, 0},
	} {
		var got []cdc.Kind
		silenced := 0
		for _, it := range reading(t, true, append(slices.Clone(begin), tt.messages...)...).inbox.take(nil) {
			got = append(got, it.change.Kind)
			if it.silenced {
				silenced++
			}
		}
		if !slices.Equal(got, tt.want) || silenced != tt.silenced {
			t.Errorf("%s: changes %v, %d of them silenced", name, got, silenced)
		}
	}
	for _, it := range reading(t, false, append(begin, remove, insert("1"))...).inbox.take(nil) {
		if it.change.Kind == cdc.Update {
			t.Error("in a table without partitions a row has moved")
		}
	}
}

// The reader waits as soon as an item of any kind fills the inbox.
func TestReaderStopsWhereTheInboxIsFull(t *testing.T) {
	t.Parallel()
	begin := []wire{beginMessage(0x30, time.Now(), 7), respondentRelation}
	remove := deleteMessage(respondentOID, 'K', "1", nil, nil, nil, nil, nil, nil)
	for name, tt := range map[string]struct {
		before      []wire
		last        wire
		partitioned bool
	}{
		"a change":                          {begin, remove, false},
		"a silence after a delete":          {append(slices.Clone(begin), remove), logicalMessage(1, "walhook", "silence"), true},
		"another delete after one":          {append(slices.Clone(begin), remove), remove, true},
		"an end":                            {append(slices.Clone(begin), remove), commitMessage(0x30, 0x38), false},
		"the end of one that has none":      {begin, commitMessage(0x30, 0x38), false},
		"a report of how far the server is": {nil, nil, false},
	} {
		r := reading(t, tt.partitioned, tt.before...)
		for range inboxItems - 1 - len(r.inbox.items) {
			r.inbox.put(item{kind: itemChange})
		}
		message := wire("k").uint64(0x30).uint64(0).uint8(0)
		if tt.last != nil {
			message = append(wire("w").uint64(0).uint64(0).uint64(0), tt.last...)
		}
		if full, _, err := r.handle(message); !full || err != nil {
			t.Errorf("%s: the inbox is full: %t, %v", name, full, err)
		}
	}
}

// A keepalive within a transaction must not advance the position, or else the partial count would be lost.
func TestReportWithinATransaction(t *testing.T) {
	t.Parallel()
	report := func(r *reader) []item {
		t.Helper()
		r.replyPending, r.received = true, false
		if _, reply, err := r.handle(wire("k").uint64(0x99).uint64(0).uint8(1)); !reply || err != nil {
			t.Fatalf("a reply is requested: %t, %v", reply, err)
		}
		if r.replyPending || !r.received || r.status.received != 0x99 {
			t.Errorf("the server was heard: %t, and has sent %s", r.received, r.status.received)
		}
		return r.inbox.take(nil)
	}
	begin := beginMessage(0x30, time.Now(), 7)
	if items := report(reading(t, false, begin)); len(items) > 0 {
		t.Errorf("%d items follow from it", len(items))
	}
	if items := report(reading(t, false, begin, commitMessage(0x30, 0x38))); len(items) != 1 || items[0].kind != itemReplyRequested || items[0].end != 0x99 {
		t.Errorf("%+v follow from one after its end", items)
	}
	for _, message := range []wire{nil, wire("w"), wire("w").uint64(0).uint64(0).uint64(0)[:24], wire("k").uint64(0), wire("x")} {
		if _, _, err := reading(t, false).handle(message); err == nil {
			t.Errorf("%q is taken", message)
		}
	}
	// 25 bytes are an empty message, which the decoder rejects.
	if _, _, err := reading(t, false).handle(wire("w").uint64(0).uint64(0).uint64(0)); cdc.SQLState(err) != "" || err == nil {
		t.Errorf("an empty message: %v", err)
	}
}

// The reader acknowledges durable positions at once and otherwise periodically, requests a reply from a silent
// server, and closes the connection if there is none.
func TestReaderKeepsInTouch(t *testing.T) {
	t.Parallel()
	const silence = 8 * time.Second
	now := time.Now()
	long, short := now.Add(-3*time.Second), now
	for name, tt := range map[string]struct {
		durable             pglogrepl.LSN
		heard, asked        bool
		lastStatus          time.Time
		lastHeard           time.Time
		sends, asks, broken bool
	}{
		"all is well":                  {durable: 0x20, lastStatus: short, lastHeard: short},
		"something has become durable": {durable: 0x30, lastStatus: short, lastHeard: short, sends: true},
		"nothing was said for long":    {durable: 0x20, lastStatus: long, lastHeard: short, sends: true},
		"nothing was heard for long":   {durable: 0x20, lastStatus: long, lastHeard: long, sends: true, asks: true},
		"something was heard just now": {durable: 0x20, lastStatus: long, lastHeard: long, heard: true, sends: true},
		"nothing is durable":           {durable: 0, lastStatus: long, lastHeard: long},
		"it was asked":                 {durable: 0x20, lastStatus: short, lastHeard: now.Add(-silence / 2), asked: true},
		"it was asked and is silent":   {durable: 0x20, lastStatus: short, lastHeard: now.Add(-silence - time.Second), asked: true, broken: true},
		"it is silent, and not asked":  {durable: 0x20, lastStatus: short, lastHeard: now.Add(-silence - time.Second)},
	} {
		r, told := wired(t)
		r.silence, r.acknowledged = silence, 0x20
		r.durable.Store(uint64(tt.durable))
		r.received, r.replyPending, r.lastStatus, r.lastReceived = tt.heard, tt.asked, tt.lastStatus, tt.lastHeard
		if err := r.keepAlive(); (err != nil) != tt.broken {
			t.Errorf("%s: %v", name, err)
		}
		if r.received || tt.heard && r.lastReceived.Before(now) {
			t.Errorf("%s: what was heard is not noted", name)
		}
		if wantAsked := tt.asked || tt.asks; r.replyPending != wantAsked {
			t.Errorf("%s: a reply is awaited: %t", name, r.replyPending)
		}
		sent := told()
		if (len(sent) > 0) != tt.sends {
			t.Errorf("%s: %v was sent", name, sent)
			continue
		}
		if tt.sends && (len(sent) != 1 || sent[0].at != tt.durable || sent[0].asks != tt.asks || r.acknowledged != tt.durable || r.lastStatus.Before(now)) {
			t.Errorf("%s: %v was sent, %s noted, last at %s", name, sent, r.acknowledged, r.lastStatus)
		}
	}
}

// While the reader waits for the store or for room in the inbox, it does not listen, so the server is not silent.
func TestWaitingIsNoSilence(t *testing.T) {
	t.Parallel()
	waiting := func() *reader {
		r, _ := wired(t)
		r.inbox, r.silence, r.replyPending = newInbox(), time.Second, true
		r.lastReceived, r.lastStatus = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		for range inboxItems {
			r.inbox.put(item{kind: itemChange})
		}
		return r
	}
	r, ended := waiting(), make(chan error, 1)
	r.inbox.room <- struct{}{} // of an item that was put since
	go func() { ended <- r.waitForRoom(t.Context()) }()
	testenv.Eventually(t, time.Minute, "the reader to look for room", func() (bool, string) { return len(r.inbox.room) == 0, "" })
	r.inbox.take(nil)
	if err := <-ended; err != nil {
		t.Errorf("waiting for room ends with %v", err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*tick)
	defer cancel()
	if err := waiting().waitForStore(ctx); err != nil {
		t.Errorf("waiting for the store ends with %v", err)
	}
}

// standbyStatus is a status update as the server receives it.
type standbyStatus struct {
	at   pglogrepl.LSN
	asks bool
}

// wired returns a reader that is connected to the test, and a function that returns the status updates after the end.
func wired(t *testing.T) (r *reader, told func() []standbyStatus) {
	t.Helper()
	ours, server := net.Pipe()
	config, err := pgconn.ParseConfig("host=nowhere")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgconn.Construct(&pgconn.HijackedConn{Conn: ours, Config: config, TxStatus: 'I'})
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan []byte, 1)
	go func() {
		data, _ := io.ReadAll(server)
		received <- data
	}()
	return &reader{conn: conn}, func() (sent []standbyStatus) {
		ours.Close()
		// CopyData with a standby status update: PostgreSQL manual, section 55.4.
		for data := <-received; len(data) > 0; data = data[39:] {
			if len(data) < 39 || data[0] != 'd' || data[5] != 'r' {
				t.Fatalf("%q was sent", data)
			}
			written, flushed, applied := data[6:14], data[14:22], data[22:30]
			if !bytes.Equal(written, flushed) || !bytes.Equal(written, applied) {
				t.Errorf("the positions %x, %x and %x are acknowledged", written, flushed, applied)
			}
			sent = append(sent, standbyStatus{pglogrepl.LSN(binary.BigEndian.Uint64(flushed)), data[38] == 1})
		}
		return sent
	}
}
