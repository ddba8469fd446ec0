package cdc

import (
	"testing"

	"github.com/jackc/pglogrepl"
	"pgregory.net/rapid"
)

func TestPositionSkipsWhatWasConsumed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		position Position
		commit   pglogrepl.LSN
		changes  int64
		all      bool
	}{
		{Position{}, 0x10, 0, false},
		{Position{LSN: 0x20}, 0x10, 0, true},
		{Position{LSN: 0x20}, 0x1f, 0, true},
		{Position{LSN: 0x20}, 0x20, 0, false}, // the next transaction may begin its commit record where the last one ended
		{Position{LSN: 0x20, Partial: 0x30, PartialChanges: 5}, 0x10, 0, true},
		{Position{LSN: 0x20, Partial: 0x30, PartialChanges: 5}, 0x30, 5, false},
		{Position{LSN: 0x20, Partial: 0x30, PartialChanges: 5}, 0x40, 0, false},
	} {
		if changes, all := tt.position.skip(tt.commit); changes != tt.changes || all != tt.all {
			t.Errorf("%s skips %d, %v of the transaction committed at %s", tt.position, changes, all, tt.commit)
		}
	}
	if p := (Position{LSN: 0x20, Partial: 0x30, PartialChanges: 5}).String(); p != "0/20+5 of 0/30" {
		t.Errorf("%s", p)
	}
	if nullable(0) != nil || nullable(0x20) != "0/20" {
		t.Errorf("%v, %v", nullable(0), nullable(0x20))
	}
}

// TestEveryChangeIsTakenOnce stops at any change of any transaction, begins anew where the position says, and looks whether
// each change was taken exactly once.
func TestEveryChangeIsTakenOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		type transaction struct {
			commit, end pglogrepl.LSN
			changes     int64
		}
		var transactions []transaction
		at := pglogrepl.LSN(0x100)
		for range rapid.IntRange(1, 6).Draw(t, "transactions") {
			commit := at + pglogrepl.LSN(rapid.IntRange(0, 8).Draw(t, "gap"))
			at = commit + 8
			transactions = append(transactions, transaction{commit, at, int64(rapid.IntRange(1, 4).Draw(t, "changes"))})
		}
		taken := map[pglogrepl.LSN]int64{}
		position := Position{LSN: 0x100}
		for range 1000 {
			crashed := false
			from := position
		stream:
			for _, tx := range transactions {
				skip, all := from.skip(tx.commit)
				for ordinal := int64(1); ordinal <= tx.changes; ordinal++ {
					if all || ordinal <= skip {
						continue
					}
					if taken[tx.commit]++; taken[tx.commit] != ordinal {
						t.Fatalf("change %d of %s is the %dth taken", ordinal, tx.commit, taken[tx.commit])
					}
					position.Partial, position.PartialChanges = tx.commit, ordinal
					if rapid.IntRange(0, 3).Draw(t, "crash") == 0 {
						crashed = true
						break stream
					}
				}
				if !all {
					position = Position{LSN: tx.end}
				}
			}
			if !crashed {
				break
			}
		}
		for _, tx := range transactions {
			if taken[tx.commit] != tx.changes {
				t.Fatalf("%d of %d changes of %s were taken", taken[tx.commit], tx.changes, tx.commit)
			}
		}
	})
}
