package cdc

import (
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// NormalizeWebhookIDs lets webhooks name their assessments and organizations as ColumnType.CanonicalID spells them.
const NormalizeWebhookIDs = "select walhook.respell_webhooks()"

// CanonicalID returns the id of an assessment or organization without what its column does not tell apart, such as a scale or padding, so that
// ids that SQL finds equal are the same text, also where two columns are of different types. walhook.column_id does the same for
// ids that people write.
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

// trimScale leaves out zeros at the end of a fraction.
func trimScale(number string) string {
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	return number
}
