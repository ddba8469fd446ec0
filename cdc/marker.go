package cdc

import "walhook/cdc/condition"

// MarkOf returns the state of a marker whose condition has this value. A value that depends on a column which the WAL
// does not carry leaves the marker as it was.
func MarkOf(t condition.Truth) Mark {
	met, known := t.Met()
	switch {
	case !known:
		return MarkUnchanged
	case met:
		return MarkSet
	}
	return MarkUnset
}
