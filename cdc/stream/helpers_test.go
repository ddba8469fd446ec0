package stream

import (
	"strings"

	"walhook/cdc"
	"walhook/cdc/catalog"
)

// unchanged stands for a TOASTed value that the server did not send.
var unchanged = cdc.Text{Unchanged: true}

var null = cdc.Text{Null: true}

func text(value string) cdc.Text { return cdc.Text{Value: value} }

// copiedFields are the fields of a line of COPY.
func copiedFields(line string) []cdc.Text {
	var fields []cdc.Text
	for field := range strings.SplitSeq(line, "\t") {
		fields = append(fields, catalog.CopyField([]byte(field)))
	}
	return fields
}
