package sql

// Look is what is asked for at one URL, as walhook.look_in has it.
type Look struct {
	Tests, Enabled []int64
	Keeps          []bool
	Ordered        []int64
	Moving, Held   []int64
	After          int64
	Room, RoomDue  int // at most 1<<31 - 1
}

// Look adds what is asked for at one URL.
func (r *Rows) Look(l *Look) {
	r.Row()
	r.Int8s(l.Tests)
	r.Int8s(l.Enabled)
	r.Bools(l.Keeps)
	r.Int8s(l.Ordered)
	r.Int8s(l.Moving)
	r.Int8s(l.Held)
	r.Int8(l.After)
	r.Int4(int32(l.Room))
	r.Int4(int32(l.RoomDue))
}
