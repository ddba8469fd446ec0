package catalog

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// QuoteIdentifiers returns a list of quoted identifiers for SQL.
func QuoteIdentifiers(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = pgx.Identifier{name}.Sanitize()
	}
	return strings.Join(quoted, ", ")
}

// CollectStrings collects the rows of a query with one text column.
func CollectStrings(rows pgx.Rows, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
