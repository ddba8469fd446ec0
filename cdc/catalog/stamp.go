package catalog

import (
	"fmt"

	"github.com/jackc/pgx/v5/pgtype"

	"walhook/cdc"
)

// StampHazard says why the finish stamp cannot distinguish one finish from the next, and what to do; why is "" if it
// can. repeats reports whether a second finish is recognised in some cases all the same. t may be nil.
func StampHazard(m cdc.Mapping, t *Table) (why, remedy string, repeats bool) {
	const set = "set WALHOOK_FINISH_STAMP to a column that changes with each finish, such as the time of the last submission"
	const cleared = ": a further finish is only seen when the finished marker is cleared in between"
	if len(m.StampColumns()) == 0 {
		if m.Finished.Expression != "" {
			return "the finished marker is an expression and there is no finish stamp" + cleared, set, false
		}
		return "the finished marker names values and there is no finish stamp" + cleared, set, false
	}
	for _, stamp := range m.StampColumns() {
		hazard, some := columnHazard(m, t, stamp)
		switch {
		case hazard == "":
			return "", "", true
		case some:
			why, remedy, repeats = hazard, set, true
		case why == "":
			why, remedy = hazard+cleared, set
		}
	}
	return why, remedy, repeats
}

// columnHazard says why one column of the finish stamp cannot distinguish finishes; some: it can distinguish some.
func columnHazard(m cdc.Mapping, t *Table, stamp string) (hazard string, some bool) {
	switch {
	case stamp == m.ID || stamp == m.Assessment || stamp == m.Organization:
		return fmt.Sprintf("the finish stamp %s does not change with a finish", stamp), false
	case t == nil:
		return "", true
	}
	switch t.Columns[stamp] {
	case pgtype.BoolOID, pgtype.BitOID:
		return fmt.Sprintf("the finish stamp %s is a flag, which stays the same while it is set", stamp), false
	case pgtype.DateOID:
		return fmt.Sprintf("the finish stamp %s is a date: finishes of one day cannot be told apart", stamp), true
	}
	return "", true
}
