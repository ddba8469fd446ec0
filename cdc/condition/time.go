package condition

import (
	"cmp"
	"math"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// moment is a number of days and, below one day, of microseconds.
type moment struct{ days, micros int64 }

const (
	microsPerSecond = int64(1000000)
	microsPerDay    = 24 * 60 * 60 * microsPerSecond
)

// newMoment carries microseconds beyond a day over to the days.
func newMoment(days, micros int64) moment {
	carry := micros / microsPerDay
	if micros%microsPerDay < 0 {
		carry--
	}
	return moment{days + carry, micros - carry*microsPerDay}
}

func compareMoments(a, b moment) int {
	if order := cmp.Compare(a.days, b.days); order != 0 {
		return order
	}
	return cmp.Compare(a.micros, b.micros)
}

var (
	instants   = comparing(familyInstant, true, readInstant, compareMoments, instantLiteral)
	times      = comparing(familyTime, true, readTime, cmp.Compare[int64], timeLiteral)
	zonedTimes = comparing(familyTimeTZ, true, readZonedTime, compareMoments, zonedTimeLiteral)
	intervals  = comparing(familyInterval, true, readInterval, compareMoments, intervalLiteral)
)

// number of digits at the beginning of text.
func leadingDigits(text string) int {
	n := 0
	for n < len(text) && isDigit(text[n]) {
		n++
	}
	return n
}

// readInstant reads a date, a timestamp, or a timestamp with a time zone, as the number of days since the year 1. Without
// a zone it is in UTC, which sessions are pinned to.
func readInstant(text string) (moment, error) {
	switch text {
	case "infinity":
		return moment{days: math.MaxInt64}, nil
	case "-infinity":
		return moment{days: math.MinInt64}, nil
	}
	text, before := strings.CutSuffix(text, " BC")
	year := leadingDigits(text)
	if year < 4 || len(text) < year+6 || text[year] != '-' || text[year+3] != '-' ||
		!digits(text[year+1:year+3]+text[year+4:year+6]) {
		return moment{}, errFormat
	}
	y, err := strconv.Atoi(text[:year])
	if err != nil || y == 0 {
		return moment{}, errFormat
	}
	if before {
		y = 1 - y
	}
	m, _ := strconv.Atoi(text[year+1 : year+3])
	d, _ := strconv.Atoi(text[year+4 : year+6])
	if m < 1 || m > 12 || d < 1 || d > daysOfMonth(y, m) {
		return moment{}, errFormat
	}
	days := dayNumber(y, m, d)
	rest := text[year+6:]
	if rest == "" {
		return moment{days: days}, nil
	}
	if rest[0] != ' ' && rest[0] != 'T' {
		return moment{}, errFormat
	}
	micros, zone, err := readClock(rest[1:])
	if err != nil {
		return moment{}, err
	}
	east, err := readZone(zone)
	return newMoment(days, micros-east), err
}

func daysOfMonth(y, m int) int {
	if leap := y%4 == 0 && (y%100 != 0 || y%400 == 0); m == 2 && leap {
		return 29
	}
	return [...]int{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[m-1]
}

// dayNumber returns the number of days since 0000-03-01 of the proleptic Gregorian calendar.
func dayNumber(y, m, d int) int64 {
	if m < 3 {
		y--
		m += 12
	}
	const eras = 20000 // of 400 years, so that no year is negative
	y += 400 * eras
	return int64(365*y+y/4-y/100+y/400+(153*(m-3)+2)/5+d-1) - 146097*eras
}

// readClock reads a time of day and returns what follows it.
func readClock(text string) (micros int64, rest string, err error) {
	part := func(separator string) (int64, bool) {
		text = strings.TrimPrefix(text, separator)
		n := leadingDigits(text)
		if n < 2 {
			return 0, false
		}
		value, err := strconv.ParseInt(text[:n], 10, 48)
		text = text[n:]
		return value, err == nil
	}
	hours, valid := part("")
	if !valid || !strings.HasPrefix(text, ":") {
		return 0, "", errFormat
	}
	minutes, valid := part(":")
	if !valid || minutes > 59 {
		return 0, "", errFormat
	}
	seconds, fraction := int64(0), int64(0)
	if strings.HasPrefix(text, ":") {
		if seconds, valid = part(":"); !valid || seconds > 59 {
			return 0, "", errFormat
		}
		if strings.HasPrefix(text, ".") {
			n := leadingDigits(text[1:])
			if n == 0 || n > 6 {
				return 0, "", errFormat
			}
			fraction, _ = strconv.ParseInt((text[1:1+n] + "000000")[:6], 10, 64)
			text = text[1+n:]
		}
	}
	return ((hours*60+minutes)*60+seconds)*microsPerSecond + fraction, text, nil
}

// readZone returns the offset of a time zone to the east of UTC, in microseconds.
func readZone(text string) (int64, error) {
	text = strings.TrimPrefix(text, " ")
	if text == "" || text == "Z" || text == "UTC" {
		return 0, nil
	}
	if text[0] != '+' && text[0] != '-' {
		return 0, errFormat
	}
	var east, unit int64 = 0, 3600
	parts := strings.Split(text[1:], ":")
	if len(parts) > 3 {
		return 0, errFormat
	}
	for i, part := range parts {
		n, err := strconv.ParseInt(part, 10, 64)
		if err != nil || len(part) != 2 || !digits(part) || i == 0 && n > 15 || i > 0 && n > 59 {
			return 0, errFormat
		}
		east, unit = east+n*unit, unit/60
	}
	if text[0] == '-' {
		east = -east
	}
	return east * microsPerSecond, nil
}

func instantLiteral(t Type, l token, _ bool) (moment, string) {
	reason := map[uint32]string{
		pgtype.DateOID: "write a date, such as '2026-01-31'", pgtype.TimestampOID: "write a time without a zone, such as '2026-01-31 12:00:00'",
		pgtype.TimestamptzOID: "write a time with its zone, such as '2026-01-31 12:00:00+01'",
	}[t.OID]
	m, err := readInstant(l.text)
	infinite := strings.HasSuffix(l.text, "infinity")
	if l.kind != tokenString || err != nil {
		return m, reason
	}
	if infinite {
		return m, ""
	}
	low, high := dayNumber(-4712, 1, 1), dayNumber(294276, 12, 31)
	if t.OID == pgtype.DateOID {
		high = dayNumber(5874897, 12, 31)
	}
	if m.days < low || m.days > high {
		return m, "it is out of the type's range"
	}
	_, clock, timed := strings.Cut(strings.Replace(l.text, "T", " ", 1), " ")
	timed = timed && clock != "BC"
	_, zone, _ := readClock(strings.TrimSuffix(clock, " BC"))
	switch {
	case t.OID == pgtype.DateOID && timed, t.OID == pgtype.TimestampOID && timed && zone != "":
		return m, reason
	case timed && strings.HasPrefix(clock, "24"), timed && leadingDigits(clock) != 2:
		return m, reason
	}
	return m, ""
}

func readTime(text string) (int64, error) {
	micros, rest, err := readClock(text)
	if err == nil && rest != "" {
		err = errFormat
	}
	return micros, err
}

func timeLiteral(_ Type, l token, _ bool) (int64, string) {
	micros, err := readTime(l.text)
	if l.kind != tokenString || err != nil || micros > microsPerDay || leadingDigits(l.text) != 2 {
		return 0, "write a time, such as '12:00:00'"
	}
	return micros, ""
}

// readZonedTime returns the instant, and to the west the zone, by which PostgreSQL orders equal instants.
func readZonedTime(text string) (moment, error) {
	micros, zone, err := readClock(text)
	if err != nil {
		return moment{}, err
	}
	east, err := readZone(zone)
	return moment{micros - east, -east}, err
}

func zonedTimeLiteral(_ Type, l token, _ bool) (moment, string) {
	m, err := readZonedTime(l.text)
	if local := m.days - m.micros; l.kind != tokenString || err != nil || local > microsPerDay || leadingDigits(l.text) != 2 {
		return m, "write a time with its zone, such as '12:00:00+01'"
	}
	return m, ""
}

// readInterval reads an interval in the style postgres. Months count as 30 days and days as 24 hours, as in
// PostgreSQL's comparisons.
func readInterval(text string) (moment, error) {
	switch text {
	case "infinity":
		return moment{days: math.MaxInt64}, nil
	case "-infinity":
		return moment{days: math.MinInt64}, nil
	}
	fields := strings.Fields(text)
	var days, micros int64
	seen := map[string]bool{}
	for i := 0; i < len(fields); i++ {
		field, sign := fields[i], int64(1)
		if field[0] == '-' || field[0] == '+' {
			if field[0] == '-' {
				sign = -1
			}
			field = field[1:]
		}
		unit := "clock"
		if strings.Contains(field, ":") {
			clock, rest, err := readClock(field)
			if err != nil || rest != "" {
				return moment{}, errFormat
			}
			micros += sign * clock
		} else {
			n, err := strconv.ParseInt(field, 10, 48)
			if i++; err != nil || !digits(field) || i == len(fields) {
				return moment{}, errFormat
			}
			unit = strings.TrimSuffix(fields[i], "s")
			switch unit {
			case "year":
				days += sign * n * 360
			case "mon", "month":
				unit = "mon"
				days += sign * n * 30
			case "week":
				days += sign * n * 7
			case "day":
				days += sign * n
			case "hour":
				micros += sign * n * 3600 * microsPerSecond
			case "min", "minute":
				unit = "min"
				micros += sign * n * 60 * microsPerSecond
			case "sec", "second":
				unit = "sec"
				micros += sign * n * microsPerSecond
			default:
				return moment{}, errFormat
			}
		}
		if seen[unit] {
			return moment{}, errFormat
		}
		seen[unit] = true
	}
	if len(seen) == 0 || seen["clock"] && (seen["hour"] || seen["min"] || seen["sec"]) {
		return moment{}, errFormat
	}
	return newMoment(days, micros), nil
}

func intervalLiteral(_ Type, l token, _ bool) (moment, string) {
	m, err := readInterval(l.text)
	if l.kind != tokenString || err != nil || strings.HasSuffix(l.text, "infinity") { // which PostgreSQL 17 introduced
		return m, "write an interval, such as '1 day 02:00:00'"
	}
	const longest = 360 * 100000 // a hundred thousand years
	if m.days > longest || m.days < -longest {
		return m, "it is out of range"
	}
	return m, ""
}
