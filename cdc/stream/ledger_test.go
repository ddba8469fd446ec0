package stream

import (
	"testing"

	"github.com/jackc/pglogrepl"
	"pgregory.net/rapid"
)

// In any interleaving of commits, flushes and observations, a position that the ledger calls durable is on disk, and
// once the disk has caught up everything is durable.
func TestLedgerCallsOnlyDurableWhatIsOnDisk(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var (
			l                 ledger
			inserted, flushed uint64
			position, durable pglogrepl.LSN
			written           = map[pglogrepl.LSN]uint64{} // position to the end of its commit in the store's WAL
			last              pglogrepl.LSN                // committed and not yet observed
			known             = map[pglogrepl.LSN]uint64{} // position to the first observation after its commit
		)
		check := func(d pglogrepl.LSN) {
			if last != 0 {
				known[last], last = inserted, 0
			}
			for p, end := range known {
				if end <= flushed && max(d, durable) < p {
					t.Fatalf("%s is not called durable: the store told of %d after its commit, and %d is on disk", p, end, flushed)
				}
			}
			if d == 0 {
				return
			}
			if end, known := written[d]; !known || end > flushed {
				t.Fatalf("%s is called durable: its commit ends at %d, and the disk has %d", d, end, flushed)
			}
			if d < durable {
				t.Fatalf("durable fell from %s to %s", durable, d)
			}
			durable = d
		}
		tell := func() { check(l.observe(inserted, flushed)) }
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				before := inserted
				position += pglogrepl.LSN(rapid.IntRange(0, 5).Draw(t, "position") + 1)
				end := before + uint64(rapid.IntRange(1, 9).Draw(t, "wal"))
				written[position] = end
				check(l.committed(position, before, flushed))
				inserted, last = end, position
			case 1:
				flushed = rapid.Uint64Range(flushed, inserted).Draw(t, "flushed")
			case 2:
				tell()
			case 3:
				inserted += uint64(rapid.IntRange(1, 9).Draw(t, "other")) // of other sessions
			}
		}
		tell()
		flushed = inserted
		tell()
		if durable != position || !l.isEmpty() {
			t.Fatalf("with all on disk, durable is %s and not %s, settled is %t", durable, position, l.isEmpty())
		}
	})
}
