package dispatch

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"

	"github.com/jackc/pglogrepl"

	"walhook/cdc"
)

// MessageID returns the webhook-id of a delivery that an event of the source caused. Every process computes the same at
// any time, so that receivers can drop repeats after restarts, takeovers and a crash of the store.
//
// It is "msg_" and the first 16 bytes, in lower-case hex, of the SHA-256 of the text
//
//	origin|LSN|ordinal|event number|webhook id
//
// The origin is the column "events" of the delivery's row in walhook.origin. The LSN is as PostgreSQL prints it
// ("16/B374D848"). The SQL function walhook.message_id computes the same.
func MessageID(origin string, lsn pglogrepl.LSN, ordinal int64, eventType cdc.EventType, webhookID int64) string {
	text := make([]byte, 0, 128)
	text = append(text, origin...)
	text = append(text, '|')
	text = appendLSN(text, lsn)
	text = append(text, '|')
	text = strconv.AppendInt(text, ordinal, 10)
	text = append(text, '|')
	text = strconv.AppendInt(text, int64(eventType), 10)
	text = append(text, '|')
	text = strconv.AppendInt(text, webhookID, 10)
	return hashID(text)
}

// ManualMessageID returns the webhook-id of a test delivery, which is a message of its own. A redelivery has the
// webhook-id of the first delivery, which is stored with it; only those that an earlier version queued are messages of
// their own. It hashes the text
//
//	origin|delivery id
//
// The origin is the column "manual" of that row.
func ManualMessageID(origin string, deliveryID int64) string {
	text := make([]byte, 0, 64)
	text = append(text, origin...)
	text = append(text, '|')
	text = strconv.AppendInt(text, deliveryID, 10)
	return hashID(text)
}

const idPrefix = "msg_"

// hashID returns an id without '.', because Standard Webhooks separates the signed parts with it.
func hashID(text []byte) string {
	sum := sha256.Sum256(text)
	var id [len(idPrefix) + 32]byte
	copy(id[:], idPrefix)
	hex.Encode(id[len(idPrefix):], sum[:16])
	return string(id[:])
}

// appendLSN appends what pg_lsn_out prints: two halves in upper-case hex, without leading zeros.
func appendLSN(dst []byte, lsn pglogrepl.LSN) []byte {
	dst = appendUpperHex(dst, uint32(lsn>>32))
	dst = append(dst, '/')
	return appendUpperHex(dst, uint32(lsn))
}

func appendUpperHex(dst []byte, v uint32) []byte {
	start := len(dst)
	dst = strconv.AppendUint(dst, uint64(v), 16)
	for i := start; i < len(dst); i++ {
		if dst[i] >= 'a' {
			dst[i] -= 'a' - 'A'
		}
	}
	return dst
}
