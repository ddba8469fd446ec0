package sql

// LoadRequest asks for pending deliveries of one URL. Its SQL type is walhook.look_in.
type LoadRequest struct {
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
