package catalog

import (
	"fmt"
)

// Size returns the table's size, for messages.
func (t *Table) Size() string {
	if t.Bytes < 0 {
		return "of unknown size, since somebody has locked it"
	}
	return FormatBytes(t.Bytes)
}

// FormatRows formats the planner's estimate of a table's rows, which is 0 until the table is analysed.
func FormatRows(rows float64) string {
	if rows < 1 {
		return "empty or never analysed"
	}
	return fmt.Sprintf("about %.0f rows by its statistics", rows)
}

// FormatBytes formats a number of bytes, such as 1.5 MB.
func FormatBytes(n int64) string {
	const unit = 1024
	value, suffix := float64(n), "bytes"
	for _, s := range []string{"kB", "MB", "GB", "TB"} {
		if value < unit {
			break
		}
		value, suffix = value/unit, s
	}
	return fmt.Sprintf("%.4g %s", value, suffix)
}
