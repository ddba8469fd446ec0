package dispatch

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"testing"

	"github.com/jackc/pglogrepl"
	"pgregory.net/rapid"

	"walhook/cdc"
)

// The expected values come from sha256sum over the documented text.
func TestMessageIDIsStable(t *testing.T) {
	t.Parallel()
	got := MessageID("7234567890123456789", pglogrepl.LSN(0x16B374D848), 3, cdc.Completed, 42)
	if want := "msg_6910fbb528d5a9a9c8d57d1e1c793d06"; got != want {
		t.Errorf("MessageID: got %s, want %s", got, want)
	}
	got = ManualMessageID("6f0c1d3e-5b1a-4c46-9b0e-0d2b3a1c9f77", 1001)
	if want := "msg_be2bd80b9b65c0ad93ddbee96717fc9c"; got != want {
		t.Errorf("ManualMessageID: got %s, want %s", got, want)
	}
}

func TestMessageIDHashesTheDocumentedText(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^msg_[0-9a-f]{32}$`)
	rapid.Check(t, func(t *rapid.T) {
		origin := rapid.StringMatching(`[0-9]{1,20}`).Draw(t, "origin")
		lsn := pglogrepl.LSN(rapid.Uint64().Draw(t, "lsn"))
		ordinal, webhook := rapid.Int64().Draw(t, "ordinal"), rapid.Int64().Draw(t, "webhook")
		event := cdc.EventType(rapid.Int16Range(1, 4).Draw(t, "event"))

		got := MessageID(origin, lsn, ordinal, event, webhook)
		sum := sha256.Sum256(fmt.Appendf(nil, "%s|%s|%d|%d|%d", origin, lsn, ordinal, int16(event), webhook))
		if want := "msg_" + hex.EncodeToString(sum[:16]); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
		if !form.MatchString(got) {
			t.Fatalf("%s is not msg_ and 32 lower-case hex digits", got)
		}
	})
}

func BenchmarkMessageID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		MessageID("7234567890123456789", pglogrepl.LSN(0x16B374D848), 3, cdc.Completed, 42)
	}
}
