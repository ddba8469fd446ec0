package condition

// Truth is the set of values that a condition may have in SQL's three-valued logic. It has more than one element if
// the value depends on a column that the WAL does not carry.
type Truth uint8

// The elements of a Truth.
const (
	True Truth = 1 << iota
	False
	Null
)

// Met reports whether the condition is true, and whether that is known.
func (t Truth) Met() (met, known bool) {
	if t&True == 0 {
		return false, true
	}
	return t == True, t == True
}

func (t Truth) not() Truth {
	return t&Null | t&True<<1 | t&False>>1
}

// and returns the possible values of a conjunction: false if either is false, else NULL if either is NULL.
func (t Truth) and(o Truth) Truth {
	result := t & o & True
	result |= (t | o) & False
	if both := t & o; both&Null != 0 || t&Null != 0 && o&True != 0 || o&Null != 0 && t&True != 0 {
		result |= Null
	}
	return result
}

func (t Truth) or(o Truth) Truth { return t.not().and(o.not()).not() }

func truthOf(b bool) Truth {
	if b {
		return True
	}
	return False
}
