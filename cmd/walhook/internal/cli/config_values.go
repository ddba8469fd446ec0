package cli

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/condition"
	"walhook/session"
)

// valueError is the error of a Decode method: the value as it may be shown, and what is accepted.
type valueError struct{ value, accepted string }

func (e *valueError) Error() string { return e.accepted }

// databaseURL is a connection string of PostgreSQL.
type databaseURL string

const databaseURLAccepted = "a connection string such as postgres://user:password@host:5432/database?sslmode=require"

// ambiguous reports whether a URL has more than one @. The part after the first may belong to the password, and must not be shown
// as host or database.
func ambiguous(value string) bool {
	address, isURL := strings.CutPrefix(value, "postgres://")
	if !isURL {
		address, isURL = strings.CutPrefix(value, "postgresql://")
	}
	address, _, _ = strings.Cut(address, "?")
	return isURL && strings.Count(address, "@") > 1
}

// Decode checks the connection string without connecting.
func (u *databaseURL) Decode(value string) error {
	if strings.TrimSpace(value) == "" { // pgx would use its own defaults
		return &valueError{quoted(value), databaseURLAccepted}
	}
	if ambiguous(value) {
		return &valueError{
			"(hidden, since it holds a password)",
			databaseURLAccepted + ", with each other @ as %40, and / as %2F in user and password",
		}
	}
	if err := session.CheckURL(value); err != nil {
		return &valueError{maskURL(value), err.Error() + "; give " + databaseURLAccepted}
	}
	*u = databaseURL(value)
	return nil
}

// maskURL returns the parts of a connection string that are certainly no secret.
func maskURL(value string) string {
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || u.Scheme == "" {
		return "(hidden, since it may hold a password)"
	}
	return u.Scheme + "://" + u.Hostname() + "/..."
}

// list is a list of names, separated by commas. Blanks around a name are not part of it.
type list []string

// Decode reads the list.
func (l *list) Decode(value string) error {
	*l = nil
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.TrimSpace(name); name != "" {
			*l = append(*l, name)
		}
	}
	return nil
}

// Decode reads CIDRs separated by commas or blanks.
func (n *Networks) Decode(value string) error {
	var texts list
	_ = texts.Decode(strings.Join(strings.Fields(value), ","))
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			accepted := "CIDRs separated by commas, such as 127.0.0.0/8,10.1.0.0/16"
			if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
				accepted += "; one address is " + netip.PrefixFrom(addr, addr.BitLen()).String()
			}
			return &valueError{value, accepted}
		}
		*n = append(*n, p)
	}
	return nil
}

// duration is a time.Duration that may be written with days and weeks.
type duration time.Duration

const durationAccepted = "a duration such as 500ms, 15s, 10m, 12h, 90d or 2w"

// durationTerm is one number with its unit.
var durationTerm = regexp.MustCompile(`([0-9.]+)([^0-9.]+)`)

// parseDuration is time.ParseDuration with days (d) of 24 hours and weeks (w), alone or among the other units, as in 1w2d12h.
func parseDuration(text string) (time.Duration, error) {
	unsigned := strings.TrimLeft(text, "+-")
	if !strings.ContainsAny(text, "dw") || len(text)-len(unsigned) > 1 || durationTerm.ReplaceAllString(unsigned, "") != "" {
		return time.ParseDuration(text)
	}
	var sum time.Duration
	for _, term := range durationTerm.FindAllStringSubmatch(unsigned, -1) {
		number, unit, factor := term[1], term[2], time.Duration(1)
		if hours, long := map[string]time.Duration{"d": 24, "w": 7 * 24}[unit]; long {
			unit, factor = "h", hours
		}
		d, err := time.ParseDuration(number + unit)
		if err != nil || d > math.MaxInt64/factor || sum > math.MaxInt64-d*factor {
			return 0, fmt.Errorf("parse duration %q: a term that is unknown or too large", text)
		}
		sum += d * factor
	}
	if strings.HasPrefix(text, "-") {
		sum = -sum
	}
	return sum, nil
}

// Decode reads a duration of the environment.
func (d *duration) Decode(value string) error {
	if err := d.Set(value); err != nil {
		return &valueError{value, durationAccepted}
	}
	return nil
}

// Set, Type and String make it a flag's value.
func (d *duration) Set(value string) error {
	parsed, err := parseDuration(value)
	if err != nil {
		return errors.New(durationAccepted)
	}
	*d = duration(parsed)
	return nil
}

// Type is what help calls the value.
func (d *duration) Type() string { return "duration" }

func (d *duration) String() string { return time.Duration(*d).String() }

// byteSize is a number of bytes.
type byteSize int64

var byteUnits = map[string]float64{"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}

// leastSlotLag is two segments of WAL. A slot always retains some.
const leastSlotLag = 32 << 20

var byteText = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) *([A-Za-z]*)$`)

// Decode reads a number with a unit as PostgreSQL has them, such as 512MB.
func (b *byteSize) Decode(value string) error {
	bad := &valueError{value, "a size of 32MB or more, such as 512MB or 10GB; 0: no limit"}
	if strings.TrimSpace(value) == "0" {
		*b = 0
		return nil
	}
	match := byteText.FindStringSubmatch(strings.TrimSpace(value))
	if match == nil {
		return bad
	}
	unit, known := byteUnits[strings.ToUpper(match[2])]
	number, err := strconv.ParseFloat(match[1], 64)
	if !known || err != nil || number*unit > math.MaxInt64/2 || number*unit < leastSlotLag {
		return bad
	}
	*b = byteSize(number * unit)
	return nil
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// check validates the values and their combinations, in the order of the documentation.
func (c *Config) check() error {
	if c.DatabaseURL == "" {
		return &ConfigError{Variable: "DATABASE_URL", Accepted: databaseURLAccepted}
	}
	return c.checkValues()
}

func (c *Config) checkValues() error {
	bad := func(variable, value, accepted string) error {
		return &ConfigError{Variable: variable, Value: value, Accepted: accepted}
	}
	if !slotName.MatchString(c.Slot) {
		return bad("SLOT", quoted(c.Slot), "1 to 63 lower-case letters, digits and underscores")
	}
	if c.Publication == "" || len(c.Publication) > 63 || strings.ContainsRune(c.Publication, 0) {
		return bad("PUBLICATION", quoted(c.Publication), "a name of 1 to 63 bytes")
	}
	if c.Publish != catalog.PublishAll && c.Publish != catalog.PublishMapped {
		return bad("PUBLISH", quoted(c.Publish), "all or mapped")
	}
	if err := c.readMapping(); err != nil {
		return err
	}
	if _, port, err := net.SplitHostPort(c.Listen); err != nil || !validPort(port) {
		return bad("LISTEN", quoted(c.Listen), "host:port, such as 127.0.0.1:9464 or :9464")
	}
	for _, d := range []struct {
		name  string
		value duration
		least duration
		text  string
	}{
		{"DELIVERY_TIMEOUT", c.DeliveryTimeout, duration(time.Millisecond), "a duration of 1ms or more, such as 15s"},
		{"RETRY_BASE", c.RetryBase, duration(time.Millisecond), "a duration of 1ms or more, such as 5s"},
		{"RETRY_CAP", c.RetryCap, duration(time.Millisecond), "a duration of 1ms or more, such as 12h"},
		{"DISABLE_AFTER", c.DisableAfter, 0, "a duration of 1ms or more, such as 120h or 5d; 0: never"},
		{"RETENTION", c.Retention, 0, "a duration of 1ms or more, such as 90d or 2w; 0: for ever"},
	} {
		if d.value < d.least || d.value > 0 && d.value < duration(time.Millisecond) {
			return bad(d.name, asSet(d.name, d.value.String()), d.text)
		}
	}
	for _, n := range []struct {
		name        string
		value, most int
	}{
		{"CONCURRENCY", c.Concurrency, 10000},
		{"ENDPOINT_CONCURRENCY", c.EndpointConcurrency, 10000},
		{"MAX_ATTEMPTS", c.MaxAttempts, 1000},
	} {
		if n.value < 1 || n.value > n.most {
			return bad(n.name, asSet(n.name, strconv.Itoa(n.value)), fmt.Sprintf("a whole number from 1 to %d", n.most))
		}
	}
	if c.RetryBase > c.RetryCap {
		base, limit := asSet("RETRY_BASE", c.RetryBase.String()), asSet("RETRY_CAP", c.RetryCap.String())
		if _, set := os.LookupEnv(Prefix + "_RETRY_BASE"); !set {
			return bad("RETRY_CAP", limit, "at least WALHOOK_RETRY_BASE, which is "+base)
		}
		return bad("RETRY_BASE", base, "at most WALHOOK_RETRY_CAP, which is "+limit)
	}
	if err := c.checkConsole(); err != nil {
		return err
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return bad("LOG_FORMAT", quoted(c.LogFormat), "text or json")
	}
	return nil
}

// readMapping parses the variables of the mapping.
func (c *Config) readMapping() error {
	for _, read := range []func() error{c.readTables, c.readColumns, c.readMarkers} {
		if err := read(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) readTables() (err error) {
	m := &c.mapped
	for _, table := range []struct {
		variable, value string
		to              *cdc.Name
	}{{"RESPONDENT_TABLE", c.RespondentTable, &m.Respondent}, {"ASSESSMENT_TABLE", c.AssessmentTable, &m.AssessmentTable}} {
		if table.value == "" && table.to == &m.AssessmentTable {
			continue
		}
		if *table.to, err = cdc.ParseName(table.value, "public"); err != nil {
			return &ConfigError{
				Variable: table.variable, Value: quoted(table.value),
				Accepted: "a table as schema.table, with double quotes around a name that holds a dot",
			}
		}
	}
	if m.AssessmentTable == m.Respondent {
		return &ConfigError{
			Variable: "ASSESSMENT_TABLE", Value: quoted(c.AssessmentTable),
			Accepted: "another table than WALHOOK_RESPONDENT_TABLE, or none",
		}
	}
	return nil
}

// columnVariable is a variable that names a column.
type columnVariable struct {
	variable, value string
	to              *string
	optional        bool
	fallback        string // the variable's default
}

func (c *Config) readColumns() (err error) {
	m := &c.mapped
	columns := []columnVariable{
		{variable: "RESPONDENT_ID", value: c.RespondentID, to: &m.ID},
		{variable: "RESPONDENT_ASSESSMENT", value: c.RespondentAssessment, to: &m.Assessment},
		{variable: "RESPONDENT_ORGANIZATION", value: c.RespondentOrganization, to: &m.Organization, optional: true},
	}
	ofAssessment := []columnVariable{
		{variable: "ASSESSMENT_ID", value: c.AssessmentID, to: &m.AssessmentID, fallback: "id"},
		{variable: "ASSESSMENT_EXTERNAL_ID", value: c.AssessmentExternalID, to: &m.ExternalID, fallback: "external_id"},
		{variable: "ASSESSMENT_COPIED_FROM", value: c.AssessmentCopiedFrom, to: &m.CopiedFrom, optional: true},
		{variable: "ASSESSMENT_ORGANIZATION", value: c.AssessmentOrganization, to: &m.AssessmentOrganization, optional: true},
		{variable: "ASSESSMENT_NAME", value: c.AssessmentName, to: &m.AssessmentName, optional: true},
	}
	if m.HasAssessmentTable() {
		columns = append(columns, ofAssessment...)
	} else {
		for _, alone := range ofAssessment {
			if alone.value != "" && alone.value != alone.fallback {
				return &ConfigError{
					Variable: alone.variable, Value: quoted(alone.value),
					Accepted: "only together with WALHOOK_ASSESSMENT_TABLE",
				}
			}
		}
	}
	for _, column := range columns {
		if column.value == "" && column.optional {
			continue
		}
		if *column.to, err = cdc.ParseColumn(column.value); err != nil {
			return &ConfigError{Variable: column.variable, Value: quoted(column.value), Accepted: "the name of a column"}
		}
	}
	if c.FinishStamp == "" {
		return nil
	}
	if m.Stamp, err = cdc.ParseColumns(c.FinishStamp); err != nil {
		return &ConfigError{
			Variable: "FINISH_STAMP", Value: quoted(c.FinishStamp),
			Accepted: "the name of a column, or several separated by commas",
		}
	}
	return nil
}

func (c *Config) readMarkers() (err error) {
	m := &c.mapped
	for _, marker := range []struct {
		variable, value string
		to              *cdc.Marker
	}{
		{"RESPONDENT_WHERE", c.RespondentWhere, &m.Where},
		{"STARTED", c.Started, &m.Started},
		{"FINISHED", c.Finished, &m.Finished},
	} {
		if marker.value == "" && marker.to == &m.Where {
			continue
		}
		if *marker.to, err = condition.Parse(marker.value); err != nil {
			return badCondition(marker.variable, marker.value, err)
		}
	}
	return nil
}

// badCondition is the error for a condition that cannot be parsed. It shows the place of a mistake in an expression.
func badCondition(variable, value string, err error) error {
	configError := &ConfigError{Variable: variable, Value: quoted(value), Accepted: err.Error()}
	var mistake *condition.Error
	if errors.As(err, &mistake) {
		configError.Accepted = mistake.Reason
		if strings.ContainsAny(mistake.Text, " \t\n()<>!'") {
			configError.Place = mistake.Place()
		}
	}
	return configError
}

// asSet returns the variable's text as it was set, such as 90m, or else the value.
func asSet(variable, value string) string {
	if text, set := os.LookupEnv(Prefix + "_" + variable); set {
		return text
	}
	return value
}

// quoted formats a value that is no secret, so that an empty one can be seen.
func quoted(value string) string { return strconv.Quote(value) }

func validPort(port string) bool {
	n, err := strconv.Atoi(port)
	return err == nil && n >= 0 && n <= 65535
}
