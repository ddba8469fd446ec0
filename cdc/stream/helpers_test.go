package stream

import (
	"strings"

	"pgregory.net/rapid"

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

func drawState(t *rapid.T) cdc.State {
	s := cdc.State{
		Started: rapid.Bool().Draw(t, "started"), Completed: rapid.Bool().Draw(t, "completed"),
		StartedNow: rapid.Bool().Draw(t, "started now"), FinishedNow: rapid.Bool().Draw(t, "finished now"),
		AwaitsStamp: rapid.Bool().Draw(t, "awaits a stamp"), Excluded: rapid.Bool().Draw(t, "excluded"),
		Stamp: rapid.SampledFrom([]string{"", "x", "y", "x,", ",y"}).Draw(t, "stamp"),
	}
	if rapid.Bool().Draw(t, "has assessment") {
		s.AssessmentID = new(rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "assessment"))
	}
	if rapid.Bool().Draw(t, "has organization") {
		organization := rapid.SampledFrom([]string{"", "o", "p"}).Draw(t, "organization")
		s.OrganizationID = &organization
	}
	return s
}
