package cdc

import (
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// NormalizeWebhookIDs rewrites the assessment and organization ids that webhooks and API keys name into the form that
// ColumnType.CanonicalID returns.
const NormalizeWebhookIDs = "select walhook.respell_webhooks()"

// CanonicalID returns the id of an assessment or organization without spelling that its type ignores, such as scale
// or padding. Ids that SQL considers equal become the same text, even from columns of different types.
// walhook.column_id does the same for ids that people write.
func (t ColumnType) CanonicalID(text string) string {
	switch t.OID {
	case pgtype.BPCharOID:
		return strings.TrimRight(text, " ")
	case pgtype.NumericOID:
		return trimScale(text)
	case pgtype.Float4OID, pgtype.Float8OID:
		if f, err := strconv.ParseFloat(text, 64); err == nil && strings.Contains(text, "e") {
			text = strconv.FormatFloat(f, 'f', -1, 64)
		}
		if text == "-0" {
			return "0"
		}
	}
	return text
}

// trimScale removes trailing zeros of a fraction.
func trimScale(number string) string {
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	return number
}
