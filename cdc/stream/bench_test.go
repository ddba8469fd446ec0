package stream

import (
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"

	"walhook/cdc"
	"walhook/cdc/catalog"
)

// BenchmarkPageSaves measures what a page save costs from the received message to the batch that it changes nothing
// in: transactions of a hundred changes, and responses whose states are cached.
func BenchmarkPageSaves(b *testing.B) {
	const responses, each = 16_000, 100
	finished := "2026-03-18 18:44:09+00"
	for name, tt := range map[string]struct {
		status any
		stamp  any
	}{"open": {"open", nil}, "finished": {"done", finished}} {
		b.Run(name, func(b *testing.B) {
			key := &catalog.Attachment{RespondentOID: respondentOID, AssessmentOID: assessmentOID}
			r := newReader(Config{Mapping: testMapping, Status: &Status{}}, key, cdc.Position{LSN: 0x20})
			w := newWriter(Config{Status: &Status{}}, nil, r, 1)
			receive := func(m wire) {
				if _, _, err := r.handle(m); err != nil {
					b.Fatal(err)
				}
			}
			wal := func(m wire) wire { return append(wire("w").uint64(0).uint64(0).uint64(0), m...) }
			receive(wal(respondentRelation))
			saved := make([]wire, responses)
			for i := range saved {
				id := strconv.Itoa(i)
				saved[i] = wal(updateMessage(respondentOID, id, "a name that nobody mapped", "42", "7", nil, tt.status, tt.stamp))
				m, err := r.decoder.Decode(saved[i][25:])
				if err != nil {
					b.Fatal(err)
				}
				state := cdc.InitialState(m.Changes[0].New)
				w.states.put(id, &state)
			}
			var items []item
			lsn, next, changes := pglogrepl.LSN(0x30), 0, 0
			b.ReportAllocs()
			for b.Loop() {
				for range batchItems / each {
					receive(wal(beginMessage(lsn, time.Unix(0, 0), 7)))
					for range each {
						receive(saved[next])
						next = (next + 1) % responses
					}
					receive(wal(commitMessage(lsn, lsn+8)))
					lsn += 8
					changes += each
				}
				items = r.inbox.take(items)
				if err := w.next.add(b.Context(), items); err != nil {
					b.Fatal(err)
				}
				clear(items)
				if w.next.changed {
					b.Fatal("a page save changes a state")
				}
				w.startCommit(b.Context(), w.next)
				w.next = newBatch(w)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(changes), "ns/change")
		})
	}
}
