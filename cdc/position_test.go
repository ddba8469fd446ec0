package cdc

import (
	"testing"

	"github.com/jackc/pglogrepl"
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
		if changes, all := tt.position.Skip(tt.commit); changes != tt.changes || all != tt.all {
			t.Errorf("%s skips %d, %v of the transaction committed at %s", tt.position, changes, all, tt.commit)
		}
	}
	for want, p := range map[string]Position{"0/20": {LSN: 0x20}, "0/20+5 of 0/30": {LSN: 0x20, Partial: 0x30, PartialChanges: 5}} {
		if got := p.String(); got != want {
			t.Errorf("position %s is written as %s", want, got)
		}
	}
	if NullableLSN(0) != nil || NullableLSN(0x20) != "0/20" {
		t.Errorf("%v, %v", NullableLSN(0), NullableLSN(0x20))
	}
}
