package cdc

import "walhook/cdc/condition"

// Mark returns the marker's state for a value in the text output format of its type.
func (m Marker) Mark(value Text, typeOID uint32) Mark {
	switch {
	case value.Unchanged:
		return MarkUnchanged
	case value.Null:
		return MarkUnset
	case len(m.Values) > 0 && condition.Matches(m.Values, value.Value, typeOID),
		len(m.Values) == 0 && condition.IsSet(value.Value, typeOID):
		return MarkSet
	default:
		return MarkUnset
	}
}
