package dispatch

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"walhook/cdc"
	"walhook/sql"
)

// Events are in one group only if the same webhooks match them. A NULL is not an empty text.
func TestGroupMatching(t *testing.T) {
	t.Parallel()
	rows := sql.Rows[eventRow]{
		{ResponseID: "1", EventType: cdc.Created, AssessmentID: new("a")},
		{ResponseID: "2", EventType: cdc.Created, AssessmentID: new("a"), FirstID: new("9")},
		{ResponseID: "3", EventType: cdc.Created},
		{ResponseID: "4", EventType: cdc.Created, AssessmentID: new("")},
		{ResponseID: "5", EventType: cdc.Started, AssessmentID: new("a")},
		{ResponseID: "6", EventType: cdc.Created, AssessmentID: new("a"), OrganizationID: new("a")},
		{ResponseID: "7", EventType: cdc.Created, OrganizationID: new("a")},
		{ResponseID: "8", EventType: cdc.Created},
	}
	groups, groupOf := groupMatching(rows)
	if diff := cmp.Diff([]int32{1, 1, 2, 3, 4, 5, 6, 2}, groupOf); diff != "" {
		t.Errorf("the groups are not as wanted (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(sql.Rows[eventRow]{rows[0], rows[2], rows[3], rows[4], rows[5], rows[6]}, groups); diff != "" {
		t.Errorf("the events of the groups are not as wanted (-want +got):\n%s", diff)
	}
}
