package sql

// Look is what is asked for at one URL, as walhook.look_in has it.
type Look struct {
	Tests   []int64 `sql:"tests"`
	Enabled []int64 `sql:"enabled"`
	Keeps   []bool  `sql:"keeps"`
	Ordered []int64 `sql:"ordered"`
	Moving  []int64 `sql:"moving"`
	Held    []int64 `sql:"held"`
	After   int64   `sql:"after"`
	Room    int32   `sql:"room"`
	RoomDue int32   `sql:"room_due"`
}
